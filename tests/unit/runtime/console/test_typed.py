"""What is typed arrives whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from appliance.runtime import console
from tests.support.console_bench import VM, Bench, arrived, eventually, list_of
from tests.support.lines import PtyLine


async def test_input_waits_for_a_guest_that_reads_slowly_and_arrives_whole(
    bench: Bench, line: PtyLine
) -> None:
    sent = b"".join(b"%05d\n" % number for number in range(10_000))
    async with bench.viewer() as seen:

        async def send() -> None:
            for start in range(0, len(sent), 5000):
                await seen.type(sent[start : start + 5000])

        got = b""
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            while len(got) < len(sent):
                got += line.typed()
                await asyncio.sleep(0.001)
        assert got == sent


async def test_input_that_the_guest_never_reads_is_thrown_away_and_the_writer_told(
    bench: Bench, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "INPUT_PATIENCE_S", 0.1)
    async with bench.viewer() as seen:
        for _ in range(10):
            await seen.type(bytes(20_000))
        await seen.until(lambda: bool(seen.notices))
        assert "does not read its console" in str(seen.notices[0])
        while line.typed():
            await asyncio.sleep(0.01)


async def test_input_has_its_time_anew_whenever_the_guest_has_read_some(
    bench: Bench, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "INPUT_PATIENCE_S", 1.0)
    sent = b"".join(b"%05d\n" % number for number in range(6000))
    got = b""
    async with bench.viewer() as seen:
        await seen.type(sent)
        async with asyncio.timeout(30):
            while len(got) < len(sent):
                with contextlib.suppress(BlockingIOError):
                    got += os.read(line.guest, 1000)
                await asyncio.sleep(0.06)
        await seen.order("release")
        await seen.until(lambda: seen.state.get("you_write") is False)
        assert seen.notices == []
    assert got == sent


async def closed(bench: Bench, line: PtyLine) -> None:
    """Let somebody else hold the line."""
    await eventually(lambda: line.busy)
    bench.consoles.guest_gone(VM)
    await eventually(lambda: not line.busy)
    line.busy = True
    bench.consoles.guest_runs(VM)


async def test_a_command_typed_while_the_line_is_closed_is_refused_as_a_whole(
    bench: Bench, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "INPUT_PATIENCE_S", 0.2)
    monkeypatch.setattr(console, "RETRY_LONGEST_S", 0.05)
    monkeypatch.setattr(console, "REFUSED_S", 1000)
    await closed(bench, line)
    command = b"rm -rf /tmp/x /keep\n"
    async with bench.viewer() as seen:
        for key in command[:-6]:
            await seen.type(bytes([key]))
        await seen.until(lambda: bool(seen.notices))
        line.busy = False
        await seen.until(lambda: seen.state.get("waiting_for") is None)
        for key in command[-6:]:
            await seen.type(bytes([key]))
        await seen.until(lambda: len(seen.notices) == 7)
        assert set(seen.notices) == {"not sent: somebody else holds the line"}
        await seen.order("claim")
        await seen.type(b"ls\n")
        typed = await arrived(line, b"\n")
        assert typed == b"ls\n"


async def test_a_command_typed_just_before_the_line_opens_arrives_whole(bench: Bench, line: PtyLine) -> None:
    await closed(bench, line)
    async with bench.viewer() as seen:
        for key in b"reboot\n":
            await seen.type(bytes([key]))
        await seen.until(lambda: seen.state.get("waiting_for") == "somebody else holds the line")
        line.busy = False
        await seen.until(lambda: seen.state.get("waiting_for") is None)
        await eventually(lambda: line.typed() == b"reboot\n")


async def test_who_has_typed_while_the_line_is_closed_can_leave_at_once(
    bench: Bench, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "INPUT_PATIENCE_S", 1000)
    await closed(bench, line)
    async with bench.viewer(write="later") as other:
        async with bench.viewer() as seen:
            for _ in range(16):
                await seen.type(b"x")
            await other.until(lambda: other.state.get("writer") is not None)
        await other.until(lambda: other.state.get("writer") is None)


async def test_a_guest_that_is_gone_keeps_nobody_who_has_typed(
    bench: Bench, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "INPUT_PATIENCE_S", 1000)
    await closed(bench, line)
    async with bench.viewer() as seen:
        for _ in range(8):
            await seen.type(bytes(20_000))
        await seen.until(lambda: seen.state.get("you_write") is True)
        hub, _ = bench.consoles._hubs[VM]
        bench.consoles.guest_gone(VM)
        await eventually(lambda: hub._viewers == [])


async def test_nothing_waits_to_write_to_a_guest_that_is_gone(bench: Bench, line: PtyLine) -> None:
    await eventually(lambda: line.busy)
    hub, _ = bench.consoles._hubs[VM]
    async with bench.viewer() as seen:
        while not hub._typed.pending:
            await seen.type(bytes(1000))
            await asyncio.sleep(0.02)
        assert hub._open is not None
        descriptor = hub._open.descriptor
        bench.consoles.guest_gone(VM)
        await eventually(lambda: not line.busy)
    assert not asyncio.get_running_loop().remove_writer(descriptor), "the number is somebody else's soon"


async def test_what_was_typed_before_another_took_the_role_is_not_sent(bench: Bench, line: PtyLine) -> None:
    await closed(bench, line)
    async with bench.viewer() as alice, bench.viewer(write="later", who="bob") as bob:
        await alice.type(b"reboot\n")
        await alice.until(lambda: len(list_of(alice.state.get("others"))) == 1)
        await bob.order("take")
        await alice.until(lambda: bool(alice.notices))
        assert str(alice.notices[0]).startswith("not sent: bob")
        line.busy = False
        await bob.until(lambda: bob.state.get("waiting_for", "") is None)
        await bob.type(b"b")
        typed = await arrived(line, b"b")
        assert typed == b"b"


async def test_what_a_script_has_typed_before_it_left_is_not_lost_to_who_comes_next(
    bench: Bench, line: PtyLine
) -> None:
    async with bench.viewer() as first:
        sent = 0
        while not bench.consoles._hubs[VM][0]._typed.pending:
            await first.type(bytes(1000))
            sent += 1000
            await asyncio.sleep(0.02)
    async with bench.viewer() as next_one:
        await next_one.until(lambda: next_one.state.get("you_write") is True)
        await next_one.type(b"b")
        typed = await arrived(line, b"b")
    assert typed == bytes(sent) + b"b"
