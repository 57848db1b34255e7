"""Whatever hangs is given up: at once when somebody wishes so, else when its time is over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.model import DiId, FailureCause, Mark, VmId, VmState
from appliance.runtime.actions import ACTION_TYPES, Background, EraseGuest, LaunchGuest, PrepareRoot
from appliance.threads import in_thread
from tests.support.fake_backend import FakeBackend
from tests.support.host import Rig, rig

ONE = VmId(1)
START = ["clone_root", "ensure_home", "define", "fence", "launch"]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made


def calls(host: Rig) -> list[str]:
    return [call for call, _ in host.backend.calls]


async def called(host: Rig, call: str) -> None:
    async with asyncio.timeout(20):
        while call not in calls(host):
            await asyncio.sleep(0.01)


def test_every_order_ends_in_time_or_with_its_phase() -> None:
    for kind in ACTION_TYPES:
        if issubclass(kind, Background):
            assert kind.limit_s == float("inf"), kind
        else:
            assert 0 < kind.limit_s <= 300, kind


@pytest.mark.parametrize("call", START)
async def test_a_stop_ends_a_start_that_hangs_anywhere(host: Rig, call: str) -> None:
    host.backend.hold(call)
    async with host.hkd():
        await host.wish("start", ONE)
        await called(host, call)
        await host.wish("stop", ONE)
        vm = await host.until_state(ONE, VmState.STOPPED)
    assert vm.runtime.failure is None
    assert calls(host)[calls(host).index(call) + 1 :] == ["kill", "unfence", "erase", "erase_root"]
    assert (host.backend.roots, host.backend.fences) == ({}, {})


async def test_a_start_that_hangs_past_its_time_is_the_hosts_fault_and_tried_again(
    host: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LaunchGuest, "limit_s", 0.2)
    launching = host.backend.hold("launch")
    async with host.hkd():
        await host.wish("start", ONE)
        vm = await host.until(ONE, lambda vm: vm.runtime.waits_for is not None)
        assert vm.runtime.failure == "LaunchGuest did not end within 0.2 s"
        launching.set()
        await host.until_state(ONE, VmState.RUNNING)


async def test_a_removal_that_hangs_past_its_time_makes_a_zombie_until_it_does_not(
    host: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EraseGuest, "limit_s", 0.2)
    erasing = host.backend.hold("erase")
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
        await host.wish("stop", ONE)
        vm = await host.until(ONE, lambda vm: vm.runtime.waits_for is not None)
        assert (vm.runtime.vm_state, vm.runtime.failure_cause) == (VmState.ZOMBIE, FailureCause.HOST)
        assert [alarm.object for alarm in await host.alarms()] == ["host"]
        erasing.set()
        await host.until_state(ONE, VmState.STOPPED)
        assert await host.alarms() == []


class Blocking(FakeBackend):
    """A host whose disk blocks the thread that clones a root, as a file system in trouble does."""

    def __init__(self) -> None:
        super().__init__()
        self.works = threading.Event()
        self.free = threading.Event()

    async def clone_root(self, mark: Mark, *, keep: bool, limit_mib: int | None = None) -> Path:
        await in_thread(self._block)
        return await super().clone_root(mark, keep=keep, limit_mib=limit_mib)

    def _block(self) -> None:
        self.works.set()
        self.free.wait(30)
        self.calls.append(("thread ended", ONE))


@pytest.fixture
async def blocking(host: Rig) -> AsyncIterator[Blocking]:
    host.backend = made = Blocking()
    yield made
    made.free.set()


async def begins_to_block(backend: Blocking) -> None:
    async with asyncio.timeout(20):
        while not backend.works.is_set():
            await asyncio.sleep(0.01)


async def test_nothing_is_removed_under_a_thread_that_is_still_at_work(host: Rig, blocking: Blocking) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await begins_to_block(blocking)
        await host.wish("stop", ONE)
        await host.until_state(ONE, VmState.STOPPING)
        assert calls(host) == []
        blocking.free.set()
        await host.until_state(ONE, VmState.STOPPED)
    assert calls(host) == ["thread ended", "kill", "unfence", "erase", "erase_root"]


async def test_a_thread_that_outlives_its_time_is_told_and_waited_for(
    host: Rig, blocking: Blocking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(PrepareRoot, "limit_s", 0.1)
    monkeypatch.setattr("appliance.runtime.performer.OVERDUE_S", 0.1)
    async with host.hkd():
        await host.wish("start", ONE)
        await begins_to_block(blocking)
        async with asyncio.timeout(20):
            while "cannot be interrupted" not in caplog.text:
                await asyncio.sleep(0.01)
        assert calls(host) == []
        monkeypatch.setattr(PrepareRoot, "limit_s", 60.0)
        blocking.free.set()
        vm = await host.until_state(ONE, VmState.RUNNING)
    assert vm.runtime.current_di_id == DiId(1)
    assert calls(host)[:2] == ["thread ended", "kill"]
