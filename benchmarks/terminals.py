"""Programs at terminals of their own, watched: what they send and when, and the processor time they take.

Nobody draws what they send: it is read at once, kept with the instant at which it came, and looked at later,
so that looking costs the program nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COLUMNS, ROWS = 120, 40
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
READ_BYTES = 65_536
LOOK_S = 0.005
ENDS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a terminal got at once."""

    at: float
    """Monotonic seconds."""
    data: bytes


class Terminal:
    """A terminal with one program in it."""

    def __init__(self, master: int, pid: int, begun: float) -> None:
        self.pid = pid
        self.begun = begun
        """When the program was started."""
        self.chunks: list[Chunk] = []
        self._master = master
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, keys: bytes) -> float:
        """Press keys; the instant at which that was done."""
        at = time.monotonic()
        os.write(self._master, keys)
        return at

    def cpu_s(self) -> float:
        """Processor time of the program up to now, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def bytes_between(self, start: float, end: float) -> int:
        """How much was sent between two instants."""
        return sum(len(chunk.data) for chunk in list(self.chunks) if start <= chunk.at < end)

    def came(self, text: bytes, after: float) -> float | None:
        """When a text came after an instant, as far as is known now; None: it has not."""
        chunks = [chunk for chunk in list(self.chunks) if chunk.at >= after]
        place = b"".join(chunk.data for chunk in chunks).find(text)
        if place < 0:
            return None
        ends = itertools.accumulate(len(chunk.data) for chunk in chunks)
        return next(chunk.at for chunk, end in zip(chunks, ends, strict=True) if end >= place + len(text))

    def shows(self, text: bytes, *, after: float, limit_s: float = 10.0) -> float:
        """Wait until a text is sent after an instant; when it came. It must be sent in one piece.

        :raises AssertionError: it does not come
        """
        return self.reaches(lambda sent: text in sent, after=after, limit_s=limit_s, what=repr(text))

    def shows_many(self, pattern: re.Pattern[bytes], count: int, *, limit_s: float = 60.0) -> float:
        """Wait until so many different matches of a pattern have been sent; when the last of them came.

        :raises AssertionError: they do not come
        """
        what = f"{count} of {pattern.pattern!r}"
        reached = lambda sent: len(set(pattern.findall(sent))) >= count  # noqa: E731
        return self.reaches(reached, after=self.begun, limit_s=limit_s, what=what)

    def reaches(
        self, reached: Callable[[bytes], bool], *, after: float, limit_s: float, what: str = "it"
    ) -> float:
        """Wait until something is true of what was sent after an instant; when it became so.

        :raises AssertionError: it does not
        """
        over, sent, at = time.monotonic() + limit_s, b"", len(self.chunks)
        while at and self.chunks[at - 1].at >= after:
            at -= 1
        while True:
            while at < len(self.chunks):
                sent += self.chunks[at].data
                if reached(sent):
                    return self.chunks[at].at
                at += 1
            assert time.monotonic() < over, f"{what} does not come within {limit_s:g} s: …{sent[-2000:]!r}"
            assert not self._over.is_set(), f"the program has ended: …{sent[-2000:]!r}"
            time.sleep(LOOK_S)

    def close(self) -> None:
        """End the program, and wait for that."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        over = time.monotonic() + ENDS_WITHIN_S
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > over:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(LOOK_S)
        self._over.set()
        self._reader.join()
        os.close(self._master)

    def _read(self) -> None:
        while not self._over.is_set():
            if not select.select([self._master], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self._master, READ_BYTES)
            except OSError:
                data = b""
            if not data:
                self._over.set()
                return
            self.chunks.append(Chunk(time.monotonic(), data))


@contextmanager
def terminal(
    argv: Sequence[str | Path], environment: Mapping[str, str], *, columns: int = COLUMNS, rows: int = ROWS
) -> Iterator[Terminal]:
    """A terminal in which a program runs; the program is ended at the end."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    variables = {**os.environ, **environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    variables |= {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}
    words = [str(word) for word in argv]
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(slave, words, variables)
    os.close(slave)
    made = Terminal(master, pid, begun)
    try:
        yield made
    finally:
        made.close()


def _become(slave: int, argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """In the child: take the terminal, and be the program."""
    try:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for descriptor in range(3):
            os.dup2(slave, descriptor)
        os.closerange(3, 256)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where tests run in the background of a shell
        os.execve(argv[0], list(argv), dict(environment))
    finally:
        os._exit(127)
