"""`scripts/full kills`: the daemon killed 500 times at random, judged each time by the one invariant checker.

FULL_KILLS says how many rounds, KILLS_SEED plays a seed again, KILLS_SCHEDULE the schedule in a file. A
run that fails leaves its schedule and the daemon's log in the directory that it names.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.full.measurements import append
from tests.support.kills import DESKTOPS, Tally, read_schedule, schedule, torment, write_schedule
from tests.support.ordeal import ordeal

ROUNDS = 500


def main() -> int:
    """Run, tell, and write the figures down; 1 if anything was found."""
    seed = int(os.environ.get("KILLS_SEED") or random.randrange(1 << 32))
    rounds = schedule(seed, int(os.environ.get("FULL_KILLS") or ROUNDS))
    if file := os.environ.get("KILLS_SCHEDULE"):
        rounds = read_schedule(Path(file))
    directory = Path(tempfile.mkdtemp(prefix="qvd-kills-"))
    write_schedule(rounds, directory / "schedule.json")
    print(f"seed {seed}, {len(rounds)} rounds, schedule in {directory / 'schedule.json'}")

    async def run() -> Tally:
        async with ordeal(directory / "ordeal", DESKTOPS + 1) as on:
            return await torment(on, rounds)

    begun = time.monotonic()
    try:
        tally = asyncio.run(run())
    except AssertionError as exc:
        print(f"kills: {exc}\nkills: schedule and log are in {directory}", file=sys.stderr)
        return 1
    took_min = (time.monotonic() - begun) / 60
    append(
        "Random kills (`scripts/full kills`)",
        f"Seed {seed}: {tally}. Nothing doubled, lost, stuck or leaked; {took_min:.0f} minutes.",
    )
    shutil.rmtree(directory)
    print(f"kills: {tally}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
