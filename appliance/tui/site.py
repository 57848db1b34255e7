"""What all panes of a TUI share: the installation, how it is read and acted on, what is known of it now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from appliance import config
from appliance.clock import Calendar
from appliance.config import Settings
from appliance.storage.live import LiveReader
from appliance.threads import in_thread
from appliance.tui.calls import Caller
from appliance.tui.columns import Scene
from appliance.tui.database import Database
from appliance.tui.glyphs import Glyphs
from appliance.tui.tally import Tally
from appliance.tui.where import database_path

if TYPE_CHECKING:
    from appliance.qa.samples import HostUse

T = TypeVar("T")


@dataclass(kw_only=True)
class Site:
    """One installation, as one administrator sees it."""

    config_file: Path | None
    settings: Settings
    """Of the file alone."""
    database: Database
    caller: Caller
    calendar: Calendar
    glyphs: Glyphs
    read_only: bool = False
    who: str = "tui"
    """How other viewers of a console see us."""
    tally: Tally = field(default_factory=Tally)
    usage: Mapping[int, tuple[float | None, int]] = field(default_factory=dict)
    """Cores and bytes of memory that guests use, by VM; nothing while the daemon is down."""
    host: HostUse | None = None
    daemon_down_since: datetime | None = None
    daemon_trouble: str = "down"
    """What is wrong with it since then, in a word."""
    daemon_known: bool = False
    """Whether we have tried to reach the daemon yet."""
    _reader: LiveReader | None = None
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def control(self) -> Path:
        """The daemon's socket."""
        return self.settings[config.PATH_CONTROL]

    @property
    def node(self) -> str:
        """The name of this node."""
        return self.settings[config.NODENAME]

    @property
    def now(self) -> datetime:
        """The present instant."""
        return self.calendar.now()

    async def read(self, what: Callable[[LiveReader], T]) -> T:
        """What a look at the database finds, taken in a thread; of another file, once one is in its place.

        :raises StoreError: the database cannot be read
        """
        async with self._reading:
            if self._reader is not None and self._reader.is_replaced:
                self._reader.close()
                self._reader = None
                self.database.renew()
            if self._reader is None:
                self._reader = await in_thread(LiveReader, database_path(self.settings))
            return await in_thread(what, self._reader)

    async def close(self) -> None:
        """Close what is open."""
        async with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
        await self.database.close()

    def scene(self) -> Scene:
        """What cells depend on, as of now."""
        silent = self.node if self.daemon_down_since is not None else None
        return Scene(self.now, self.glyphs, self.usage, silent)
