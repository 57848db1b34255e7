"""An image comes and goes whole or not at all, at whichever step the one who adds or deletes it is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from appliance.ops.images import sweep_unfinished
from scripts.trial import ROOT
from tests.support.ordeal import Ordeal, ordeal

pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]

MOST_STEPS = 80
PATIENCE_S = 20.0


@pytest.fixture
async def on(tmp_path: Path) -> AsyncIterator[Ordeal]:
    """An installation with two images, whose daemon has been and gone."""
    async with ordeal(tmp_path / "ordeal", 2) as made:
        made.kill()
        yield made


async def test_an_import_killed_at_any_step_leaves_a_whole_image_or_none(on: Ordeal, tmp_path: Path) -> None:
    def add(step: int) -> int:
        return qa(on, step, tmp_path / "record", "di", "add", f"path={on.quick}", "osf=small")

    before = dis(on)
    killed = await killed_at_each(on, add, tmp_path / "record")
    assert {"commit", "os.rename", "open", "fcntl.flock", "subprocess.Popen"} <= killed
    assert len(dis(on) - before) >= 1


async def test_a_duplicate_killed_at_any_step_is_whole_or_not_there(on: Ordeal, tmp_path: Path) -> None:
    before = dis(on)

    def duplicate(step: int) -> int:
        return qa(on, step, tmp_path / "record", "di", "duplicate", f"di_id={min(before)}")

    killed = await killed_at_each(on, duplicate, tmp_path / "record")
    assert {"commit", "os.rename", "open", "fcntl.flock"} <= killed
    assert len(dis(on) - before) >= 1


async def test_a_removal_killed_at_any_step_is_finished_by_whoever_comes_next(
    on: Ordeal, tmp_path: Path
) -> None:
    kept = dis(on)

    def remove(step: int) -> int:
        if dis(on) == kept:
            on.trial.qa("di", "add", f"path={on.quick}", "osf=small")
        (newest,) = dis(on) - kept
        on.trial.qa("di", "del", "--force", "-f", f"id={newest}")
        return qa(on, step, tmp_path / "record", "di", "purge", "--force", "-f", f"id={newest}")

    killed = await killed_at_each(on, remove, tmp_path / "record")
    assert {"commit", "os.remove"} <= killed
    assert dis(on) == kept


async def killed_at_each(on: Ordeal, work: Callable[[int], int], record: Path) -> set[str]:
    """Kill `work` at its first step, its second, and so on until it gets through; the kinds of steps."""
    kinds: set[str] = set()
    for step in range(1, MOST_STEPS):
        status = work(step)
        last = record.read_text().splitlines()[-1]
        try:
            await clean(on)
        except AssertionError as exc:
            raise AssertionError(f"killed at {last}: {exc}") from exc
        if status == 0:
            await on.start_daemon()
            await on.calm()
            return kinds
        assert status == -9, f"step {last}: exit {status}"
        kinds.add(last.split()[1])
    raise AssertionError(f"not through after {MOST_STEPS} steps")


def qa(on: Ordeal, step: int, record: Path, *words: str) -> int:
    """`qa`, killed at a step; its exit status."""
    command = [sys.executable, "-m", "tests.support.faulty_qa", str(step), str(record)]
    done = subprocess.run(
        [*command, "--config", str(on.trial.config), *words],
        cwd=ROOT,
        env=on.trial.environment,
        capture_output=True,
        check=False,
        timeout=120,
    )
    return done.returncode


async def clean(on: Ordeal) -> None:
    """What the next import does first, until nothing is wrong."""
    until = time.monotonic() + PATIENCE_S
    while True:
        await sweep_unfinished(on.store, on.grounds.paths)
        if not (found := on.violations()):
            return
        assert time.monotonic() < until, "\n".join(found)
        await asyncio.sleep(0.05)


def dis(on: Ordeal) -> set[int]:
    """The numbers of the images that there are."""
    return {row["id"] for row in on.grounds.rows("SELECT id FROM dis")}
