"""What the items' `license` column says: the Hub's identifiers, and what must not be passed on.

People write licences in many ways, so this is a reading of words and no legal advice: it errs towards asking.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from audioprep.shards.dataset import Dataset
from audioprep.storage.places import is_url

EXAMPLES = 3
_NOTHING = {"", "unknown", "none", "null", "n/a", "na", "?", "-"}

# Tokens and latents are adaptations of a recording, which ND licences forbid to share.
_RESTRICTIONS = [
    (r"(?<![a-z0-9.])nd(?![a-z0-9.])|\bno[ -]?deriv", "forbids derivatives"),
    (r"\ball rights reserved\b", "reserves all rights"),
    (r"\b(?:proprietary|confidential|internal use|standard youtube licen[cs]e)\b", "is closed"),
    (r"\b(?:no|not|non|without|forbids?|prohibits?)\b.{0,24}\bre-?distribut", "forbids redistribution"),
    (r"\bre-?distribut\w*\W+(?:(?:is|are)\W+)?(?:not|forbidden|prohibited)\b", "forbids redistribution"),
    (r"\b(?:not|never) (?:be )?(?:distributed|shared|passed on|published)\b", "forbids redistribution"),
    (r"\bdownload only\b|\bpersonal use only\b", "is for the one who downloads"),
]

# The Hub's identifiers that free text is recognised as. Creative Commons' own are put together in `identifier`.
_IDENTIFIERS = {
    "mit": r"mit(?: licen[cs]e)?",
    "apache-2.0": r"apache(?: licen[cs]e)?,? ?(?:v|version)? ?2(?:\.0)?",
    "bsd-3-clause": r"bsd 3 clause",
    "cc0-1.0": r"cc ?0(?: 1\.0)?(?: universal)?|(?:creative commons )?(?:public domain dedication|zero)(?: 1\.0)?",
    "pddl": r"pddl",
    "odc-by": r"odc by",
    "odbl": r"odbl",
    "unlicense": r"(?:the )?unlicense",
}
_CC = re.compile(
    r"(?:cc|creative commons) (?P<terms>(?:by|attribution)(?: (?:nc|nd|sa|non ?commercial|no ?deriv\w*|share ?alike))*)"
    r"(?: licen[cs]e)?(?: v?(?P<version>[1-4]\.0|2\.5))?(?: (?:international|unported|generic|licen[cs]e|deed|\w\w))*"
)
_TERMS = {"attribution": "by", "noncommercial": "nc", "sharealike": "sa"}
# Those versions of which the Hub has an identifier.
_CC_VERSIONS = {
    "cc-by": {"2.0", "2.5", "3.0", "4.0"},
    "cc-by-sa": {"3.0", "4.0"},
    "cc-by-nc": {"2.0", "3.0", "4.0"},
    "cc-by-nd": {"4.0"},
    "cc-by-nc-nd": {"3.0", "4.0"},
    "cc-by-nc-sa": {"2.0", "3.0", "4.0"},
}


@dataclass(slots=True)
class Survey:
    """What a shard set's items say of their licences and of where they came from.

    Attributes:
        licenses: items by what their `license` says, `""`: nothing.
        restricted: the uris of some items of each licence that forbids to pass them on.
        local_paths: items whose `uri` is a path of the machine that made the set.
        local_example: one of them.
    """

    licenses: Counter[str] = field(default_factory=Counter)
    restricted: dict[str, list[str]] = field(default_factory=dict)
    local_paths: int = 0
    local_example: str = ""

    @property
    def unlicensed(self) -> int:
        """Items that state no licence."""
        return self.licenses[""]

    @property
    def restricted_items(self) -> int:
        return sum(self.licenses[name] for name in self.restricted)


def survey(dataset: Dataset) -> Survey:
    """Reads the columns `license` and `uri` of a shard set, and nothing else of it.

    Raises:
        OSError, pyarrow.ArrowInvalid: a shard cannot be read.
    """
    found = Survey()
    for license_text, uri in _licenses_and_uris(dataset):
        name = (license_text or "").strip()
        name = "" if name.casefold() in _NOTHING else name
        if name not in found.licenses and restriction(name):
            found.restricted[name] = []
        found.licenses[name] += 1
        if len(examples := found.restricted.get(name, _FULL)) < EXAMPLES:
            examples.append(uri or "an item without a uri")
        if uri and not is_url(uri):
            found.local_paths += 1
            found.local_example = found.local_example or uri
    return found


_FULL = [""] * EXAMPLES


def restriction(text: str) -> str | None:
    """Why items of this licence must not be passed on, as the end of a sentence; None where nothing says so."""
    words = text.casefold().replace("_", " ")
    return next((why for pattern, why in _RESTRICTIONS if re.search(pattern, words)), None)


def identifier(text: str) -> str | None:
    """The Hub's identifier of a licence, as cards have it; None where there is none, or the version is not said."""
    words = text.casefold().strip()
    if link := re.search(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/([\d.]+)", words):
        words = f"cc0 {link[3]}" if link[2] == "zero" else f"cc {link[2]} {link[3]}"
    words = " ".join(re.sub(r"[-_/(),:]+", " ", words).split())
    for name, pattern in _IDENTIFIERS.items():
        if re.fullmatch(pattern, words):
            return name
    if not (found := _CC.fullmatch(words)):
        return None
    terms = re.sub(
        r"non ?commercial", "nc", re.sub(r"share ?alike", "sa", re.sub(r"no ?deriv\w*", "nd", found["terms"]))
    )
    name = "-".join(["cc", *(_TERMS.get(term, term) for term in terms.split())])
    return f"{name}-{found['version']}" if found["version"] in _CC_VERSIONS.get(name, ()) else None


def license_metadata(licenses: Sequence[str]) -> dict[str, str]:
    """The card's fields on the licence of items that say these things (`""`: nothing).

    The Hub has one field: where items differ, or say what it has no name for, it is `other` with a name of its own.
    """
    known = {identifier(name) for name in licenses}
    if len(known) == 1 and (only := known.pop()):
        return {"license": only}
    if set(licenses) <= {""}:
        return {"license": "unknown"}
    if len(licenses) > 1:
        return {"license": "other", "license_name": "mixed"}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", licenses[0].casefold()).strip("-") or "own"}


def _licenses_and_uris(dataset: Dataset) -> Iterator[tuple[str | None, str | None]]:
    for shard in dataset.shards():
        file = dataset.shard(shard)
        if dataset.storage == "parquet":
            with pq.ParquetFile(file.path) as parquet:
                for batch in parquet.iter_batches(columns=["license", "uri"]):
                    yield from zip(batch["license"].to_pylist(), batch["uri"].to_pylist(), strict=True)
            continue
        places = pq.read_table(file.index, columns=["json_offset", "json_size"])
        with open(file.path, "rb") as tar:
            for place in places.to_pylist():
                tar.seek(place["json_offset"])
                item = json.loads(tar.read(place["json_size"]))
                yield item.get("license"), item.get("uri")
