"""What licences say, in the many ways in which people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hub_helpers import OPEN, make_set

from audioprep.corpus.jacappella import LICENSE as JACAPPELLA
from audioprep.hub.licences import identifier, license_metadata, restriction, survey
from audioprep.shards.dataset import open_dataset


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CC BY 4.0", "cc-by-4.0"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"),
        ("CC-BY-NC 3.0 US", "cc-by-nc-3.0"),
        ("https://creativecommons.org/licenses/by-sa/4.0/", "cc-by-sa-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International License", "cc-by-nc-sa-4.0"),
        ("CC0", "cc0-1.0"),
        ("CC0 1.0 Universal", "cc0-1.0"),
        ("MIT", "mit"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("CC BY", None),
        ("CC BY-NC 2.5", None),
        ("CC BY 4.0, but ask me first", None),
        ("my own", None),
    ],
)
def test_the_hubs_identifiers(text: str, expected: str | None) -> None:
    assert identifier(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        JACAPPELLA,
        "CC BY-ND 4.0",
        "cc_by_nc_nd",
        "https://creativecommons.org/licenses/by-nc-nd/3.0/",
        "Attribution-NonCommercial-NoDerivatives 4.0",
        "Attribution - No Derivs",
        "All Rights Reserved",
        "proprietary",
        "Research only, redistribution is prohibited",
        "may not be redistributed",
        "FMA-Limited: Download Only",
    ],
)
def test_what_must_not_be_passed_on(text: str) -> None:
    assert restriction(text)


@pytest.mark.parametrize(
    "text", ["", OPEN, "CC0", "CC BY-NC-SA 4.0", "public domain", "2nd edition, free", "free to share and redistribute"]
)
def test_what_may(text: str) -> None:
    assert restriction(text) is None


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        ([OPEN], {"license": "cc-by-4.0"}),
        ([OPEN, "cc-by-4.0"], {"license": "cc-by-4.0"}),
        ([OPEN, ""], {"license": "other", "license_name": "mixed"}),
        ([OPEN, "MIT"], {"license": "other", "license_name": "mixed"}),
        ([""], {"license": "unknown"}),
        ([], {"license": "unknown"}),
        (["My Label: use it!"], {"license": "other", "license_name": "my-label-use-it"}),
        (["無断転載禁止"], {"license": "other", "license_name": "own"}),
    ],
)
def test_the_fields_of_a_card(licenses: list[str], expected: dict[str, str]) -> None:
    assert license_metadata(licenses) == expected


@pytest.mark.parametrize("storage", ["parquet", "webdataset"])
def test_items_are_counted(tmp_path: Path, storage: Any) -> None:
    out = make_set(tmp_path / "out", 3, storage=storage, licenses=[OPEN, "ARR: all rights reserved", None, "unknown"])
    found = survey(open_dataset(out))
    assert found.licenses == {OPEN: 3, "ARR: all rights reserved": 3, "": 6}
    assert found.restricted == {
        "ARR: all rights reserved": [f"https://example.org/{number}.flac" for number in (1, 5, 9)]
    }
    assert found.local_paths == 0
