"""The daemon killed at boundaries of what it does to a virtual machine that boots; one checker.

`scripts/full kvm_kills` does it at every boundary there is, and to machines that run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.runtime.actions import AdoptGuest, EraseGuest, KillGuest, LaunchGuest
from tests.support.faults import Fault, failpoints
from tests.support.machine_ordeal import machine_ordeal
from tests.support.stages import BOOT_STAGES
from tests.support.suffering import assigned, suffer

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(400)]

OURS = (LaunchGuest, AdoptGuest, KillGuest, EraseGuest)
"""What libvirtd and QEMU have the largest part in."""


async def test_a_daemon_killed_at_a_boundary_leaves_nothing_doubled_lost_stuck_or_leaked(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with machine_ordeal(tmp_path_factory.mktemp("kills") / "o", answering=()) as on:
        for point, stage in await assigned(on, failpoints(OURS, Fault.KILL), BOOT_STAGES):
            await suffer(on, point, stage)
