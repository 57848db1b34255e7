"""The end of the host: its guests are ordered off, and come back when the daemon starts again.

A stop of the service leaves guests running; a shutdown of the machine, or the command `stop` in the
host's row, does not. Nothing is remembered but rows: a VM that ran is stopped with a start to follow
(`restart`), and since no boot slot is free by then, its row ends as `starting`, the state from which any
next start of the daemon begins it. Killed at any moment, the daemon has lost nothing: the row says
`running`, `stopping` with `restart`, or `starting`, and each of them comes back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from appliance import proc
from appliance.clock import Clock
from appliance.errors import ApplianceError
from appliance.log import facts
from appliance.model import BackendKind, VmId
from appliance.runtime.events import StopWanted, TimeUp
from appliance.runtime.machine import Phase
from appliance.runtime.supervisor import Supervisor

logger = logging.getLogger(__name__)

CAUSE = "host-shutdown"
ON = frozenset({Phase.CLONING, Phase.LAUNCHING, Phase.AWAITING_VMA, Phase.MONITORING})
"""Whose guest runs, or is about to, and nobody has told it to stop."""
OFF = frozenset({Phase.STOPPED, Phase.QUEUED, Phase.WAITING})
"""Of whose guest nothing is left."""
HURRY_AT = 0.7
"""The part of the time limit after which a guest that was asked nicely is not waited for any more."""
CLEANING_S = 60.0
"""How much longer than the limit the removal of what was killed may take."""
LOOK_S = 0.1
TELL_S = 5.0
ANSWER_S = 5.0


async def is_under_way() -> bool:
    """Whether systemd is taking the host down; no, where it is not in charge."""
    try:
        said = await proc.run(["systemctl", "is-system-running"], timeout_s=ANSWER_S, check=False)
    except ApplianceError as exc:
        logger.debug("nobody knows whether the host goes down", extra=facts(error=exc))
        return False
    return said.stdout.strip() == b"stopping"


async def order_off(
    supervisor: Supervisor,
    kinds: Collection[BackendKind],
    clock: Clock,
    *,
    limit_s: float,
    tell: Callable[[int, float], None],
) -> list[VmId]:
    """Stop every guest that this host runs; returns the VMs of which something is left after all.

    `kinds` are those that end with the host. Whoever calls has closed the boot slots. `tell` is given now
    and then how many guests are left, and how many seconds that may take at most. Guests are asked
    through their VMA and their init; after most of `limit_s` their init is told, and after all of it
    they are killed.
    """
    begun = clock.monotonic()
    for machine in supervisor.machines():
        if machine.phase in ON and machine.backend in kinds:
            supervisor.post(StopWanted(vm_id=machine.vm_id, at=clock.now(), cause=CAUSE, restart=True))
    hurries = [limit_s * HURRY_AT, limit_s]
    told = float("-inf")
    while left := left_over(supervisor, kinds):
        passed = clock.monotonic() - begun
        if passed > limit_s + CLEANING_S:
            logger.error("guests are left", extra=facts(vms=",".join(map(str, left))))
            return left
        if hurries and passed >= hurries[0]:
            del hurries[0]
            hurry(supervisor, kinds, clock, passed)
        if passed - told >= TELL_S:
            told = passed
            logger.info("guests are ordered off", extra=facts(left=len(left), passed=f"{passed:.0f}s"))
            tell(len(left), limit_s + CLEANING_S - passed)
        await clock.sleep(LOOK_S)
    await supervisor.settle()
    logger.info("no guest runs", extra=facts(took=f"{clock.monotonic() - begun:.1f}s"))
    return []


def left_over(supervisor: Supervisor, kinds: Collection[BackendKind]) -> list[VmId]:
    """The VMs of whose guests something may be left."""
    machines = supervisor.machines()
    return [vm.vm_id for vm in machines if vm.phase not in OFF and vm.backend in kinds]


def hurry(supervisor: Supervisor, kinds: Collection[BackendKind], clock: Clock, passed_s: float) -> None:
    """Go on to the next means of stopping with every guest that has not ended yet."""
    for machine in supervisor.machines():
        if machine.phase is Phase.SHUTTING_DOWN and machine.backend in kinds:
            event = TimeUp(vm_id=machine.vm_id, at=clock.now(), cause=CAUSE, waited_s=passed_s)
            supervisor.post(event)
