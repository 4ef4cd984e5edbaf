"""The items of one split of a shard set, shard by shard, as exports read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from audioprep.engine.commit import digest
from audioprep.shards.dataset import Dataset
from audioprep.shards.reading import open_split
from audioprep.storage.places import Place

Item = dict[str, Any]


class ShardItems(NamedTuple):
    """The items of one shard.

    Attributes:
        name: of the shard, such as `train-00000`.
        digest: of what the items are.
        items: read as they are asked for.
    """

    name: str
    digest: str
    items: Iterator[Item]


class Source:
    """The first items of one split.

    Args:
        out: the shard set's folder or URL.
        split: its name.
        limit: only so many items; None for all.

    Raises:
        UsageError: no such shard set or split.
    """

    def __init__(self, out: Place, split: str, limit: int | None) -> None:
        self._reader = open_split(out, split)
        rows = sum(shard.rows for shard in self._reader.shards)
        self.items = min(rows, limit or rows)

    @property
    def dataset(self) -> Dataset:
        return self._reader.dataset

    def shards(self, columns: Sequence[str], on_items: Callable[[int, int], None]) -> Iterator[ShardItems]:
        """Gives the shards, in order.

        Args:
            columns: what is read of each item; with `id`.
            on_items: called with the number of items done and of all items.
        """
        block = done = 0
        for shard in self._reader.shards:
            first, behind = block, 0
            while behind < shard.rows:
                behind += int(self._reader.block_rows[block])
                block += 1
            rows = min(shard.rows, self.items - done)
            if rows:
                items = self._items(
                    range(first, block), columns, rows, lambda n, done=done: on_items(done + n, self.items)
                )
                yield ShardItems(shard.stem, digest({"sha256": shard.sha256, "rows": rows}), items)
            done += rows
            on_items(done, self.items)

    def _items(
        self, blocks: range, columns: Sequence[str], rows: int, on_items: Callable[[int], None]
    ) -> Iterator[Item]:
        """The first `rows` items of some blocks."""
        done = 0
        for block in blocks:
            values = self._reader.read(block, columns)
            for row in range(min(rows - done, len(values["id"]))):
                yield {column: values[column][row] for column in columns}
                done += 1
                on_items(done)
