"""A pane whose rows are read as a whole, whenever something changed that concerns them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from appliance.clock import SystemClock
from appliance.errors import ApplianceError
from appliance.storage.live import Delta
from appliance.tui.listing import Key
from appliance.tui.panes.base import TablePane
from appliance.tui.workers import start

R = TypeVar("R")
SHARE = 10
"""After a look, this many times as long as it took passes before the next: a big list keeps nobody busy."""
LEAST_PAUSE_S = 0.1
TROUBLE_S = 1.0
"""How long after a failed look the next one is tried, while somebody waits for it."""


class FetchedPane(TablePane[R], Generic[R]):
    """Reads its rows in a worker: one at a time, and once more if something changed meanwhile."""

    def __init__(self, site: Any) -> None:
        super().__init__(site)
        self._wanted = False
        self._busy = False
        self._has_tried = False
        self._known: Mapping[Key, R] = {}
        """The rows as they were read last: not all need be in the table yet."""

    @abstractmethod
    async def fetch(self) -> Mapping[Key, R]:
        """All rows, by key.

        :raises ApplianceError: they cannot be read
        """

    @property
    def awaits_rows(self) -> bool:
        """Whether the rows that keys would go to are still to come."""
        return (self._busy and not self._has_tried) or super().awaits_rows

    def take(self, delta: Delta) -> None:
        """Read the rows anew if what changed concerns them."""
        if delta.whole or delta.nouns & self.nouns:
            self.read_anew()

    def read_anew(self) -> None:
        """Read the rows, now or when the present look is over."""
        self._wanted = True
        if not self._busy:
            self._busy = True
            start(self, self._read, group="fetch")

    async def _read(self) -> None:
        clock = SystemClock()
        try:
            while self._wanted:
                self._wanted = False
                begun = clock.monotonic()
                try:
                    rows = await self.fetch()
                except ApplianceError as exc:
                    if not self.app.is_running:
                        return
                    self._tell(str(exc))
                    self._has_tried = True
                    if self.is_shown:
                        self._wanted = True
                        await clock.sleep(TROUBLE_S)
                    continue
                if not self.app.is_running:
                    return
                self._tell(type(self).empty)
                self._show(rows)
                self._has_tried = True
                await clock.sleep(max(LEAST_PAUSE_S, SHARE * (clock.monotonic() - begun)))
        finally:
            self._busy = False

    def _tell(self, empty: str) -> None:
        """Say where there are no rows why that is so."""
        if empty != self.table.empty:
            self.table.empty = empty
            self.table.refresh()

    def _show(self, rows: Mapping[Key, R]) -> None:
        before, self._known = self._known, rows
        if not before:
            self.replace(rows)
            return
        changed = {key: row for key, row in rows.items() if before.get(key) != row}
        gone = frozenset(before.keys() - rows.keys())
        if changed or gone:
            self.apply(changed, gone)
