"""A fault at every boundary of every action: the daemon killed, or the host unable; real LXC, one checker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from appliance.runtime.actions import ACTION_TYPES, Background
from tests.support.faults import SESSION_ACTIONS, Boundary, Failpoint, Fault, failpoints
from tests.support.ordeal import Ordeal, ordeal
from tests.support.stages import DESK, MUTE, SESSION_STAGES, VM_STAGES, Stage

pytestmark = [pytest.mark.host, pytest.mark.timeout(600)]

TRIES = 5
"""A failpoint inside a race (a guest ends while it is being asked to) may need more than one."""


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


async def assigned(
    on: Ordeal, points: Sequence[Failpoint], stages: Sequence[Stage]
) -> list[tuple[Failpoint, Stage]]:
    """For each failpoint the first stage that passes it, as all of them go through without a fault."""
    wanted = {(point.action, point.boundary) for point in points}
    reached: dict[tuple[str, Boundary], Stage] = {}
    for stage in (*stages, *stages):  # twice, as in a race now one side wins and now the other
        if wanted <= reached.keys():
            break
        await stage.prepare(on)
        on.plan.arm()
        await stage.trigger(on)
        await play_out(on, stage)
        for passed in on.plan.disarm():
            reached.setdefault(passed, stage)
    missed = wanted - reached.keys()
    assert not missed, f"no stage reaches {missed}: tests/support/stages.py needs another"
    return [(point, reached[point.action, point.boundary]) for point in points]


async def suffer(on: Ordeal, point: Failpoint, stage: Stage) -> None:
    """Go through a stage with a fault in it; afterwards nothing may be doubled, lost, stuck or leaked."""
    for _ in range(TRIES):
        print(f"{point} in {stage.name}")
        await stage.prepare(on)
        on.plan.arm(point)
        await stage.trigger(on)
        if point.fault is Fault.KILL and await on.died():
            on.plan.disarm()
            on.spawn()
        try:
            await play_out(on, stage)
        except AssertionError as exc:
            raise AssertionError(f"after {point} in {stage.name}: {exc}") from exc
        on.plan.disarm()
        if on.plan.struck():
            return
    raise AssertionError(f"{stage.name} was gone through {TRIES} times without reaching {point}")


async def play_out(on: Ordeal, stage: Stage) -> None:
    """Wait for the end of a stage and have everything checked; a guest that is mute is stopped first."""
    await on.until_serving()
    await on.until_state(stage.vm_id, *stage.ends)
    if stage.vm_id == MUTE:
        await on.bring(MUTE, "stopped")
    await on.calm()


async def prove_health(on: Ordeal) -> None:
    """After all that, the desktop can be started, used and stopped."""
    await on.bring(DESK, "running")
    await on.prove_desktop(DESK)
    await on.bring(DESK, "stopped")
    await on.calm()
