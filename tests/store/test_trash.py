"""The daemon's part of the trash: what lay there long enough goes, and only then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from appliance.clock import ManualClock
from appliance.config import Settings
from appliance.filters import Filter
from appliance.model import AlarmKind, BackendKind, DiId
from appliance.ops import image_trash
from appliance.runtime.trash import SURE_S, Trash
from appliance.storage.migrate import upgrade
from appliance.storage.paths import Paths
from appliance.storage.store import Store
from tests.support.store import url

NOW = datetime(2030, 1, 31, 18, 0, tzinfo=UTC)
WEEK_S = timedelta(days=7).total_seconds()


class Box:
    """An installation with two images, the second of which is in the trash."""

    def __init__(self, store: Store, settings: Settings, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.paths = Paths(settings)
        self.settings = settings
        self.trash = Trash(store, lambda: settings, clock)

    def files(self) -> list[str]:
        """What the images' folder holds."""
        return sorted(file.name for file in self.paths.images.iterdir())

    async def alarms(self) -> list[str]:
        """The open alarms of the storage."""
        async with self.store.read() as tx:
            return [alarm.text for alarm in await tx.alarms.find() if alarm.kind is AlarmKind.POOL]


@asynccontextmanager
async def box(directory: Path, days: str = "7") -> AsyncIterator[Box]:
    values = {"path.storage.root": str(directory), "storage.images.trash.days": days}
    settings, clock = Settings(values), ManualClock(NOW)
    paths = Paths(settings)
    paths.images.mkdir()
    upgrade(url(directory))
    store = await Store.open(url(directory), clock)
    try:
        async with store.write() as tx:
            osf = await tx.osfs.add(
                name="desktop",
                memory_mib=256,
                cpus=None,
                use_overlay=True,
                user_storage_mib=None,
                backend=BackendKind.LXC,
            )
            for number in (1, 2):
                di_id = await tx.images.reserve_id(osf)
                name = f"{di_id}-a.tar"
                (paths.images / name).touch()
                await tx.images.add(di_id, osf, version=f"v{number}", path=name, sha256="", size_bytes=0)
            await image_trash.retire(tx, settings, Filter.where(id=2), by="test")
        yield Box(store, settings, clock)
    finally:
        await store.close()


async def test_it_goes_when_its_time_is_over_and_that_is_sure(tmp_path: Path) -> None:
    async with box(tmp_path) as at:
        await at.trash.empty()
        await at.clock.advance(WEEK_S)
        await at.trash.empty()
        assert at.files() == ["1-a.tar", "2-a.tar"], "a wrong clock is put right within the hour"
        await at.clock.advance(SURE_S)
        await at.trash.empty()
        assert at.files() == ["1-a.tar"]
        async with at.store.read() as tx:
            assert [di.id for di in await tx.images.find(trash=True)] == [1]
            assert await tx.operations.find() == []
        await at.trash.empty()


async def test_what_came_back_in_time_stays(tmp_path: Path) -> None:
    async with box(tmp_path) as at:
        await at.clock.advance(WEEK_S)
        await at.trash.empty()
        async with at.store.write() as tx:
            await image_trash.bring_back(tx, Filter.where(id=2), by="test")
        await at.clock.advance(SURE_S)
        await at.trash.empty()
        assert at.files() == ["1-a.tar", "2-a.tar"]


async def test_no_days_at_all_are_over_at_once(tmp_path: Path) -> None:
    async with box(tmp_path, days="0") as at:
        await at.trash.empty()
        assert at.files() == ["1-a.tar"]


async def test_what_cannot_be_removed_is_one_alarm_until_it_is_gone(tmp_path: Path) -> None:
    async with box(tmp_path, days="0") as at:
        lock = at.paths.image_lock(DiId(2))
        lock.mkdir()
        for _ in range(3):
            await at.trash.empty()
        (said,) = await at.alarms()
        assert said.startswith("image 2 in the trash cannot be removed: ")
        async with at.store.read() as tx:
            assert [alarm.count for alarm in await tx.alarms.find()] == [1]
        lock.rmdir()
        await at.trash.empty()
        assert await at.alarms() == []
        assert at.files() == ["1-a.tar"]
