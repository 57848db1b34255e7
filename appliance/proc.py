"""The only place where a process is spawned.

A command runs without a shell, in a session of its own, with a time limit and with both outputs
captured; what fails is logged as a line that can be pasted into a terminal. Secrets go through
`stdin`, never through `argv`.

Input and outputs are memory files, and the end is told by a pidfd. So a command ends when it ends,
even if something that it leaves behind has inherited its outputs; a program may open /dev/stdin by
name; and nothing depends on how the event loop spawns: uvloop's children inherit descriptors that
are marked close-on-exec.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeAlias

from appliance.errors import HostError, MissingToolError, ToolError
from appliance.threads import in_own_thread, to_the_end

logger = logging.getLogger(__name__)

Child: TypeAlias = subprocess.Popen[bytes]
DEFAULT_TIMEOUT_S = 60.0
LONGEST_LINE = 4096
UNLESS_ORPHANED = ("sh", "-c", 'test "$PPID" = "$0" && exec "$@"')
"""Runs the words after the number of its parent, unless that has ended: then nobody would end them."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended."""

    status: int
    stdout: bytes
    stderr: bytes


def become(argv: Sequence[str], *, hint: str | None = None) -> NoReturn:
    """Let another program take the place of this one, with its terminal; found on the path.

    :raises MissingToolError: there is no such program
    """
    logger.debug("become %s", shlex.join(argv))
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and programs inherit that
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606  no shell is wanted
    except OSError as exc:
        raise MissingToolError(f"{argv[0]} cannot be run: {exc.strerror}", hint=hint) from exc


async def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | int | None = None,
    stdout: int | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    hint: str | None = None,
    longest_stderr: int | None = None,
    first: Callable[[], None] | None = None,
) -> Completed:
    """Run `argv` to its end; `stdin` is what it reads, or a descriptor that it inherits as such.

    With `first`, the command is started by a thread of its own in which that was called before: what it
    changes of the thread's namespaces, the command has as well.

    What it writes is returned, or goes to the descriptor `stdout`. Outputs stay in memory: whoever reads
    what strangers made can complain without end, and is given `longest_stderr` bytes for that.

    Cancelling, or passing `timeout_s`, kills the command and everything in its session.

    :raises ToolError: it failed (with `check`) or ran out of time
    :raises MissingToolError: there is no such program
    """
    words = [str(word) for word in argv]
    logger.debug("run %s", shlex.join(words))
    with _memory(b"") as output, _room(longest_stderr) as stderr, _source(stdin) as source:
        sink = output if stdout is None else stdout
        begin = partial(start, words, stdin=source, stdout=sink, stderr=stderr, env=env, pass_fds=pass_fds)
        process = begin() if first is None else await _begun_after(first, begin)
        try:
            async with asyncio.timeout(timeout_s):
                await ended(process.pid)
        except TimeoutError as exc:
            raise ToolError(words, -signal.SIGKILL, f"no end after {timeout_s:g} s") from exc
        finally:
            await _no_more_of(process)
        complaints = _content(stderr) if longest_stderr is None else _content(stderr).rstrip(b"\0")
        done = Completed(process.returncode, _content(output), complaints)
    if check and done.status != 0:
        logger.error("failed with %d: %s: %s", done.status, shlex.join(words), _tail(done.stderr))
        raise ToolError(words, done.status, done.stderr.decode(errors="replace"), hint=hint)
    return done


async def hear(
    argv: Sequence[str | Path],
    *,
    stdin: bytes,
    timeout_s: float,
    env: Mapping[str, str],
    most: int,
) -> tuple[int, bytes]:
    """Run a stranger's program to its end; returns its status and the last `most` bytes of its outputs.

    It may write without end. What it leaves behind in its session ends with it, and so does all of that when
    the caller is cancelled or `timeout_s` are over.

    :raises ToolError: it ran out of time
    :raises MissingToolError: there is no such program
    :raises HostError: it cannot be started
    """
    words = [str(word) for word in argv]
    logger.debug("hear %s", shlex.join(words))
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    loop, tail = asyncio.get_running_loop(), _Tail(reader, most)

    def take() -> None:
        if not tail.read():
            loop.remove_reader(reader)

    try:
        with _memory(stdin) as source:
            try:
                process = start(words, stdin=source, stdout=writer, stderr=writer, env=env)
            finally:
                os.close(writer)
        loop.add_reader(reader, take)
        try:
            async with asyncio.timeout(timeout_s):
                await ended(process.pid)
        except TimeoutError as exc:
            raise ToolError(words, -signal.SIGKILL, f"no end after {timeout_s:g} s") from exc
        finally:
            loop.remove_reader(reader)
            kill_session(process.pid)  # before it is reaped: until then, nobody else has its number
            try:
                await to_the_end(ended(process.pid))
            finally:
                process.wait()
            tail.read()
    finally:
        os.close(reader)
    return process.returncode, bytes(tail.kept)


async def spawn(
    argv: Sequence[str | Path],
    *,
    output: Path,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """Start a long-lived child detached in a session of its own, both outputs appended to the file `output`.

    It survives us unless its keeper ends it. Not under uvloop: there it would inherit our sockets.

    :raises MissingToolError: there is no such program
    """
    words = [str(word) for word in argv]
    logger.debug("spawn %s", shlex.join(words))
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=None if env is None else dict(env),
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        raise MissingToolError(f"the program {words[0]} is missing", hint="run scripts/setup") from exc
    finally:
        os.close(descriptor)


def start(
    words: Sequence[str],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start a command in a session of its own; the caller waits for it.

    :raises MissingToolError: there is no such program
    :raises HostError: it cannot be started
    """
    try:
        return subprocess.Popen(
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=None if env is None else dict(env),
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        raise MissingToolError(f"the program {words[0]} is missing", hint="run scripts/setup") from exc
    except OSError as exc:
        raise HostError(f"the program {words[0]} cannot be started: {exc.strerror}") from exc


async def attend(
    argv: Sequence[str | Path],
    *,
    began: Callable[[Child], None],
    heard: Callable[[str], None],
    capabilities: Sequence[str],
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a child for as long as it lives, but no longer than this process or this call; returns its status.

    `began` is given the child, and `heard` each line that it writes. It is root's and has the
    `capabilities`, but can gain no other. The kernel kills it when the thread that called this ends,
    whatever ended that: whoever comes after a killed daemon finds no child of it.

    :raises MissingToolError: there is no such program
    :raises HostError: it cannot be started
    """
    words = [str(word) for word in argv]
    logger.debug("attend %s", shlex.join(words))
    kept = ",".join(["-all", *(f"+{capability}" for capability in capabilities)])
    bounds = ("--pdeathsig", "KILL", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={kept}")
    bound = ["setpriv", *bounds, *UNLESS_ORPHANED, str(os.getpid()), *words]
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    loop, lines = asyncio.get_running_loop(), _Lines(reader, heard)

    def pass_on() -> None:
        if not lines.read():
            loop.remove_reader(reader)

    try:
        try:
            process = start(bound, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, env=env)
        finally:
            os.close(writer)
        loop.add_reader(reader, pass_on)
        try:
            began(process)
            await ended(process.pid)
        finally:
            loop.remove_reader(reader)
            await _no_more_of(process)
            lines.read()
    finally:
        os.close(reader)
    return process.returncode


class _Tail:
    """The last bytes of what comes out of a pipe."""

    def __init__(self, reader: int, most: int) -> None:
        self._reader = reader
        self._most = most
        self.kept = bytearray()

    def read(self) -> bool:
        """Take what is there; false if nothing will come any more."""
        try:
            data = os.read(self._reader, 1 << 16)
        except BlockingIOError:
            return True
        self.kept += data
        del self.kept[: -self._most]
        return data != b""


class _Lines:
    """What comes out of a pipe, line by line; a line without an end is cut."""

    def __init__(self, reader: int, heard: Callable[[str], None]) -> None:
        self._reader = reader
        self._heard = heard
        self._begun = b""

    def read(self) -> bool:
        """Pass on what is there; false if nothing will come any more."""
        try:
            data = os.read(self._reader, 1 << 16)
        except BlockingIOError:
            return True
        *lines, rest = (self._begun + data).split(b"\n")
        self._begun = rest[-LONGEST_LINE:]
        for line in lines:
            self._heard(line[-LONGEST_LINE:].decode(errors="replace"))
        return data != b""


async def _begun_after(first: Callable[[], None], begin: Callable[[], Child]) -> Child:
    """Begin a command in a thread of its own, after `first`; if the caller is cancelled, end it again."""
    begun: list[Child] = []

    def both() -> None:
        first()
        begun.append(begin())

    try:
        await in_own_thread(both)
    except asyncio.CancelledError:
        for process in begun:
            await _no_more_of(process)
        raise
    return begun[0]


async def _no_more_of(process: Child) -> None:
    """Kill a command, with everything in its session, unless it has ended; return when it has."""
    if process.poll() is None:
        kill_session(process.pid)
        try:
            await to_the_end(ended(process.pid))
        finally:
            process.wait()


async def ended(pid: int) -> None:
    """Return when the process `pid` has ended; it is left to its parent to reap."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def kill_session(pid: int) -> None:
    """Kill a child that leads its own session, with all that it started there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@contextlib.contextmanager
def _memory(content: bytes) -> Iterator[int]:
    """A file in memory, at its beginning."""
    descriptor = os.memfd_create("proc", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _room(size: int | None) -> Iterator[int]:
    """An empty file in memory that takes up to `size` bytes; more cannot be written."""
    if size is None:
        with _memory(b"") as descriptor:
            yield descriptor
        return
    descriptor = os.memfd_create("proc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _source(stdin: bytes | int | None) -> Iterator[int]:
    if isinstance(stdin, bytes):
        with _memory(stdin) as descriptor:
            yield descriptor
    else:
        yield subprocess.DEVNULL if stdin is None else stdin


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _tail(stderr: bytes, lines: int = 3) -> str:
    return " / ".join(stderr.decode(errors="replace").strip().splitlines()[-lines:])
