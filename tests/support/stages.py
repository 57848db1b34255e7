"""Scenes in the life of a VM which, together, carry out every action there is.

Each stage brings the installation to a point (`prepare`) and then sets something off (`trigger`); what it
may lead to, once all is calm, is `ends`. Which actions a stage carries out is not written down but
observed, so that a stage is found for an action that did not exist when these were written, or the lack
of one is told.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.support import onlooker, qemu_onlooker
from tests.support.ordeal import Ordeal

DESK, MUTE = 1, 2
"""The VM of quick guests and the one whose guest neither answers nor obeys."""
PATIENCE_S = 4.0
"""How long a client waits for a desktop that never comes."""

Part = Callable[[Ordeal], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Stage:
    """One scene."""

    name: str
    prepare: Part
    trigger: Part
    vm_id: int
    ends: tuple[str, ...]
    """The states in which the VM may be afterwards, with a fault or without."""


async def _stopped(on: Ordeal) -> None:
    await on.bring(DESK, "stopped")


async def _running(on: Ordeal) -> None:
    await on.bring(DESK, "running")


async def _mute_stopped(on: Ordeal) -> None:
    await on.bring(MUTE, "stopped")


async def _mute_boots(on: Ordeal) -> None:
    await on.bring(MUTE, "stopped")
    await on.wish("start", MUTE)
    await on.until_phase(MUTE, "starting/awaiting-vma")


async def _mute_stops(on: Ordeal) -> None:
    await _mute_boots(on)
    await on.wish("stop", MUTE)
    await on.until_state(MUTE, "stopping", "stopped")


async def _nobody_looks(on: Ordeal) -> None:
    await _running(on)
    on.kill()


async def _nobody_looks_at_mute(on: Ordeal) -> None:
    await _mute_boots(on)
    on.kill()


async def _start(on: Ordeal) -> None:
    await on.wish("start", DESK)


async def _stop(on: Ordeal) -> None:
    await on.wish("stop", DESK)


async def _start_mute(on: Ordeal) -> None:
    await on.wish("start", MUTE)
    await on.eventually(
        "the guest that boots",
        lambda: on.plan.struck() or on.row(MUTE)["vm_phase"] == "starting/awaiting-vma",
    )


async def _stop_mute(on: Ordeal) -> None:
    await on.wish("stop", MUTE)


async def _take_up(on: Ordeal) -> None:
    on.spawn()


async def _end_desk(on: Ordeal) -> None:
    end_guest(on, DESK)


async def _ask(on: Ordeal) -> None:
    before = on.row(DESK)["expire_asked"]
    await on.age(DESK)

    def answered() -> bool:
        row = on.row(DESK)
        return bool(before < row["expire_asked"] == row["expire_answered"])

    await on.eventually("the answer", lambda: on.plan.struck() or answered())


async def _end_mute(on: Ordeal) -> None:
    end_guest(on, MUTE)


async def _end_mute_and_see(on: Ordeal) -> None:
    end_guest(on, MUTE)
    await on.eventually(
        "the end of the guest",
        lambda: on.plan.struck() or on.row(MUTE)["vm_state"] in ("stopping", "stopped"),
    )


async def _connect(on: Ordeal) -> None:
    await visit(on, DESK)


async def _connect_mute(on: Ordeal) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            await visit(on, MUTE)


def end_guest(on: Ordeal, vm_id: int) -> None:
    """Kill the init of a running guest, or its QEMU."""
    installation = on.grounds.installation
    machines = [qemu.pid for qemu in qemu_onlooker.qemus(installation).get(vm_id, ())]
    (init,) = machines or onlooker.guests(installation)[vm_id].inits
    os.kill(init, signal.SIGKILL)


async def visit(on: Ordeal, vm_id: int) -> None:
    """Ask for a desktop and, if it comes, use and leave it; a daemon that dies meanwhile ends the visit."""
    with suppress(OSError, asyncio.IncompleteReadError):
        async with on.connected(vm_id) as (client, reply):
            if reply.status == 101:
                await client.send(b"echo\n")
                await client.reader.readexactly(5)


VM_STAGES = (
    Stage("start", _stopped, _start, DESK, ("running",)),
    Stage("stop", _running, _stop, DESK, ("stopped",)),
    Stage("take up", _nobody_looks, _take_up, DESK, ("running",)),
    Stage("end", _running, _end_desk, DESK, ("stopped",)),
    Stage("ask", _running, _ask, DESK, ("running",)),
    Stage("stop while booting", _mute_boots, _stop_mute, MUTE, ("stopped",)),
    Stage("end while booting", _mute_boots, _end_mute, MUTE, ("stopped",)),
)
BOOT_STAGES = (
    Stage("stop while booting", _mute_boots, _stop_mute, MUTE, ("stopped",)),
    Stage("end while booting", _mute_boots, _end_mute_and_see, MUTE, ("starting", "stopping", "stopped")),
    Stage("boot", _mute_stopped, _start_mute, MUTE, ("starting",)),
    Stage("take up while booting", _nobody_looks_at_mute, _take_up, MUTE, ("starting",)),
)
"""Those in which no guest gets further than its boot: quick ones, where guests boot slowly.

A daemon that dies before it has noted that a guest ended while it booted finds a wish that was not served:
it starts another. The last two end with a guest that boots on; that it is stopped then is no part of them.
"""
SESSION_STAGES = (
    Stage("connect", _running, _connect, DESK, ("running",)),
    Stage("connect and start", _stopped, _connect, DESK, ("running", "stopped")),
    Stage("connect while stopping", _mute_stops, _connect_mute, MUTE, ("starting", "stopped")),
)
