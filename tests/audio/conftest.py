from functools import cache

import pytest
from audio_helpers import Encoded, write


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """Gives the recording's file in the variant of a name, written once a session. Tests must not change it."""
    folder = tmp_path_factory.mktemp("encoded")
    return cache(lambda name: write(name, folder))
