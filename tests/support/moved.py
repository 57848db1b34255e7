"""A calendar that a test moves, under timers that go on: the days pass, and the guests do not notice."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from appliance.clock import SystemClock

DAYS = "QVD_DAYS"
"""In the environment of a daemon: the file that says by how many seconds its calendar is ahead."""


class MovedClock(SystemClock):
    """The machine's clocks, the calendar ahead by as much as `ahead` says."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self.ahead = ahead

    def now(self) -> datetime:
        return super().now() + self.ahead


class ClockOfFile(SystemClock):
    """The machine's clocks, the calendar ahead by as many seconds as a file says, each time it is asked."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> datetime:
        ahead = float(self._file.read_text()) if self._file.exists() else 0.0
        return super().now() + timedelta(seconds=ahead)
