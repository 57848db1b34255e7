"""The only place that reads a clock or sleeps.

Two clocks, kept apart so that a test can move the calendar under real guests:
`Calendar` gives aware UTC instants (deadlines that people set), `Timers` monotonic time-outs.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Calendar(Protocol):
    """What day it is, as people count."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        ...


class Timers(Protocol):
    """How much time has passed, whatever the calendar says."""

    def monotonic(self) -> float:
        """Seconds since some fixed instant."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class Clock(Calendar, Timers, Protocol):
    """Both clocks in one."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that moves when told to, for tests: `advance()` moves both its clocks."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._elapsed + seconds, woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`, wake the sleepers that are due, and let them run."""

        self._elapsed += seconds
        self._now += timedelta(seconds=seconds)
        due = [future for at, future in self._sleepers if at <= self._elapsed]
        self._sleepers = [(at, future) for at, future in self._sleepers if at > self._elapsed]
        for future in due:
            if not future.done():
                future.set_result(None)
        for _ in range(10):
            await asyncio.sleep(0)
