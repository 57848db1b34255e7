"""People start, stop, restart, import and connect while the daemon is killed at any moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.kills import DESKTOPS, read_schedule, schedule, torment, write_schedule
from tests.support.ordeal import ordeal

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]

ROUNDS = 50
SEED = "KILLS_SEED"
"""In the environment: another seed to play. `scripts/full kills` throws a new one each time."""
USUAL_SEED = 3


async def test_nothing_is_doubled_lost_stuck_or_leaked_by_random_kills(tmp_path: Path) -> None:
    seed = int(os.environ.get(SEED) or USUAL_SEED)
    rounds = schedule(seed, ROUNDS)
    print(f"{SEED}={seed}")
    write_schedule(rounds, tmp_path / "schedule.json")
    assert read_schedule(tmp_path / "schedule.json") == rounds
    async with ordeal(tmp_path / "ordeal", DESKTOPS + 1) as on:
        tally = await torment(on, rounds)
    print(tally)
    assert tally.rounds == ROUNDS
    assert tally.kills >= ROUNDS
    assert min(tally.wishes, tally.sessions, tally.imports, tally.imports_killed) > 0
