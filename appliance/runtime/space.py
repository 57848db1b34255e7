"""Watches the room that is left: of the pool, and of the disk under a pool that is a file.

A pool in a file that is sparse can promise more than its disk has; when that is full, guests and database
get I/O errors instead of a refusal. So one alarm is raised in time, and cleared when there is room again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from appliance import config
from appliance.clock import Clock
from appliance.config import Settings
from appliance.errors import ApplianceError
from appliance.filters import Filter
from appliance.log import facts
from appliance.model import AlarmKind
from appliance.storage.shares import reserve_bytes
from appliance.storage.store import Store
from appliance.threads import in_thread
from appliance.values import Portion

logger = logging.getLogger(__name__)

OBJECT = "storage"
ENOUGH = 1.1
"""How many times the threshold must be free before an alarm is cleared."""
MOUNTS = Path("/proc/self/mountinfo")
PROBE = ".writable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The disk under a pool that is a file."""

    path: Path
    free: int
    owed: int
    """What the pool may still ask of it, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The pool, and what is under it."""

    path: Path
    size: int
    free: int
    writable: bool
    disk: Disk | None = None


def complaint(room: Room, least: Portion, *, reserve: int = 0, raised: bool) -> str | None:
    """What is to be said about the room that is left beside the reserve; None if there is enough. Pure."""
    wanted = least.of(room.size) + reserve
    threshold = round(wanted * ENOUGH) if raised else wanted
    if not room.writable:
        return f"the pool at {room.path} cannot be written"
    if room.free < threshold:
        kept = f", {_mib(reserve)} of them for the host alone" if reserve else ""
        free = f"{_mib(room.free)} of {_mib(room.size)} MiB are free"
        return f"the pool at {room.path} is nearly full: {free}{kept}"
    if room.disk is not None and room.disk.free < min(threshold, room.disk.owed):
        return (
            f"the disk of the pool is nearly full: {_mib(room.disk.free)} MiB are free, "
            f"and {room.disk.path} may need {_mib(room.disk.owed)} MiB more"
        )
    return None


def measure(pool: Path) -> Room:
    """What is left.

    :raises OSError: it cannot be told
    """
    status = os.statvfs(pool)
    file = backing_file(pool)
    disk = None
    if file is not None:
        there, under = file.stat(), os.statvfs(file.parent)
        owed = max(0, there.st_size - there.st_blocks * 512)
        disk = Disk(path=file, free=under.f_bavail * under.f_frsize, owed=owed)
    return Room(
        path=pool,
        size=status.f_blocks * status.f_frsize,
        free=status.f_bavail * status.f_frsize,
        writable=not status.f_flag & os.ST_RDONLY,
        disk=disk,
    )


def backing_file(pool: Path) -> Path | None:
    """The file that a loop device shows as the file system of `pool`; None if it is on a real disk."""
    best, device = -1, ""
    where = str(pool.resolve())
    for line in MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4]
        if (where == point or where.startswith(f"{point.rstrip('/')}/")) and len(point) >= best:
            best, device = len(point), after.split()[1]
    loop = Path("/sys/block") / Path(device).name / "loop" / "backing_file"
    with suppress(OSError):
        file = Path(loop.read_text().strip())
        return file if file.exists() else None
    return None


def is_writable(folder: Path) -> bool:
    """Whether something can be written and reaches the disk."""
    probe = folder / PROBE
    try:
        with probe.open("wb") as stream:
            stream.write(b"written to see whether it can be\n")
            stream.flush()
            os.fsync(stream.fileno())
        probe.unlink()
    except OSError as exc:
        logger.error("the pool cannot be written", extra=facts(path=folder, error=exc.strerror))
        return False
    return True


class Watch:
    """Keeps the reserve where it must be, and raises the alarm in time."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], Settings],
        clock: Clock,
        each_time: tuple[Callable[[], Awaitable[None]], ...] = (),
    ) -> None:
        """`each_time` are done at each look."""
        self._store = store
        self._settings = settings
        self._clock = clock
        self._each_time = each_time
        self._said: str | None = None
        self._known = False
        self._tried: float | None = None
        """When something could be written last, by the monotonic clock."""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            for work in (self.look, *self._each_time):
                try:
                    await work()
                except (ApplianceError, OSError) as exc:
                    logger.error("the storage cannot be looked after", extra=facts(error=exc))
            await self._clock.sleep(self._settings()[config.STORAGE_DELAY])

    async def look(self) -> None:
        """Look once; the alarm is written when what it says begins, or ends.

        :raises OSError: the storage cannot be looked at
        :raises StoreError: the alarm cannot be written
        """
        settings = self._settings()
        room = await in_thread(measure, settings[config.PATH_STORAGE_ROOT])
        now = self._clock.monotonic()
        if self._tried is None or now - self._tried >= settings[config.SURVEY_DELAY]:
            writable = await in_thread(is_writable, room.path)
            self._tried = now if writable else None
            room = replace(room, writable=room.writable and writable)
        said = complaint(
            room,
            settings[config.POOL_ALARM],
            reserve=reserve_bytes(settings[config.POOL_RESERVE], room.size),
            raised=self._said is not None,
        )
        if self._known and (said is None) == (self._said is None) and (said is None or await self._is_open()):
            return
        async with self._store.write() as tx:
            if said is None:
                cleared = await tx.alarms.clear(AlarmKind.POOL, OBJECT)
            else:
                await tx.alarms.raise_(AlarmKind.POOL, OBJECT, said)
        if said is not None:
            logger.error("alarm", extra=facts(text=said))
        elif cleared:
            logger.info("the storage has room again", extra=facts(free_mib=_mib(room.free)))
        self._said, self._known = said, True

    async def _is_open(self) -> bool:
        """Whether the alarm stands; somebody may have cleared it though its reason is there still."""
        async with self._store.read() as tx:
            return bool(await tx.alarms.find(Filter.where(kind=AlarmKind.POOL, object=OBJECT)))


def _mib(size: int) -> int:
    return size >> 20
