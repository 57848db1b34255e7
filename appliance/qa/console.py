"""The terminal's end of a guest's console: `qa vm console`.

On a terminal, keys go to the guest as they are pressed and Ctrl-] detaches; the terminal is given back
as it was, however this ends. Without one (a pipe, a file), everything on standard input is sent, and
the end comes after it, once the console has been quiet for a while. Data goes to standard output, words
for people to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import getpass
import locale
import os
import select
import signal
import termios
import tty
from collections.abc import Iterator, Mapping
from pathlib import Path

from appliance.console_output import TIDY
from appliance.control import Stream, open_stream
from appliance.control_frames import Frame, FrameKind
from appliance.errors import AdminError, ApplianceError, DaemonDownError
from appliance.model import VmId

DETACH = b"\x1d"
LARGEST_SIDE = 1000
"""Rows or columns that the hub takes; of a larger terminal, the guest uses as many."""
QUIET_S = 1.0
"""How long the console must be quiet, after the end of standard input, to be left."""
READ_BYTES = 4096

READER_GONE = {errno.EPIPE, errno.EIO}
"""What writing fails with when the reader of a pipe, or the terminal, has gone away."""

YOU_WRITE = "you write here"
NOT_ASCII = bytes(byte if byte < 0x80 else ord("?") for byte in range(256))


async def run_console(
    control_path: Path,
    vm_id: VmId,
    *,
    name: str | None = None,
    write: str = "free",
    stdin: int = 0,
    stdout: int = 1,
    stderr: int = 2,
    quiet_s: float = QUIET_S,
) -> int:
    """Attach to the console of a VM until it is detached or ends; returns the exit status.

    `write` says whether to write there if nobody else does (`free`), in any case (`take`), or not at all
    (`never`).

    :raises DaemonDownError: the daemon is not running, or went away
    :raises ConflictError: the VM does not run
    :raises AdminError: the output cannot be written
    """
    on_terminal = os.isatty(stdin)
    request = {"want": "console", "vm": vm_id, "who": _who(stdin), "write": write, **_size(stdout)}
    async with await open_stream(control_path, request) as stream:
        first = await stream.receive()
        if first is None:
            raise _lost()
        view = View(stream, stdout, stderr, on_terminal=on_terminal)
        with _signals(view), _raw(stdin, stdout):
            view.say(f"connected to {name or f'VM {vm_id}'}{'; Ctrl-] detaches' if on_terminal else ''}")
            try:
                async with asyncio.TaskGroup() as tasks:
                    typing = tasks.create_task(view.type(stdin, quiet_s), name="standard input")
                    failure = await view.follow(first)
                    typing.cancel()
            except asyncio.CancelledError:
                if view.signalled is None:
                    raise
                return 128 + view.signalled
        if failure is not None:
            raise failure
        view.say("detached" if view.detached else f"disconnected: {stream.farewell}")
        return 1 if view.refused and not on_terminal else 0


class View:
    """One attachment: what comes from the hub is shown, what is typed goes there."""

    def __init__(self, stream: Stream, stdout: int, stderr: int, *, on_terminal: bool) -> None:
        self._stream = stream
        self._stdout = stdout
        self._stderr = stderr
        self._on_terminal = on_terminal
        self._plain = os.isatty(stdout) and locale.getencoding().upper() != "UTF-8"
        self._said = {"role": YOU_WRITE}
        self._heard = asyncio.Event()
        self.detached = False
        self.refused = False
        """Whether something that was typed did not reach the guest."""
        self.signalled: int | None = None

    async def follow(self, first: Frame) -> ApplianceError | None:
        """Show the first frame and what comes until the end; the reason, unless it ended in good order."""
        frame: Frame | None = first
        try:
            while frame:
                if frame.kind is FrameKind.DATA:
                    self.show(frame.payload)
                elif frame.kind is FrameKind.EVENT:
                    self._tell(frame.content())
                frame = await self._stream.receive()
        except OSError as exc:
            self._detach()
            if exc.errno not in READER_GONE:
                return AdminError(f"the output cannot be written: {exc.strerror}")
        except ApplianceError as exc:
            return exc
        if self._stream.farewell is None and not self.detached:
            return _lost()
        return None

    async def type(self, stdin: int, quiet_s: float) -> None:
        """Send what is typed until the detach key or the end of input."""
        while data := await _read(stdin):
            keys, chord, _ = data.partition(DETACH) if self._on_terminal else (data, b"", b"")
            if keys:
                await self._stream.send(FrameKind.DATA, keys)
            if chord:
                break
        else:
            await self._quiet(quiet_s)
        self._detach()

    def show(self, output: bytes) -> None:
        """Put the console's output on the screen. Bytes beyond ASCII mean controls to some old terminals."""
        self._heard.set()
        _write(self._stdout, output.translate(NOT_ASCII) if self._plain else output)

    def say(self, words: str) -> None:
        """A line for the person at the terminal."""
        end = "\r\n" if self._on_terminal else "\n"
        with contextlib.suppress(OSError):  # nobody could be told of it
            _write(self._stderr, f"{words}{end}".encode())

    def resize(self) -> None:
        """Pass the size of the terminal on."""
        if size := _size(self._stdout):
            self._stream.offer(FrameKind.ORDER, {"do": "resize", **size})

    def _detach(self) -> None:
        self.detached = True
        self._stream.end("detached")

    async def _quiet(self, quiet_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                self._heard.clear()
                async with asyncio.timeout(quiet_s):
                    await self._heard.wait()

    def _tell(self, event: Mapping[str, object]) -> None:
        """Say what is new in an event of the hub."""
        if notice := event.get("notice"):
            self.refused = True
            self._say_once("notice", str(notice))
            return
        others = event.get("others")
        company = ", ".join(map(str, others)) if isinstance(others, list) else ""
        waiting_for = event.get("waiting_for")
        if event.get("you_write"):
            role = YOU_WRITE
        elif event.get("writer"):
            role = f"{event['writer']} writes here, you watch"
        else:
            role = "nobody writes here"
        self._say_once("line", f"waiting: {waiting_for}" if waiting_for else "", "the line is open")
        self._say_once("company", f"also here: {company}" if company else "", "nobody else is here any more")
        self._say_once("role", role)

    def _say_once(self, about: str, words: str, if_over: str = "") -> None:
        """Say `words` unless they were the last ones about this; `if_over` when there are none any more."""
        before = self._said.get(about, "")
        self._said[about] = words
        if words != before and (words or if_over):
            self.say(words or if_over)


@contextlib.contextmanager
def _signals(view: View) -> Iterator[None]:
    """While this holds, a signal to end ends the view in good order, and the window's size is passed on."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        view.signalled = number
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGWINCH, view.resize)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _raw(stdin: int, stdout: int) -> Iterator[None]:
    """While this holds, a terminal passes every key on; afterwards those of both ends are as they were."""
    before = None
    if os.isatty(stdin):
        before = termios.tcgetattr(stdin)
        tty.setraw(stdin, termios.TCSANOW)
    try:
        yield
    finally:
        if os.isatty(stdout):
            with contextlib.suppress(OSError):
                _write(stdout, TIDY + b"\r\n")
        if before is not None:
            with contextlib.suppress(termios.error):  # it has been hung up
                termios.tcsetattr(stdin, termios.TCSANOW, before)


async def _read(descriptor: int) -> bytes:
    """What can be read, when something can; empty at the end."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    with contextlib.suppress(PermissionError):  # a file: it can always be read
        loop.add_reader(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, READ_BYTES)
    except OSError:
        return b""


def _write(descriptor: int, data: bytes) -> None:
    """Write all of `data`, waiting for a slow terminal."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def _lost() -> DaemonDownError:
    return DaemonDownError("the connection to the daemon is lost", hint="the VM runs on: attach again")


def _size(terminal: int) -> dict[str, int]:
    """Rows and columns as the hub takes them; nothing if it is no terminal."""
    try:
        size = os.get_terminal_size(terminal)
    except OSError:
        return {}
    return {"rows": min(size.lines, LARGEST_SIDE), "columns": min(size.columns, LARGEST_SIDE)}


def _who(stdin: int) -> str:
    """How we present ourselves to other viewers."""
    name = os.environ.get("SUDO_USER", "")
    with contextlib.suppress(KeyError, OSError):
        name = name or getpass.getuser()
    try:
        return f"{name} on {os.ttyname(stdin)}"
    except OSError:
        return name
