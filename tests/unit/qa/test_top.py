"""`qa vm top` and `qa host top`: two looks at a daemon that the test plays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from sqlalchemy import update

from appliance.control import ControlServer, Stream
from appliance.control_frames import FrameKind
from appliance.model import VmState
from appliance.storage.paths import Paths
from appliance.storage.schema import vm_runtimes
from tests.support.qa import Installation

MIB = 1 << 20
HOST = {
    "cpu": 0.375,
    "cores": 2,
    "memory_bytes": 512 * MIB,
    "memory_total_bytes": 4096 * MIB,
    "pool_bytes": None,
    "pool_total_bytes": None,
    "load": 0.456,
}
FIRST = {
    "host": HOST | {"cpu": None},
    "vms": {"1": [None, 1], "2": [None, 1], "3": [None, 1]},
    "more": False,
}
PART = {"host": HOST, "vms": {"1": [0.25, 100 * MIB]}, "more": True}
LAST = {"host": HOST, "vms": {"3": [1.5004, 300 * MIB]}, "more": False}


@pytest.fixture
def busy(qa: Installation) -> Installation:
    """An installation with four VMs, of which the last is stopped."""
    qa.with_vm()
    for name in ("web-2", "web-3", "web-4"):
        qa.ok("vm", "add", f"name={name}", "user=alice", "osf=desktop")
    qa.ok("osf", "edit", "memory=2g", "-f", "name=desktop")

    async def run() -> None:
        async with qa.write() as tx:
            running = update(vm_runtimes).where(vm_runtimes.c.vm_id < 4)
            await tx.connection.execute(running.values(vm_state=VmState.RUNNING))

    asyncio.run(run())
    return qa


@contextmanager
def daemon(qa: Installation, *frames: Mapping[str, object]) -> Iterator[list[Mapping[str, object]]]:
    """The stream `samples` beside the test, and what was asked of it."""
    asked: list[Mapping[str, object]] = []
    ready, over = threading.Event(), asyncio.Event()

    async def tell(stream: Stream, request: Mapping[str, object]) -> None:
        asked.append(request)
        for frame in frames or (FIRST, PART, LAST):
            stream.offer(FrameKind.EVENT, frame)
        await stream.receive()

    async def serve() -> None:
        async with (
            asyncio.TaskGroup() as tasks,
            ControlServer(Paths(qa.settings).control, {"samples": tell}, tasks),
        ):
            ready.set()
            await over.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    Paths(qa.settings).control.parent.mkdir(exist_ok=True)
    thread.start()
    try:
        assert ready.wait(5)
        yield asked
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(5)
        loop.close()


def test_the_busiest_come_first(busy: Installation) -> None:
    with daemon(busy) as asked:
        said = busy.ok("vm", "top")
    assert said.out.splitlines() == [
        "Id Name  User  State   CPU % Memory MiB Limit MiB",
        "-------------------------------------------------",
        "3  web-3 alice running 150.0 300        2048",
        "1  web-1 alice running  25.0 100        2048",
        "2  web-2 alice running -     -          2048",
    ]
    assert asked == [{"want": "samples", "every_s": 1.0}]


def test_desktops_that_others_do_not_watch_are_looked_at_twice(busy: Installation) -> None:
    watched = {"host": HOST, "vms": {"1": [0.25, 100 * MIB], "3": [None, 1]}, "more": False}
    all_known = {"host": HOST, "vms": {"1": [0.5, 1], "3": [1.0, 1]}, "more": False}
    for frames, shares in (((watched, PART, LAST), {25.0, 150.0}), ((all_known, PART, LAST), {50.0, 100.0})):
        with daemon(busy, *frames):
            rows = busy.ok("vm", "top", "-o", "json").json
        assert {row["cpu_percent"] for row in rows} == shares | {None}


def test_a_desktop_of_which_nothing_can_be_told_is_not_waited_for(busy: Installation) -> None:
    unknown = {"host": HOST, "vms": {"3": [None, 1]}, "more": False}
    with daemon(busy, FIRST, unknown):
        assert len(busy.ok("vm", "top", "-o", "json").json) == 3


def test_programs_get_numbers_or_null(busy: Installation) -> None:
    with daemon(busy):
        rows = busy.ok("vm", "top", "-f", "name=web-1", "-o", "json").json
        none = busy.ok("vm", "top", "-f", "name=web-2", "-o", "json").json
    assert rows == [
        {
            "id": 1,
            "name": "web-1",
            "user": "alice",
            "vm_state": "running",
            "cpu_percent": 25.0,
            "memory_bytes": 100 * MIB,
            "memory_limit_bytes": 2048 * MIB,
        }
    ]
    assert (none[0]["cpu_percent"], none[0]["memory_bytes"]) == (None, None)


def test_a_filter_that_matches_nothing_says_so(busy: Installation) -> None:
    with daemon(busy):
        assert busy.ok("vm", "top", "-f", "name=web-4").err == "Nothing matches.\n"


def test_the_host_is_one_line(busy: Installation) -> None:
    with daemon(busy) as asked:
        rows = busy.ok("host", "top", "-o", "json").json
        table = busy.ok("host", "top").out
    assert asked == [{"want": "samples", "every_s": 1.0, "vms": []}] * 2, "of the host alone"
    name = busy.listed("host")[0]["name"]
    assert rows == [
        {
            "name": name,
            "cpu_percent": 37.5,
            "cores": 2,
            "load": 0.46,
            "memory_bytes": 512 * MIB,
            "memory_total_bytes": 4096 * MIB,
            "pool_bytes": None,
            "pool_total_bytes": None,
        }
    ]
    assert table.splitlines()[-1].split() == [name, "37.5", "2", "0.46", "512", "4096", "-", "-"]


@pytest.mark.parametrize("noun", ["vm", "host"])
def test_without_the_daemon_it_is_refused(busy: Installation, noun: str) -> None:
    said = busy(noun, "top")
    assert said.status == 3
    assert "the daemon is not running" in said.err
