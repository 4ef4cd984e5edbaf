"""The tests of shards need no network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read by `datasets` when it is imported
