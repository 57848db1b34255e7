"""What a guest says: captured, made harmless, shown to who watches and to who comes later."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.console_output import TIDY
from appliance.control import ControlServer
from appliance.control_frames import FrameKind
from appliance.runtime import console
from appliance.runtime.console_capture import CAPTURE_BYTES
from appliance.runtime.consoles import RECORD_BYTES, Consoles
from tests.support.console_bench import VM, Bench, eventually
from tests.support.lines import PtyLine


async def test_a_viewer_sees_what_was_said_before_and_then_live(bench: Bench, line: PtyLine) -> None:
    line.print(b"booted\r\nlogin: ")
    await eventually(bench.capture.exists)
    async with bench.viewer() as seen:
        first = await seen.stream.receive()
        assert first is not None
        assert (first.kind, first.payload) == (FrameKind.DATA, b"booted\r\nlogin: ")
        line.print(b"live")
        await seen.until(lambda: seen.output == b"live")


async def test_history_is_as_long_as_wanted(bench: Bench, line: PtyLine) -> None:
    line.print(b"one\r\ntwo\r\n")
    await eventually(bench.capture.exists)
    for wanted, history in ((0, b""), (6, b"two\r\n"), (10_000_000, b"one\r\ntwo\r\n")):
        async with bench.viewer(history_bytes=wanted) as seen:
            first = await seen.stream.receive()
            assert first is not None
            assert first.payload == history


async def test_nothing_a_guest_says_can_act_on_a_viewers_terminal_or_on_a_reader_of_the_capture(
    bench: Bench, line: PtyLine
) -> None:
    async with bench.viewer() as seen:
        line.print(b"a\x1b]52;c;")
        await asyncio.sleep(0.02)
        line.print(b"cHduZWQ=\x07b\x1b[")
        await asyncio.sleep(0.02)
        line.print(b"6nc\x1bP$qm\x1b\\d")
        await seen.until_it_ends(b"d")
        assert seen.output == b"abcd"
    assert bench.capture.read_bytes() == b"abcd"


async def test_a_mebibyte_of_history_and_what_is_said_meanwhile_come_whole_and_once(
    bench: Bench, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "FLOOD_BYTES_PER_S", 20_000_000)
    monkeypatch.setattr(console, "PAUSE_S", 0)
    monkeypatch.setattr(console, "IDLE_FOR_EACH_BUSY", 0)
    said = 0

    async def say(until: int) -> None:
        nonlocal said
        while said < until:
            with contextlib.suppress(BlockingIOError):
                os.write(line.guest, b"%08d\n" % said)
                said += 1
            await asyncio.sleep(0)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        await say(130_000)
        talk = tasks.create_task(say(140_000))
        async with bench.viewer(history_bytes=1_048_576) as seen:
            await seen.until(lambda: seen.output.endswith(b"%08d\n" % 139_999))
        await talk
    assert len(seen.output) > 1_040_000
    numbers = [int(number) for number in seen.output.split()]
    assert numbers == list(range(numbers[0], 140_000))


async def test_a_viewer_that_reads_no_history_holds_nobody_up_and_ends_with_the_guest(
    bench: Bench, line: PtyLine
) -> None:
    bench.capture.with_name(f"{bench.capture.name}.1").write_bytes(b"long ago\n" * 100_000)
    bench.consoles.guest_gone(VM)
    bench.consoles.guest_runs(VM)
    async with bench.viewer(history_bytes=1_000_000) as lazy, bench.viewer(history_bytes=0) as other:
        await other.until(lambda: "writer" in other.state)
        line.print(b"news")
        await other.until_it_ends(b"news")
        assert other.state["others"] == []
        bench.consoles.guest_gone(VM)
        async with asyncio.timeout(30):
            while await lazy.stream.receive():
                pass
        assert lazy.stream.farewell == "the VM has stopped"


async def test_a_capture_that_somebody_has_written_comes_out_harmless(bench: Bench, line: PtyLine) -> None:
    bench.consoles.guest_gone(VM)
    bench.capture.write_bytes(
        b"a\x1b]52;c;cHduZWQ=\x07b\x1b[6n\x1b]0;title\x07" + b"\xff" * 70_000 + b"c\x1b["
    )
    bench.consoles.guest_runs(VM)
    async with bench.viewer(history_bytes=1_048_576) as seen:
        await seen.until(lambda: "writer" in seen.state)
        assert seen.output == b"ab" + "\ufffd".encode() * 70_000 + b"c"


async def test_a_capture_that_cannot_be_written_leaves_a_history(bench: Bench, line: PtyLine) -> None:
    bench.capture.mkdir()
    line.print(b"one\r\n")
    async with bench.viewer() as seen:
        await seen.until_it_ends(b"one\r\n")
    async with bench.viewer() as seen:
        await seen.until(lambda: "writer" in seen.state)
        assert seen.output == b"one\r\n"


async def test_a_new_daemon_shows_what_the_former_one_captured(tmp_path: Path, line: PtyLine) -> None:
    for said in (b"first\r\n", b"second\r\n"):
        async with asyncio.TaskGroup() as tasks:
            consoles = Consoles(lambda vm_id: line, lambda vm_id: tmp_path / "7.tty", tasks, SystemClock())
            consoles.guest_runs(VM)
            consoles.guest_runs(VM)
            async with (
                ControlServer(tmp_path / "s", {"console": consoles.view}, tasks),
                Bench(consoles, tmp_path / "s", tmp_path).viewer() as seen,
            ):
                await seen.until(lambda: seen.state.get("waiting_for", "") is None)
                line.print(said)
                await seen.until_it_ends(said)
            consoles.guest_gone(VM)
    assert seen.output == b"first\r\n" + TIDY + b"second\r\n"
    assert line.opened == 2


async def test_a_record_keeps_what_the_ring_forgets_where_it_is_wanted(line: PtyLine, tmp_path: Path) -> None:
    """`vm.serial.capture`: a record for each VM, from the first byte on."""
    record = tmp_path / "records" / f"{VM}.log"
    async with asyncio.TaskGroup() as tasks:
        consoles = Consoles(
            lambda vm_id: line,
            lambda vm_id: tmp_path / f"{vm_id}.tty",
            tasks,
            SystemClock(),
            lambda vm_id: tmp_path / "records" / f"{vm_id}.log",
        )
        consoles.guest_runs(VM)
        line.print(b"the first words\r\n")
        await eventually(lambda: record.exists() and record.read_bytes() == b"the first words\r\n")
        consoles.guest_gone(VM)
    assert record.stat().st_mode & 0o777 == 0o600
    assert RECORD_BYTES > 50 * CAPTURE_BYTES
