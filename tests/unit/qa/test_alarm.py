"""`qa alarm` and `qa operation`: what is open is shown, and ended by whoever has seen it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from appliance.model import AlarmKind, DiId
from appliance.storage.operations import Kind
from appliance.storage.paths import Paths
from tests.support.qa import Installation


@pytest.fixture
def alarmed(qa: Installation) -> Installation:
    """An installation with two open alarms, one of them noticed twice."""

    async def raise_() -> None:
        async with qa.write() as tx:
            await tx.alarms.raise_(AlarmKind.IMAGE, "di 1", "it does not boot")
            await tx.alarms.raise_(AlarmKind.HOST, "pool", "1 VM waits")
            await tx.alarms.raise_(AlarmKind.HOST, "pool", "2 VMs wait")

    asyncio.run(raise_())
    return qa


def begin(qa: Installation, kind: Kind) -> int:
    """Work on DI 7 of a process that is gone, with what it had copied; returns its number."""

    async def write() -> int:
        async with qa.write() as tx:
            return await tx.operations.begin(kind, 7, owner="test", pid=os.getpid())

    part(qa).write_bytes(b"half an image")
    return asyncio.run(write())


def part(qa: Installation) -> Path:
    return Paths(qa.settings).image_part(DiId(7))


def test_what_is_noticed_again_is_one_alarm(alarmed: Installation) -> None:
    image, host = alarmed.listed("alarm")
    assert (image["kind"], image["object"], image["count"]) == ("image", "di 1", 1)
    assert (host["text"], host["count"]) == ("2 VMs wait", 2)
    assert "2 VMs wait" in alarmed.ok("alarm", "list").out


def test_a_cleared_alarm_is_shown_only_when_asked_for(alarmed: Installation) -> None:
    assert "Cleared 1 alarms." in alarmed.ok("alarm", "clear", "-f", "kind=host").out
    assert [alarm["object"] for alarm in alarmed.listed("alarm")] == ["di 1"]
    everything = alarmed.ok("alarm", "list", "all=yes", "-o", "json").json
    assert [alarm["cleared"] is None for alarm in everything] == [True, False]
    assert "Nothing matches." in alarmed.ok("alarm", "clear", "-f", "kind=host").err


def test_what_happens_after_it_was_cleared_is_another_alarm(alarmed: Installation) -> None:
    alarmed.ok("alarm", "clear", "--yes")

    async def again() -> bool:
        async with alarmed.write() as tx:
            return await tx.alarms.raise_(AlarmKind.HOST, "pool", "3 VMs wait")

    assert asyncio.run(again())
    assert [alarm["count"] for alarm in alarmed.listed("alarm")] == [1]


def test_cancelling_what_a_killed_import_left_removes_it(qa: Installation) -> None:
    number = begin(qa, Kind.DI_ADD)
    assert [operation["kind"] for operation in qa.listed("operation")] == ["di add"]
    assert "Cancelled 1 operations." in qa.ok("operation", "cancel", "-f", f"id={number}").out
    assert qa.listed("operation") == []
    assert not part(qa).exists()
    (ended,) = qa.ok("operation", "list", "all=yes", "-o", "json").json
    assert (ended["cancel"], ended["result"]) == (True, "killed")


def test_work_under_way_is_only_asked_to_give_up(qa: Installation) -> None:
    number = begin(qa, Kind.DI_ADD)

    async def wanted() -> bool:
        async with qa.store() as store, store.read() as tx:
            return await tx.operations.wanted_cancelled(number)

    assert not asyncio.run(wanted())
    with Paths(qa.settings).image_lock(DiId(7)).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        qa.ok("operation", "cancel", "--yes")
        assert asyncio.run(wanted())
        assert part(qa).exists()
        assert len(qa.listed("operation")) == 1


def test_what_must_be_finished_cannot_be_cancelled(qa: Installation) -> None:
    number = begin(qa, Kind.VM_GIVE)
    said = qa("operation", "cancel", "--yes")
    assert said.status == 1
    assert f"{number} (vm give)" in said.err
    assert said.err.count("\n") == 1
    assert not qa.listed("operation")[0]["cancel"]
