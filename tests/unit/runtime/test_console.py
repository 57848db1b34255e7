"""The hub of a console: a real pseudo terminal at one end, real viewers on a Unix socket at the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from appliance import control
from appliance.clock import SystemClock
from appliance.control import ControlServer, Stream, open_stream
from appliance.control_frames import FrameKind
from appliance.errors import AdminError, ConflictError, UsageError
from appliance.model import VmId
from appliance.runtime import console
from appliance.runtime.console import RECORD_BYTES, Consoles
from appliance.runtime.console_capture import CAPTURE_BYTES
from tests.support.lines import PtyLine

VM = VmId(7)


@pytest.fixture
def line() -> Iterator[PtyLine]:
    with PtyLine() as line:
        yield line


class Bench:
    """A daemon's consoles behind a control socket."""

    def __init__(self, consoles: Consoles, path: Path, folder: Path) -> None:
        self.consoles = consoles
        self.path = path
        self.capture = folder / f"{VM}.tty"

    def captured(self) -> int:
        """How many bytes are kept in files."""
        return sum(file.stat().st_size for file in self.capture.parent.glob(f"{self.capture.name}*"))

    @contextlib.asynccontextmanager
    async def viewer(self, **request: object) -> AsyncIterator[Seen]:
        """Somebody who watches, and what is seen."""
        async with await open_stream(self.path, {"want": "console", "vm": VM, **request}) as stream:
            yield Seen(stream)


class Seen:
    """What one viewer has been sent so far."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.output = b""
        self.state: Mapping[str, object] = {}
        self.notices: list[object] = []

    async def until(self, reached: Callable[[], bool]) -> None:
        """Receive until `reached()`."""
        async with asyncio.timeout(30):
            while not reached():
                frame = await self.stream.receive()
                assert frame is not None, f"ended: {self.stream.farewell}"
                if frame.kind is FrameKind.DATA:
                    self.output += frame.payload
                elif "notice" in (event := frame.content()):
                    self.notices.append(event["notice"])
                else:
                    self.state = event

    async def until_it_ends(self, output: bytes) -> None:
        """Receive until the last thing seen is `output`."""
        await self.until(lambda: self.output.endswith(output))

    async def order(self, do: str, **values: object) -> None:
        await self.stream.send(FrameKind.ORDER, {"do": do, **values})

    async def type(self, keys: bytes) -> None:
        await self.stream.send(FrameKind.DATA, keys)


@pytest.fixture
async def bench(line: PtyLine, tmp_path: Path) -> AsyncIterator[Bench]:
    async with asyncio.TaskGroup() as tasks:
        consoles = Consoles(lambda vm_id: line, lambda vm_id: tmp_path / f"{vm_id}.tty", tasks, SystemClock())
        consoles.guest_runs(VM)
        path = tmp_path / "s"
        async with ControlServer(path, {"console": consoles.view}, tasks):
            yield Bench(consoles, path, tmp_path)
        consoles.guest_gone(VM)


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


async def arrived(line: PtyLine, end: bytes) -> bytes:
    """What the guest reads until something ends it."""
    typed = b""
    async with asyncio.timeout(30):
        while not typed.endswith(end):
            typed += line.typed()
            await asyncio.sleep(0.005)
    return typed


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


async def test_keys_reach_the_guest_and_its_answer_everybody(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer() as one, bench.viewer() as two:
        await one.type(b"ls\r")
        typed = b""
        while b"\r" not in typed:
            typed += line.typed()
            await asyncio.sleep(0.005)
        assert typed == b"ls\r"
        line.print(b"files\r\n")
        await one.until(lambda: one.output == b"files\r\n")
        await two.until(lambda: two.output == b"files\r\n")


async def test_there_is_one_writer_and_everybody_knows_who(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer(who="alice on pts/1") as alice:
        await alice.until(lambda: alice.state.get("you_write") is True)
        async with bench.viewer(who="bob on pts/2") as bob:
            me = f"(pid {os.getpid()})"
            await bob.until(lambda: bob.state.get("writer") == f"alice on pts/1 {me}")
            assert bob.state["you_write"] is False
            assert bob.state["others"] == [f"alice on pts/1 {me}"]
            await bob.type(b"nonsense")
            await bob.until(lambda: bool(bob.notices))
            assert bob.notices == [f"not sent: alice on pts/1 {me} writes here, you watch"]
            await bob.order("take")
            await alice.until(lambda: alice.state.get("writer") == f"bob on pts/2 {me}")
            await bob.type(b"b")
            await eventually(lambda: line.typed() == b"b")
            await bob.order("release")
            await alice.until(lambda: alice.state.get("writer") is None)
            await alice.type(b"a")
            await eventually(lambda: line.typed() == b"a")
            await bob.until(lambda: bob.state.get("writer") == f"alice on pts/1 {me}")
        await alice.until(lambda: alice.state.get("others") == [])


async def test_a_viewer_may_take_the_role_as_it_comes_or_never_have_it(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer(write="never") as watcher:
        await watcher.until(lambda: "writer" in watcher.state)
        assert watcher.state["writer"] is None
        await watcher.type(b"x")
        await watcher.until(lambda: bool(watcher.notices))
        async with bench.viewer() as first, bench.viewer(write="take") as second:
            await second.until(lambda: second.state.get("you_write") is True)
            await first.until(lambda: len(list_of(first.state.get("others"))) == 2)
            assert first.state["you_write"] is False
        await watcher.order("take")
        with pytest.raises(UsageError, match="only watches"):
            await watcher.until(lambda: False)
    assert line.typed() == b""


def list_of(value: object) -> list[object]:
    return value if isinstance(value, list) else []


async def test_the_guests_terminal_has_the_size_of_the_writers(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer(rows=40, columns=120) as one, bench.viewer(rows=25, columns=81) as two:
        await eventually(lambda: line.size == (40, 120))
        await two.order("resize", rows=26, columns=82)
        await one.order("resize", rows=41, columns=121)
        await eventually(lambda: line.size == (41, 121))
        await two.order("take")
        await eventually(lambda: line.size == (26, 82))


@pytest.mark.parametrize(
    "order",
    [
        {"do": "explode"},
        {"do": "resize", "rows": -1, "columns": 80},
        {"do": "resize", "rows": 10**9, "columns": 80},
        {"do": "resize", "rows": True, "columns": "80"},
        {},
    ],
)
async def test_a_malformed_order_ends_that_view_alone(bench: Bench, order: dict[str, object]) -> None:
    async with bench.viewer() as other, bench.viewer() as rude:
        await rude.stream.send(FrameKind.ORDER, order)
        with pytest.raises(UsageError):
            await rude.until(lambda: False)
        await other.until(lambda: other.state.get("others") == [])


@pytest.mark.parametrize("wrong", [{"vm": "7"}, {"vm": None}, {"write": "always"}, {"history_bytes": -1}])
async def test_a_malformed_request_is_refused(bench: Bench, wrong: dict[str, object]) -> None:
    async with bench.viewer(**wrong) as seen:
        with pytest.raises(UsageError):
            await seen.until(lambda: False)


async def test_a_vm_that_does_not_run_has_no_console(bench: Bench) -> None:
    async with bench.viewer(vm=8) as seen:
        with pytest.raises(ConflictError, match="VM 8 does not run here"):
            await seen.until(lambda: False)


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
        assert console.HISTORY_BYTES - 20 < len(first.payload) <= console.HISTORY_BYTES


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


async def test_who_comes_to_write_later_takes_a_free_role_and_no_other(bench: Bench) -> None:
    async with bench.viewer(write="later") as late:
        await late.until(lambda: "writer" in late.state)
        assert late.state["writer"] is None
        async with bench.viewer() as first:
            await first.until(lambda: first.state.get("you_write") is True)
            await late.order("claim")
            await late.order("resize", rows=1, columns=1)
        await late.until(lambda: late.state["others"] == [])
        assert late.state["writer"] is None
        await late.order("claim")
        await late.until(lambda: late.state["you_write"] is True)


async def test_everybody_knows_the_size_of_the_guests_terminal(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer(write="never", rows=10, columns=20) as seen:
        await seen.until(lambda: "size" in seen.state)
        assert seen.state["size"] is None
        async with bench.viewer(rows=40, columns=120) as writer:
            await seen.until(lambda: seen.state["size"] == [40, 120])
            await writer.order("resize", rows=41, columns=121)
            await seen.until(lambda: seen.state["size"] == [41, 121])
            assert line.size == (41, 121)


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
    assert capture.read_bytes() == b"one "


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


class Failing(PtyLine):
    """A line of which the first opening fails in a way that nobody has thought of."""

    async def open(self) -> int:
        if not self.opened:
            self.opened += 1
            await asyncio.sleep(0.05)
            raise RuntimeError("a defect")
        return await super().open()


async def test_a_hub_that_fails_says_so_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "FAILED_PAUSE_S", 0.2)
    async with asyncio.TaskGroup() as tasks:
        with Failing() as line:
            consoles = Consoles(lambda vm_id: line, lambda vm_id: tmp_path / "7.tty", tasks, SystemClock())
            async with ControlServer(tmp_path / "s", {"console": consoles.view}, tasks):
                bench = Bench(consoles, tmp_path / "s", tmp_path)
                consoles.guest_runs(VM)
                async with bench.viewer() as seen:
                    with pytest.raises(AdminError, match="the console failed"):
                        await seen.until(lambda: False)
                async with bench.viewer() as seen:
                    await seen.until(lambda: seen.state.get("waiting_for", "") is None)
                    line.print(b"here")
                    await seen.until_it_ends(b"here")
            consoles.guest_gone(VM)


async def test_a_crowd_of_viewers_fits_into_an_event(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MOST_NAMED", 2)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(bench.viewer())
        last = await stack.enter_async_context(bench.viewer())
        await last.until(lambda: "others" in last.state)
        assert len(list_of(last.state["others"])) == 2


async def test_a_busy_line_is_tried_again_and_the_viewer_told(
    bench: Bench, line: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await eventually(lambda: line.busy)
    bench.consoles.guest_gone(VM)
    await eventually(lambda: not line.busy)
    line.busy = True
    bench.consoles.guest_runs(VM)
    async with bench.viewer() as seen:
        await seen.until(lambda: seen.state.get("waiting_for") == "somebody else holds the line")
        line.busy = False
        await seen.until(lambda: seen.state.get("waiting_for") is None)
        line.print(b"here")
        await seen.until_it_ends(b"here")


async def test_a_guest_that_reboots_keeps_its_viewers(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer(rows=30, columns=90) as seen:
        line.print(b"going down\r\n")
        await seen.until_it_ends(b"down\r\n")
        line.hang_up()
        await eventually(lambda: line.opened == 2)
        line.print(b"up again\r\n")
        await seen.until_it_ends(b"up again\r\n")
        assert line.size == (30, 90)


async def test_a_guest_that_is_gone_ends_its_views_with_a_word(bench: Bench, line: PtyLine) -> None:
    async with bench.viewer() as seen:
        await seen.until(lambda: "writer" in seen.state)
        bench.consoles.guest_gone(VM)
        bench.consoles.guest_gone(VM)
        while await seen.stream.receive():
            pass
        assert seen.stream.farewell == "the VM has stopped"
    await eventually(lambda: not line.busy)


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
    assert seen.output == b"first\r\nsecond\r\n"
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
