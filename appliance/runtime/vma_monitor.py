"""Watches one VMA: until it first answers, or until it is silent for too long (protocol.md 3.5)."""

from __future__ import annotations

from appliance.clock import Timers
from appliance.config import VMA_DELAY_ERROR, VMA_DELAY_OK, VMA_GRACE_RUNNING, VMA_TIMEOUT, Settings
from appliance.errors import GuestError
from appliance.storage.runtimes import Placement
from appliance.vma_client import VmaClient

FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 1.0
PATIENCE = 1.15
"""Each pause is longer than the one before by this factor: an answer is seen late by a seventh at most."""
FAILURES_AT_LEAST = 3


async def until_answer(place: Placement, settings: Settings, timers: Timers) -> None:
    """Return once the VMA answers: asked often at first, as most guests boot in a blink."""
    vma = VmaClient(place.address, place.vma_port, timeout_s=settings[VMA_TIMEOUT])
    pause = FIRST_PAUSE_S
    while not await _answers(vma):
        await timers.sleep(pause)
        pause = min(pause * PATIENCE, LONGEST_PAUSE_S)


async def until_silence(place: Placement, settings: Settings, timers: Timers) -> float:
    """Return after how many seconds of silence the VMA counts as dead."""
    vma = VmaClient(place.address, place.vma_port, timeout_s=settings[VMA_TIMEOUT])
    heard, failures = timers.monotonic(), 0
    while True:
        if await _answers(vma):
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
    except GuestError:
        return False
    return True
