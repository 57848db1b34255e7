"""Guests that say much, and viewers that read little: neither holds anybody up."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from appliance import control
from appliance.clock import SystemClock
from appliance.console_output import TIDY
from appliance.control_frames import FrameKind
from appliance.errors import AdminError
from appliance.runtime import console
from appliance.runtime.consoles import HISTORY_BYTES, Consoles
from tests.support.console_bench import VM, Bench, eventually, list_of
from tests.support.lines import PtyLine


async def test_the_guest_is_read_though_nobody_watches(bench: Bench, line: PtyLine) -> None:
    written = 0
    async with asyncio.timeout(10):
        while written < 300_000:
            try:
                written += os.write(line.guest, b"%09d\n" % written * 100)
            except BlockingIOError:
                await asyncio.sleep(0.001)
    await eventually(lambda: bench.captured() == written)
    async with bench.viewer() as seen:
        first = await seen.stream.receive()
        assert first is not None
        assert HISTORY_BYTES - 20 < len(first.payload) <= HISTORY_BYTES


async def test_a_viewer_that_does_not_read_loses_its_view_and_the_others_do_not(
    bench: Bench, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "BACKLOG_BYTES", 20_000)
    monkeypatch.setattr(console, "FLOOD_BYTES_PER_S", 100_000_000)
    monkeypatch.setattr(console, "PAUSE_S", 0)
    monkeypatch.setattr(console, "IDLE_FOR_EACH_BUSY", 0)
    async with bench.viewer() as slow, bench.viewer() as good:
        await slow.until(lambda: len(list_of(slow.state.get("others"))) == 1)

        async def flood() -> None:
            written = 0
            while written < 1_000_000:
                try:
                    written += os.write(line.guest, b"x" * 4000)
                except BlockingIOError:
                    await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flood())
            await good.until(lambda: len(good.output) >= 1_000_000 and good.state.get("others") == [])
        with pytest.raises(AdminError, match="did not keep up"):
            await slow.until(lambda: False)


async def test_a_flood_leaves_the_loop_to_others(bench: Bench, line: PtyLine) -> None:
    noise = b"\x1b7\x00" * 1300
    loop = asyncio.get_running_loop()
    longest = 0.0
    until = loop.time() + 0.5
    while loop.time() < until:
        with contextlib.suppress(BlockingIOError):
            os.write(line.guest, noise)
        before = loop.time()
        await asyncio.sleep(0.001)
        longest = max(longest, loop.time() - before)
    assert longest < 0.5
    assert bench.capture.stat().st_size < console.FLOOD_BYTES_PER_S


class Busy(SystemClock):
    """The clock of a machine on which everything takes a second."""

    def __init__(self) -> None:
        self._looks = 0

    def monotonic(self) -> float:
        self._looks += 1
        return float(self._looks)


async def test_a_guest_whose_words_are_costly_is_left_alone_for_longer(
    line: PtyLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LONGEST_PAUSE_S", 30)
    capture = tmp_path / "7.tty"
    async with asyncio.TaskGroup() as tasks:
        consoles = Consoles(lambda vm_id: line, lambda vm_id: capture, tasks, Busy())
        consoles.guest_runs(VM)
        line.print(b"one ")
        await eventually(lambda: capture.exists() and capture.stat().st_size > 0)
        line.print(b"two")
        await asyncio.sleep(0.1)
        consoles.guest_gone(VM)
    assert capture.read_bytes() == b"one " + TIDY


async def test_a_trickle_is_read_in_gulps(
    bench: Bench, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PAUSE_S", 0.05)
    gulps = output = 0
    async with bench.viewer() as seen:
        for _ in range(1000):
            line.print(b".")
            await asyncio.sleep(0)
        while output < 1000:
            frame = await seen.stream.receive()
            assert frame is not None
            if frame.kind is FrameKind.DATA:
                gulps, output = gulps + 1, output + len(frame.payload)
    assert gulps < 500
