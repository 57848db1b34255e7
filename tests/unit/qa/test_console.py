"""`qa vm console` with real terminals: the person's is one pseudo terminal, the guest's line another."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.console_output import TIDY
from appliance.control import ControlServer
from appliance.control_frames import FrameKind, encode
from appliance.errors import AdminError, ConflictError, DaemonDownError
from appliance.model import VmId
from appliance.qa.console import run_console
from appliance.runtime.consoles import Consoles
from tests.support.console_bench import eventually
from tests.support.lines import PtyLine

VM = VmId(7)


class Terminal:
    """A person's terminal: `inside` is what a program has, `outside` what the person sees and types."""

    def __init__(self, inside: int, outside: int) -> None:
        self.inside = inside
        self._outside = outside
        self.screen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._outside, keys)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.inside, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def shows(self, output: bytes) -> bool:
        with contextlib.suppress(BlockingIOError):
            self.screen += os.read(self._outside, 65_536)
        return output in self.screen

    @property
    def settings(self) -> list[object]:
        return list(termios.tcgetattr(self.inside))


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    outside, inside = os.openpty()
    os.set_blocking(outside, False)
    terminal = Terminal(inside, outside)
    terminal.resize(33, 99)
    yield terminal
    os.close(inside)
    os.close(outside)


@pytest.fixture
def line() -> Iterator[PtyLine]:
    with PtyLine() as line:
        yield line


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
async def consoles(path: Path, line: PtyLine, tmp_path: Path) -> AsyncIterator[Consoles]:
    async with asyncio.TaskGroup() as tasks:
        consoles = Consoles(lambda vm_id: line, lambda vm_id: tmp_path / f"{vm_id}.tty", tasks, SystemClock())
        consoles.guest_runs(VM)
        async with ControlServer(path, {"console": consoles.view}, tasks):
            await eventually(lambda: line.busy)
            yield consoles
        consoles.guest_gone(VM)


@contextlib.asynccontextmanager
async def attached(path: Path, terminal: Terminal) -> AsyncIterator[asyncio.Task[int]]:
    """`qa vm console` on `terminal`, connected."""
    inside = terminal.inside
    attachment = asyncio.create_task(
        run_console(path, VM, name="web-1", stdin=inside, stdout=inside, stderr=inside)
    )
    await eventually(lambda: terminal.shows(b"connected to web-1; Ctrl-] detaches\r\n") or attachment.done())
    try:
        yield attachment
    finally:
        attachment.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await attachment


async def test_keys_go_in_and_output_comes_out_until_the_chord(
    consoles: Consoles, path: Path, terminal: Terminal, line: PtyLine
) -> None:
    before = terminal.settings
    async with attached(path, terminal) as attachment:
        assert terminal.settings != before
        line.print(b"login: ")
        await eventually(lambda: terminal.shows(b"login: "))
        terminal.type(b"root\r\x03\x04")
        await eventually(lambda: line.typed() == b"root\r\x03\x04")
        terminal.type(b"\x1dnot sent")
        assert await attachment == 0
    assert terminal.settings == before
    await eventually(lambda: terminal.shows(TIDY))
    await eventually(lambda: terminal.shows(b"detached"))
    assert line.typed() == b""


async def test_the_size_of_the_window_is_passed_on(
    consoles: Consoles, path: Path, terminal: Terminal, line: PtyLine
) -> None:
    async with attached(path, terminal):
        await eventually(lambda: line.size == (33, 99))
        terminal.resize(44, 111)
        os.kill(os.getpid(), signal.SIGWINCH)
        await eventually(lambda: line.size == (44, 111))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_gives_the_terminal_back(
    consoles: Consoles, path: Path, terminal: Terminal, number: signal.Signals
) -> None:
    before = terminal.settings
    async with attached(path, terminal) as attachment:
        os.kill(os.getpid(), number)
        assert await attachment == 128 + number
    assert terminal.settings == before


async def test_a_crash_gives_the_terminal_back(consoles: Consoles, path: Path, terminal: Terminal) -> None:
    before = terminal.settings
    async with attached(path, terminal) as attachment:
        attachment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attachment
    assert terminal.settings == before


async def test_a_guest_that_stops_ends_it_in_good_order(
    consoles: Consoles, path: Path, terminal: Terminal
) -> None:
    before = terminal.settings
    async with attached(path, terminal) as attachment:
        consoles.guest_gone(VM)
        assert await attachment == 0
    await eventually(lambda: terminal.shows(b"disconnected: the VM has stopped"))
    assert terminal.settings == before


async def test_a_daemon_that_vanishes_is_told_from_a_guest_that_stops(path: Path, terminal: Terminal) -> None:
    before = terminal.settings

    async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(encode(FrameKind.DATA, b"screen"))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(vanish, path), attached(path, terminal) as attachment:
        with pytest.raises(DaemonDownError, match="the connection to the daemon is lost"):
            await attachment
    await eventually(lambda: terminal.shows(b"screen"))
    assert terminal.settings == before


async def test_a_daemon_that_stops_is_an_error_of_the_same_kind(
    path: Path, terminal: Terminal, line: PtyLine, tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as tasks:
        consoles = Consoles(lambda vm_id: line, lambda vm_id: tmp_path / "7.tty", tasks, SystemClock())
        consoles.guest_runs(VM)
        server = ControlServer(path, {"console": consoles.view}, tasks)
        async with server, attached(path, terminal) as attachment:
            await server.__aexit__()
            with pytest.raises(DaemonDownError, match="the daemon stops"):
                await attachment
        consoles.guest_gone(VM)


async def test_a_vm_that_does_not_run_is_one_clear_error(
    consoles: Consoles, path: Path, terminal: Terminal
) -> None:
    before = terminal.settings
    with pytest.raises(ConflictError, match="VM 8 does not run here"):
        await run_console(path, VmId(8), stdin=terminal.inside)
    assert terminal.settings == before


async def test_without_a_daemon_it_says_so(path: Path, terminal: Terminal) -> None:
    with pytest.raises(DaemonDownError, match="the daemon is not running"):
        await run_console(path, VM, stdin=terminal.inside)


async def test_people_are_told_of_one_another(
    consoles: Consoles, path: Path, terminal: Terminal, line: PtyLine, tmp_path: Path
) -> None:
    with Pipes() as pipes:
        async with attached(path, terminal) as attachment:
            await eventually(lambda: line.size == (33, 99))
            pipes.send(b"nothing\n")
            status = await pipes.run(path)
            await eventually(lambda: terminal.shows(b"nobody else is here any more"))
            await eventually(lambda: terminal.shows(b"also here: "))
            assert not attachment.done()
        assert status == 1
        said = pipes.said()
        assert "writes here, you watch" in said
        assert "not sent: " in said
        assert line.typed() == b""


class Pipes:
    """Standard input, output and errors of a script."""

    def __init__(self) -> None:
        self._in, self._input = os.pipe()
        self._output, self._out = os.pipe()
        self._errors, self._err = os.pipe()
        os.set_blocking(self._output, False)
        os.set_blocking(self._errors, False)

    def send(self, data: bytes) -> None:
        os.write(self._input, data)

    async def run(self, path: Path, write: str = "free") -> int:
        """`qa vm console` in the script, at the end of whose input we are."""
        os.close(self._input)
        self._input = -1
        return await run_console(
            path,
            VM,
            name="web-1",
            stdin=self._in,
            stdout=self._out,
            stderr=self._err,
            quiet_s=0.2,
            write=write,
        )

    def output(self) -> bytes:
        return _everything(self._output)

    def said(self) -> str:
        return _everything(self._errors).decode()

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *exc: object) -> None:
        for descriptor in (self._in, self._input, self._output, self._out, self._errors, self._err):
            if descriptor >= 0:
                os.close(descriptor)


def _everything(descriptor: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(descriptor, 65_536)
    return b""


async def answer(line: PtyLine) -> None:
    """A guest that answers each line in its own time."""
    typed = b""
    while True:
        typed += line.typed()
        while b"\n" in typed:
            command, _, typed = typed.partition(b"\n")
            await asyncio.sleep(0.1)
            line.print(b"did " + command + b"\r\n")
        await asyncio.sleep(0.01)


async def test_a_script_sends_its_input_and_reads_until_the_console_is_quiet(
    consoles: Consoles, path: Path, line: PtyLine
) -> None:
    with Pipes() as pipes:
        guest = asyncio.create_task(answer(line))
        pipes.send(b"one\ntwo\n\x1dthree\n")
        assert await pipes.run(path) == 0
        guest.cancel()
        assert pipes.output() == b"did one\r\ndid two\r\ndid three\r\n"
        assert pipes.said() == "connected to web-1\ndetached\n"


async def test_a_file_as_input_works_too(
    consoles: Consoles, path: Path, line: PtyLine, tmp_path: Path
) -> None:
    (tmp_path / "script").write_bytes(b"hello\n")
    with Pipes() as pipes, (tmp_path / "script").open("rb") as script:
        guest = asyncio.create_task(answer(line))
        status = await run_console(
            path, VM, stdin=script.fileno(), stdout=pipes._out, stderr=pipes._err, quiet_s=0.2
        )
        guest.cancel()
        assert status == 0
        assert pipes.output() == b"did hello\r\n"


async def test_a_reader_that_goes_away_ends_it(consoles: Consoles, path: Path, line: PtyLine) -> None:
    held_in, held_input = os.pipe()
    output, out = os.pipe()
    errors = os.open(os.devnull, os.O_WRONLY)
    attachment = asyncio.create_task(run_console(path, VM, stdin=held_in, stdout=out, stderr=errors))
    line.print(b"one")
    await asyncio.sleep(0.1)
    os.close(output)
    line.print(b"two")
    async with asyncio.timeout(5):
        assert await attachment == 0
    for descriptor in (held_in, held_input, out, errors):
        os.close(descriptor)


async def test_a_terminal_that_is_only_looked_at_is_tidied_too(
    consoles: Consoles, path: Path, terminal: Terminal, line: PtyLine
) -> None:
    """`qa vm console < /dev/null`, or in a script that somebody runs on a terminal."""
    line.print(b"\x1b[?1049h\x1b[?1000h\x1b[5;9r")
    nothing = os.open(os.devnull, os.O_RDWR)
    assert (
        await run_console(path, VM, stdin=nothing, stdout=terminal.inside, stderr=nothing, quiet_s=0.2) == 0
    )
    await eventually(lambda: terminal.shows(b"\x1b[?1000h"))
    await eventually(lambda: terminal.shows(TIDY))
    os.close(nothing)


async def test_output_that_cannot_be_written_is_one_clear_error(
    consoles: Consoles, path: Path, line: PtyLine
) -> None:
    line.print(b"something")
    full = os.open("/dev/full", os.O_WRONLY)
    held_in, held_input = os.pipe()
    with pytest.raises(AdminError, match="the output cannot be written: No space left on device"):
        await run_console(path, VM, stdin=held_in, stdout=full, stderr=full)
    for descriptor in (full, held_in, held_input):
        os.close(descriptor)


async def test_a_terminal_that_hangs_up_ends_it_in_good_order(
    consoles: Consoles, path: Path, line: PtyLine
) -> None:
    outside, inside = os.openpty()
    attachment = asyncio.create_task(run_console(path, VM, stdin=inside, stdout=inside, stderr=inside))
    await asyncio.sleep(0.1)
    os.close(outside)
    line.print(b"is anybody there?")
    async with asyncio.timeout(10):
        assert await attachment == 0
    os.close(inside)


async def test_a_huge_terminal_is_served(
    consoles: Consoles, path: Path, terminal: Terminal, line: PtyLine
) -> None:
    terminal.resize(1500, 2000)
    async with attached(path, terminal):
        await eventually(lambda: line.size == (1000, 1000))


async def test_the_role_can_be_taken_from_the_start_or_refused(
    consoles: Consoles, path: Path, terminal: Terminal, line: PtyLine
) -> None:
    async with attached(path, terminal):
        with Pipes() as pipes:
            guest = asyncio.create_task(answer(line))
            pipes.send(b"mine\n")
            assert await pipes.run(path, write="take") == 0
            guest.cancel()
            assert b"did mine" in pipes.output()
        await eventually(lambda: terminal.shows(b" writes here, you watch\r\n"))
        await eventually(lambda: terminal.shows(b"nobody writes here\r\n"))
