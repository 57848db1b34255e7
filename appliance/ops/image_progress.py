"""Lets everybody see how far the making of an image is: in the row of its operation, now and then."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from appliance.clock import Timers
from appliance.config import Settings
from appliance.errors import StoreError
from appliance.filters import Filter
from appliance.model import ArrivingDi, OsfId
from appliance.storage.image_states import COPIED
from appliance.storage.paths import Paths
from appliance.storage.store import Store, Tx

Report = Callable[[str, float], None]
"""Told what is being done, and how far it is, from 0 to 1."""

COPYING = "copying"
WRITE_S = 1.0
LEAST = 0.01
"""What is less of a step is not worth a transaction."""


def plan_for(osf_id: OsfId) -> str:
    """What the row of an operation says of the image that it makes."""
    return json.dumps({"osf_id": osf_id})


def overall(step: str, share: float) -> float:
    """How far an import is, if a step of it is so far: the copy is the first part."""
    return COPIED * share if step == COPYING else COPIED + (1 - COPIED) * share


async def under_way(tx: Tx, settings: Settings, filter_: Filter) -> list[ArrivingDi]:
    """The images that pass and are being made now; what a killed process began and left is none."""
    paths = Paths(settings)
    return [one for one in await tx.images.arriving(filter_) if _is_held(paths.image_lock(one.id))]


def _is_held(lock: Path) -> bool:
    """Whether somebody holds a lock; it is not made, and nobody is kept from it for longer than a moment."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@asynccontextmanager
async def recorded(store: Store, operation: int, report: Report, timers: Timers) -> AsyncIterator[Report]:
    """A report that the row of the operation follows, for as long as the work goes on inside."""
    reached = 0.0

    def reporting(step: str, share: float) -> None:
        nonlocal reached
        reached = max(reached, min(1.0, overall(step, share)))
        report(step, share)

    async def write() -> None:
        written = 0.0
        while True:
            await timers.sleep(WRITE_S)
            if (now := reached) - written < LEAST:
                continue
            with suppress(StoreError):
                async with store.write() as tx:
                    await tx.operations.progress(operation, now)
                written = now

    writer = asyncio.ensure_future(write())
    try:
        yield reporting
    finally:
        writer.cancel()
        await asyncio.wait([writer])
