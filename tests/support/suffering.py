"""Goes through stages of a VM's life with a fault at some boundary of an action, and has all of it judged."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.faults import Boundary, Failpoint, Fault
from tests.support.ordeal import Ordeal
from tests.support.stages import DESK, MUTE, Stage

TRIES = 5
"""A failpoint inside a race (a guest ends while it is being asked to) may need more than one."""


async def assigned(
    on: Ordeal, points: Sequence[Failpoint], stages: Sequence[Stage]
) -> list[tuple[Failpoint, Stage]]:
    """For each failpoint the first stage that passes it, as all of them go through without a fault.

    :raises AssertionError: there are failpoints that no stage passes
    """
    reached = await passed(on, points, stages)
    missed = {(point.action, point.boundary) for point in points} - reached.keys()
    assert not missed, f"no stage reaches {missed}: tests/support/stages.py needs another"
    return [(point, reached[point.action, point.boundary]) for point in points]


async def passed(
    on: Ordeal, points: Sequence[Failpoint], stages: Sequence[Stage]
) -> dict[tuple[str, Boundary], Stage]:
    """Of these failpoints those that are passed, each with the first stage that does."""
    wanted = {(point.action, point.boundary) for point in points}
    reached: dict[tuple[str, Boundary], Stage] = {}
    for stage in (*stages, *stages):  # twice, as in a race now one side wins and now the other
        if wanted <= reached.keys():
            break
        await stage.prepare(on)
        on.plan.arm()
        await stage.trigger(on)
        await play_out(on, stage)
        for boundary in on.plan.disarm():
            reached.setdefault(boundary, stage)
    return reached


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
    try:
        await on.calm()
    except AssertionError:
        if stage.vm_id != MUTE or on.row(MUTE)["vm_state"] == "stopped":
            raise
        await on.bring(MUTE, "stopped")  # a session whose client had lost patience wished it up once more
        await on.calm()


async def prove_health(on: Ordeal) -> None:
    """After all that, the desktop can be started, used and stopped."""
    await on.bring(DESK, "running")
    await on.prove_desktop(DESK)
    await on.bring(DESK, "stopped")
    await on.calm()
