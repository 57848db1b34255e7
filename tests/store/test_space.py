"""The alarm of the storage: raised once, and cleared when its reason is gone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.clock import ManualClock
from appliance.config import Settings
from appliance.model import AlarmKind
from appliance.runtime.space import OBJECT, PROBE, Watch
from appliance.storage.store import Store
from tests.support.store import fresh_store


async def alarms(store: Store, *, open_only: bool = True) -> list[str]:
    async with store.read() as tx:
        return [
            alarm.text for alarm in await tx.alarms.find(open_only=open_only) if alarm.kind is AlarmKind.POOL
        ]


async def test_an_alarm_is_raised_once_and_cleared(tmp_path: Path) -> None:
    values = {"path.storage.root": str(tmp_path), "storage.pool.reserve": "0%", "storage.pool.alarm": "100%"}
    async with fresh_store(tmp_path) as store:
        watch = Watch(store, lambda: Settings(values), ManualClock(datetime(2030, 1, 1, tzinfo=UTC)))
        for _ in range(3):
            await watch.look()
        (said,) = await alarms(store)
        assert "nearly full" in said
        async with store.write() as tx:
            await tx.alarms.clear(AlarmKind.POOL, OBJECT)
        await watch.look()
        assert len(await alarms(store)) == 1, "its reason is there still"
        values["storage.pool.alarm"] = "0%"
        await watch.look()
        assert await alarms(store) == []
        assert len(await alarms(store, open_only=False)) == 2


async def test_an_alarm_of_a_former_daemon_is_cleared_as_well(tmp_path: Path) -> None:
    values = {"path.storage.root": str(tmp_path), "storage.pool.reserve": "0%", "storage.pool.alarm": "0%"}
    async with fresh_store(tmp_path) as store:
        async with store.write() as tx:
            await tx.alarms.raise_(AlarmKind.POOL, "storage", "the pool was full")
        await Watch(store, lambda: Settings(values), ManualClock(datetime(2030, 1, 1, tzinfo=UTC))).look()
        assert await alarms(store) == []


@pytest.mark.parametrize("hourly", [0, 3600])
async def test_that_something_can_be_written_is_tried_now_and_then(tmp_path: Path, hourly: int) -> None:
    values = {"path.storage.root": str(tmp_path), "storage.pool.reserve": "0%", "storage.pool.alarm": "0%"}
    clock = ManualClock(datetime(2030, 1, 1, tzinfo=UTC))
    async with fresh_store(tmp_path) as store:
        watch = Watch(store, lambda: Settings(values), clock)
        await watch.look()
        assert not (tmp_path / PROBE).exists()
        (tmp_path / PROBE).mkdir()  # In the way of the next try.
        await clock.advance(hourly)
        await watch.look()
        said = await alarms(store)
        assert said == ([f"the pool at {tmp_path} cannot be written"] if hourly else [])
        (tmp_path / PROBE).rmdir()
        await watch.look()
        assert await alarms(store) == []
