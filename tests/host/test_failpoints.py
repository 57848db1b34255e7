"""A fault at every boundary of every action: the daemon killed, or the host unable; real LXC, one checker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.runtime.actions import ACTION_TYPES, Background
from tests.support.faults import SESSION_ACTIONS, Boundary, Fault, failpoints
from tests.support.ordeal import Ordeal, ordeal
from tests.support.stages import MUTE, SESSION_STAGES, VM_STAGES
from tests.support.suffering import assigned, prove_health, suffer

pytestmark = [pytest.mark.host, pytest.mark.timeout(600)]


@pytest.fixture
async def on(tmp_path: Path) -> AsyncIterator[Ordeal]:
    """An installation with a desktop that obeys and one that does not."""
    async with ordeal(tmp_path / "ordeal", MUTE) as made:
        yield made


@pytest.mark.parametrize("fault", [Fault.KILL, Fault.RAISE])
async def test_a_fault_at_every_boundary_of_a_vm(on: Ordeal, fault: Fault) -> None:
    for point, stage in await assigned(on, failpoints(ACTION_TYPES, fault), VM_STAGES):
        await suffer(on, point, stage)
    await prove_health(on)


async def test_whatever_hangs_is_given_up_and_done_again(on: Ordeal) -> None:
    on.kill()
    on.limit_s = 3.0
    await on.start_daemon()
    kinds = [kind for kind in ACTION_TYPES if not issubclass(kind, Background)]
    done_but_hanging = [p for p in failpoints(kinds, Fault.HANG) if p.boundary is Boundary.AFTER]
    for point, stage in await assigned(on, done_but_hanging, VM_STAGES):
        await suffer(on, point, stage)
    await prove_health(on)


@pytest.mark.parametrize("fault", [Fault.KILL, Fault.RAISE])
async def test_a_fault_at_every_boundary_of_a_session(on: Ordeal, fault: Fault) -> None:
    for point, stage in await assigned(on, failpoints(SESSION_ACTIONS, fault), SESSION_STAGES):
        await suffer(on, point, stage)
    await prove_health(on)
