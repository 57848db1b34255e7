"""The rows of a table in their order: kept sorted and filtered while records come, change and go. Pure.

A change costs the logarithm of the number of rows, not the number: ten thousand desktops change fifty times
a second, and the screen shows forty of them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

R = TypeVar("R")
Key: TypeAlias = Any
"""What identifies a record among those of its table; keys of one table can be compared."""


def _everything(_: Any) -> bool:
    return True


def _nothing(_: Any) -> Any:
    return 0


class Listing(Generic[R]):
    """Records by key, and those that pass in their order."""

    def __init__(self, sort: Callable[[R], Any] = _nothing) -> None:
        self.records: dict[Key, R] = {}
        """All there are, passing or not."""
        self._passes: Callable[[R], bool] = _everything
        self._sort = sort
        self._reverse = False
        self._ranks: dict[Key, tuple[Any, Key]] = {}
        self._order: list[tuple[Any, Key]] = []

    def __len__(self) -> int:
        return len(self._order)

    def key_at(self, index: int) -> Key:
        """The key of a row, counted from the top.

        :raises IndexError: there are fewer rows
        """
        if not 0 <= index < len(self._order):
            raise IndexError(index)
        return self._order[~index if self._reverse else index][1]

    def index_of(self, key: Key) -> int | None:
        """Where a record stands; None if it does not pass, or is not there."""
        if (rank := self._ranks.get(key)) is None:
            return None
        at = bisect_left(self._order, rank)
        return len(self._order) - 1 - at if self._reverse else at

    def ordered(self) -> list[Key]:
        """The keys of all rows, from the top."""
        keys = [key for _, key in self._order]
        return keys[::-1] if self._reverse else keys

    def replace(self, records: Mapping[Key, R]) -> None:
        """Let these be all the records."""
        self.records = dict(records)
        self._rebuild()

    def apply(self, changed: Mapping[Key, R], gone: Iterable[Key] = ()) -> bool:
        """Take in what changed; whether any row came, went or moved."""
        moved = False
        for key, record in changed.items():
            self.records[key] = record
            moved |= self._rank(key, (self._sort(record), key) if self._passes(record) else None)
        for key in gone:
            if self.records.pop(key, None) is not None:
                moved |= self._rank(key, None)
        return moved

    def sort_by(self, sort: Callable[[R], Any], *, reverse: bool) -> None:
        """Put the rows in another order."""
        self._sort, self._reverse = sort, reverse
        self._rebuild()

    def show(self, passes: Callable[[R], bool] | None) -> None:
        """Let only those records be rows that pass; None: all."""
        self._passes = passes or _everything
        self._rebuild()

    def _rank(self, key: Key, new: tuple[Any, Key] | None) -> bool:
        old = self._ranks.get(key)
        if old == new:
            return False
        if old is not None:
            del self._order[bisect_left(self._order, old)]
            del self._ranks[key]
        if new is not None:
            insort(self._order, new)
            self._ranks[key] = new
        return True

    def _rebuild(self) -> None:
        passes, sort = self._passes, self._sort
        self._ranks = {key: (sort(record), key) for key, record in self.records.items() if passes(record)}
        self._order = sorted(self._ranks.values())
