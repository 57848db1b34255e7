"""Watches one VMA: until it first answers, or until it is silent for too long (protocol.md 3.5).

A host that cannot ask hears nothing either, of any guest at once; that is no guest's silence.
"""

from __future__ import annotations

import errno
import logging

from appliance.clock import Timers
from appliance.config import VMA_DELAY_ERROR, VMA_DELAY_OK, VMA_GRACE_RUNNING, VMA_TIMEOUT, Settings
from appliance.errors import GuestError, HostError
from appliance.log import facts
from appliance.storage.runtimes import Placement
from appliance.vma_client import VmaClient

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.03
LONGEST_PAUSE_S = 1.0
PATIENCE = 1.15
"""Each pause is longer than the one before by this factor: an answer is seen late by a seventh at most."""
FAILURES_AT_LEAST = 3
OUR_WANTS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Why a connection cannot even be tried."""


async def until_answer(place: Placement, settings: Settings, timers: Timers) -> None:
    """Return once the VMA answers: asked often at first, as most guests boot in a blink.

    :raises HostError: it cannot be asked
    """
    vma = VmaClient(place.address, place.vma_port, timeout_s=settings[VMA_TIMEOUT])
    pause = FIRST_PAUSE_S
    while not await _answers(vma):
        await timers.sleep(pause)
        pause = min(pause * PATIENCE, LONGEST_PAUSE_S)


async def until_silence(place: Placement, settings: Settings, timers: Timers) -> float:
    """Return after how many seconds of silence the VMA, heard a moment ago, counts as dead."""
    vma = VmaClient(place.address, place.vma_port, timeout_s=settings[VMA_TIMEOUT])
    heard, failures = timers.monotonic(), 0
    await timers.sleep(settings[VMA_DELAY_OK])
    while True:
        try:
            answers = await _answers(vma)
        except HostError as exc:
            logger.error("whether a guest lives cannot be told", extra=facts(vma=vma, error=exc))
            heard, failures = timers.monotonic(), 0
            await timers.sleep(settings[VMA_DELAY_ERROR])
            continue
        if answers:
            heard, failures = timers.monotonic(), 0
            await timers.sleep(settings[VMA_DELAY_OK])
            continue
        failures += 1
        silent = timers.monotonic() - heard
        if failures >= FAILURES_AT_LEAST and silent > settings[VMA_GRACE_RUNNING]:
            return silent
        await timers.sleep(settings[VMA_DELAY_ERROR])


async def _answers(vma: VmaClient) -> bool:
    try:
        await vma.ping()
    except GuestError as exc:
        if isinstance(exc.__cause__, OSError) and exc.__cause__.errno in OUR_WANTS:
            raise HostError(exc.message, hint="raise LimitNOFILE of the service") from exc
        return False
    return True
