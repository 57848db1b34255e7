"""Whether a guest lives: its silence is told from our own want of descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from appliance.clock import ManualClock
from appliance.config import VMA_GRACE_RUNNING, Settings
from appliance.errors import HostError
from appliance.runtime import vma_monitor
from appliance.storage.runtimes import Placement

NOBODY = Placement(di_id=None, address="127.0.0.1", vma_port=9, x_port=4100)
SETTINGS = Settings({})
LOOKS = 20


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """As in a daemon with too many clients: nothing more can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def let_pass(clock: ManualClock, watch: asyncio.Task[float]) -> None:
    """Much more than the longest silence that is borne, a look at a time."""
    for _ in range(LOOKS):
        await clock.advance(SETTINGS[VMA_GRACE_RUNNING])
        for _ in range(50):
            await asyncio.sleep(0.001)
        if watch.done():
            return


@pytest.mark.parametrize("lacking", [False, True])
async def test_a_daemon_that_cannot_ask_takes_nobody_for_dead(lacking: bool) -> None:
    clock = ManualClock(datetime(2030, 1, 31, tzinfo=UTC))
    watch = asyncio.ensure_future(vma_monitor.until_silence(NOBODY, SETTINGS, clock))
    if lacking:
        with no_descriptor_left():
            await let_pass(clock, watch)
    else:
        await let_pass(clock, watch)
    assert watch.done() is not lacking
    watch.cancel()
    await asyncio.wait([watch])


async def test_a_start_that_cannot_be_followed_is_not_the_images_fault() -> None:
    clock = ManualClock(datetime(2030, 1, 31, tzinfo=UTC))
    with no_descriptor_left(), pytest.raises(HostError, match="Too many open files"):
        await vma_monitor.until_answer(NOBODY, SETTINGS, clock)
