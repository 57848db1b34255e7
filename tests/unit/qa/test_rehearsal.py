"""`--dry-run`: what would be changed is listed, and nothing is."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.model import AlarmKind, HookEvent, KeptKind, VmId
from appliance.ops import notices
from appliance.qa.main import NOUNS
from appliance.storage.paths import Paths
from tests.support.qa import Installation

CALLS = {
    "vm edit": "di_tag=pilot",
    "vm start": "",
    "vm block": "",
    "vm del": "purge_home=yes",
    "vm propset": "room=12",
    "user disable": "",
    "host block": "",
    "osf edit": "memory=512",
    "kept del": "",
    "alarm clear": "",
    "hook retry": "",
}
"""One of each kind that finds something to do in the world below."""


@pytest.fixture
def world(qa: Installation) -> Installation:
    """Alice's VM web-1, an alarm, something kept and a notice that was given up."""
    qa.with_vm()

    async def write() -> None:
        async with qa.write() as tx:
            await tx.alarms.raise_(AlarmKind.HOST, "pool", "1 VM waits")
            await notices.put(tx, HookEvent.TAG_MOVED, {"tag": "default"})
            (notice,) = await tx.notices.find()
            await notices.failed(tx, notice, "no route", next_try=None)
            await tx.kept.add(
                KeptKind.HOME,
                qa.directory / "home",
                vm_id=VmId(9),
                vm="old",
                owner="bob",
                reason="test",
                until=tx.at + timedelta(days=1),
            )

    asyncio.run(write())
    return qa


def rows(qa: Installation) -> str:
    """A digest of all that the database holds."""
    connection = sqlite3.connect(qa.storage / "qvd.db")
    try:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()
    finally:
        connection.close()


def verbs(*, rehearsable: bool) -> Iterator[str]:
    """Every verb with a filter that can be rehearsed, or cannot."""
    for noun in NOUNS:
        for verb in importlib.import_module(f"appliance.qa.{noun}").VERBS:
            if verb.filters and verb.rehearsable is rehearsable:
                yield f"{noun} {verb.name}"


def test_the_calls_are_verbs_that_can_be_rehearsed() -> None:
    assert CALLS.keys() <= set(verbs(rehearsable=True))


def test_what_would_be_changed_is_listed_and_nothing_is_changed(world: Installation) -> None:
    with bell(Paths(world.settings).doorbell) as rung:
        before = rows(world)
        for call, arguments in CALLS.items():
            said = world.ok(*call.split(), *arguments.split(), "--dry-run")
            assert said.out.startswith("What"), call
            assert said.err == "Nothing was changed (--dry-run).\n", call
            assert rows(world) == before, call
        assert not rung()
        world.ok("vm", "start", "--yes")
        assert rung()
    assert rows(world) != before


@contextmanager
def bell(path: Path) -> Iterator[Callable[[], bool]]:
    """Be the daemon's ear; the value tells whether it was rung."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.setblocking(False)
        ear.bind(str(path))

        def rung() -> bool:
            try:
                ear.recv(64)
            except BlockingIOError:
                return False
            return True

        yield rung


def test_who_is_concerned_is_named(world: Installation) -> None:
    (effect,) = world.ok("vm", "edit", "di_tag=pilot", "-f", "user=alice", "--dry-run", "-o", "json").json
    assert effect == {
        "what": "vm edit di_tag",
        "object": "vm 1",
        "name": "web-1",
        "user": "alice",
        "was": "default",
        "now": "pilot",
    }
    (deleted,) = world.ok("vm", "del", "-f", "id=1", "--explain", "-o", "json").json
    assert (deleted["what"], deleted["name"], deleted["user"]) == ("vm del", "web-1", "alice")


def test_whom_nothing_would_happen_to_is_not_listed(world: Installation) -> None:
    said = world.ok("vm", "stop", "-f", "id=1", "-n", "-o", "json")
    assert said.json == []
    nobody = world.ok("vm", "stop", "-f", "id=7", "-n")
    assert nobody.out == ""
    assert nobody.err.splitlines() == ["Nothing was changed (--dry-run).", "Nothing matches."]


def test_what_would_be_refused_is_refused(world: Installation) -> None:
    said = world("user", "del", "--dry-run")
    assert (said.status, said.out) == (1, "")
    assert said.err == world("user", "del", "--yes").err


def test_other_verbs_refuse(bare: Installation) -> None:
    for call in verbs(rehearsable=False):
        noun, name = call.split()
        said = bare(noun, name, "-f", "id=1", "--dry-run")
        assert said.status == 2, call
        assert said.err.startswith(f"Error: qa {call} takes no --dry-run (qa {noun} list -f"), call
        assert said.err.count("\n") == 1, call
