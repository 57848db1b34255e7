"""What passes between the daemon and systemd: readiness, beats, and whether the host goes down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.model import InstallationId
from appliance.runtime import host_shutdown
from appliance.runtime.actions import Order
from appliance.runtime.events import Event
from appliance.runtime.service_manager import ServiceManager, show_life
from appliance.runtime.supervisor import Supervisor
from appliance.storage.store import Store
from tests.support.store import fresh_store

pytestmark = pytest.mark.host


class Manager:
    """systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.listener.bind(address)
        self.listener.settimeout(10)

    def hears(self) -> list[str]:
        """The next message, line by line."""
        return self.listener.recv(4096).decode().splitlines()

    async def next(self) -> list[str]:
        return await asyncio.to_thread(self.hears)

    def forget(self) -> None:
        """Throw away what waits to be heard."""
        while not self.heard_nothing():
            pass

    def heard_nothing(self) -> bool:
        """Whether no message waits."""
        self.listener.setblocking(False)
        try:
            return self.listener.recv(4096) == b""
        except BlockingIOError:
            return True
        finally:
            self.listener.settimeout(10)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    with contextlib.closing(made.listener):
        yield made


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), "OTHER": "kept", **more}


def test_nobody_is_told_where_nobody_listens() -> None:
    quiet = ServiceManager.from_environment({})

    assert quiet == ServiceManager(address=None, watchdog_s=None)
    quiet.ready("serves")
    quiet.alive()


def test_the_manager_is_told(manager: Manager, tmp_path: Path) -> None:
    variables = environment(tmp_path)
    told = ServiceManager.from_environment(variables)

    told.ready("serves as node1")
    assert manager.hears() == ["READY=1", "STATUS=serves as node1"]
    told.patience(12.5, "waits")
    assert manager.hears() == ["EXTEND_TIMEOUT_USEC=12500000", "STATUS=waits"]
    told.stopping("stops")
    assert manager.hears() == ["STOPPING=1", "STATUS=stops"]


def test_children_cannot_speak_for_the_service(tmp_path: Path) -> None:
    variables = environment(tmp_path, WATCHDOG_USEC="60000000", WATCHDOG_PID=str(os.getpid()))

    ServiceManager.from_environment(variables)

    assert variables == {"OTHER": "kept"}


def test_a_socket_may_have_no_file(tmp_path: Path) -> None:
    name = f"qvd-test-{os.getpid()}"
    listener = Manager(f"\0{name}")
    with contextlib.closing(listener.listener):
        ServiceManager.from_environment({"NOTIFY_SOCKET": f"@{name}"}).alive()
        assert listener.hears() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_watches_if_it_says_so(
    variables: dict[str, str], watchdog_s: float | None, tmp_path: Path
) -> None:
    assert ServiceManager.from_environment(environment(tmp_path, **variables)).watchdog_s == watchdog_s


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    ServiceManager.from_environment(environment(tmp_path)).ready("serves")


class Paces:
    """Timers that count the pauses and make none."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return float(len(self.pauses))

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with fresh_store(tmp_path) as opened:
        async with opened.write() as tx:
            await tx.settings.found_installation(InstallationId("0a1b2c3d"), tx.at)
        yield opened


class Heart:
    """Beats for a manager that wants one within ten seconds."""

    def __init__(self, tmp_path: Path, store: Store, tasks: asyncio.TaskGroup) -> None:
        self.timers = Paces()
        self.supervisor = Supervisor(never, tasks, SystemClock(), boot_slots=lambda: 1)
        told = ServiceManager.from_environment(environment(tmp_path, WATCHDOG_USEC="10000000"))
        self.task = tasks.create_task(show_life(told, self.supervisor, store, self.timers))

    async def tries(self, times: int) -> None:
        """Let it try to beat some more times."""
        wanted = len(self.timers.pauses) + times
        async with asyncio.timeout(10):
            while len(self.timers.pauses) < wanted:
                await asyncio.sleep(0.001)


async def never(order: Order) -> Event:
    raise AssertionError(order)


class TestBeats:
    """A beat passes through event loop, supervisor and database; nothing else lets one out."""

    async def test_come_twice_as_often_as_wanted(
        self, manager: Manager, store: Store, tmp_path: Path
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            heart = Heart(tmp_path, store, tasks)
            assert await manager.next() == ["WATCHDOG=1"]
            assert await manager.next() == ["WATCHDOG=1"]
            heart.task.cancel()
        assert set(heart.timers.pauses) == {5.0}

    async def test_stay_out_while_the_event_loop_hangs(
        self, manager: Manager, store: Store, tmp_path: Path
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            heart = Heart(tmp_path, store, tasks)
            await manager.next()
            manager.forget()
            time.sleep(0.2)
            assert manager.heard_nothing()
            await manager.next()
            heart.task.cancel()

    async def test_stay_out_without_the_database(
        self, manager: Manager, store: Store, tmp_path: Path
    ) -> None:
        async with store.write() as tx:
            await tx.connection.exec_driver_sql("DELETE FROM installation")
        async with asyncio.TaskGroup() as tasks:
            heart = Heart(tmp_path, store, tasks)
            await heart.tries(3)
            assert manager.heard_nothing()
            heart.task.cancel()

    async def test_stay_out_while_events_are_not_taken(
        self, manager: Manager, store: Store, tmp_path: Path
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            heart = Heart(tmp_path, store, tasks)
            heart.supervisor._stepping = True
            await heart.tries(3)
            assert manager.heard_nothing()
            heart.supervisor._stepping = False
            assert await manager.next() == ["WATCHDOG=1"]
            heart.task.cancel()

    async def test_are_none_where_nobody_watches(self, manager: Manager, store: Store) -> None:
        async with asyncio.TaskGroup() as tasks:
            supervisor = Supervisor(never, tasks, SystemClock(), boot_slots=lambda: 1)
            await show_life(ServiceManager(), supervisor, store, Paces())


class TestHost:
    @pytest.mark.parametrize(
        ("said", "under_way"),
        [("stopping", True), ("running", False), ("degraded", False), ("offline", False)],
    )
    async def test_goes_down_if_systemd_says_so(
        self, said: str, under_way: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outside = tmp_path / "systemctl"
        outside.write_text(f'#!/bin/sh\n[ "$*" = is-system-running ] && echo {said}\nexit 1\n')
        outside.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

        assert await host_shutdown.is_under_way() is under_way

    async def test_stays_up_where_there_is_no_systemd(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

        assert not await host_shutdown.is_under_way()
