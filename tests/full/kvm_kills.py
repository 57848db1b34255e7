"""`scripts/full kvm_kills`: the daemon killed at every boundary of everything it does to a virtual machine.

First to a machine that boots, then to one that runs, each time at the boundaries that its life passes; the
one checker of invariants judges after each. A run that fails leaves the daemon's log in the directory that
it names.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from appliance.runtime.actions import ACTION_TYPES
from tests.full.measurements import append
from tests.support.faults import Fault, failpoints
from tests.support.machine_ordeal import machine_ordeal
from tests.support.ordeal import Ordeal
from tests.support.stages import BOOT_STAGES, VM_STAGES
from tests.support.suffering import assigned, passed, prove_health, suffer


def main() -> int:
    """Run, tell, and write the figures down; 1 if anything was found."""
    directory = Path(tempfile.mkdtemp(prefix="qvd-kvm-kills-"))

    async def run() -> Counter[str]:
        async with machine_ordeal(directory / "o") as on:
            return await kills(on)

    begun = time.monotonic()
    try:
        tally = asyncio.run(run())
    except AssertionError as exc:
        print(f"kvm_kills: {exc}\nkvm_kills: the log is in {directory}", file=sys.stderr)
        return 1
    took_min = (time.monotonic() - begun) / 60
    figures = (
        f"{tally.total()} kills of the daemon: both sides of all {len(ACTION_TYPES)} actions; by stage: "
        f"{', '.join(f'{stage} {count}' for stage, count in sorted(tally.items()))}."
        f" Nothing doubled, lost, stuck or leaked; {took_min:.0f} minutes."
    )
    append("Kills at every boundary of virtual machines (`scripts/full kvm_kills`)", figures)
    shutil.rmtree(directory)
    print(f"kvm_kills: {figures}")
    return 0


async def kills(on: Ordeal) -> Counter[str]:
    """Have the daemon killed everywhere; how often in which stage.

    :raises AssertionError: something is doubled, lost, stuck or leaked, or a boundary was not reached
    """
    points = failpoints(ACTION_TYPES, Fault.KILL)
    booting = await passed(on, points, BOOT_STAGES)
    chosen = [
        *((point, booting[key]) for point in points if (key := (point.action, point.boundary)) in booting),
        *await assigned(on, points, VM_STAGES),
    ]
    tally: Counter[str] = Counter()
    for number, (point, stage) in enumerate(chosen, 1):
        print(f"{number}/{len(chosen)}:", end=" ", flush=True)
        await suffer(on, point, stage)
        tally[stage.name] += 1
    await prove_health(on)
    return tally


if __name__ == "__main__":
    sys.exit(main())
