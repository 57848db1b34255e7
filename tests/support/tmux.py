"""Terminals of a given size with a person at them: programs run in tmux, which draws what they send.

Each `Tmux` is a server of its own, whose socket nobody else knows, and which ends with all that runs in it.
A program that has ended leaves its last screen and its exit status to be looked at; what it wrote in its very
last moment may be lost, as tmux 3.3 closes the terminal when nothing waits there yet.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 0.05
LIMIT_S = 30.0
STARTS_WITHIN_S = 10.0
NAME = "qvdt"
OF_A_TERMINAL = ("TMUX", "COLUMNS", "LINES")
"""What a terminal around the tests has put into their environment."""
OPTIONS = (
    ("-s", "escape-time", "0"),
    ("-s", "exit-empty", "off"),
    ("-g", "default-terminal", "tmux-256color"),
    ("-g", "status", "off"),
    ("-g", "remain-on-exit", "on"),
    ("-g", "remain-on-exit-format", ""),
)


class Pane:
    """One terminal, and the program in it."""

    def __init__(self, tmux: Tmux, name: str) -> None:
        self._tmux = tmux
        self._name = name

    def press(self, *keys: str) -> None:
        """Press keys by their names: `Enter`, `Escape`, `C-]`, `F1`, or a letter."""
        self._tmux.call("send-keys", "-t", self._name, *keys)

    def type(self, text: str) -> None:
        """Type a text, letter by letter."""
        self._tmux.call("send-keys", "-t", self._name, "-l", "--", text)

    def enter(self, text: str) -> None:
        """Type a text and press Enter."""
        self.type(text)
        self.press("Enter")

    def screen(self, *, colours: bool = False) -> str:
        """What is shown now, a line for each of the terminal's; with `colours` in escape sequences."""
        return self._tmux.call("capture-pane", "-p", *(["-e"] if colours else []), "-t", self._name)

    def lines(self) -> list[str]:
        """What is shown now, line by line."""
        return self.screen().split("\n")

    def until(self, shown: str | Callable[[str], object], limit_s: float = LIMIT_S) -> str:
        """Wait until a text is on the screen, or something is true of it; the screen then.

        :raises AssertionError: it does not come; with what was there instead
        """
        reached = (lambda screen: shown in screen) if isinstance(shown, str) else shown
        over = time.monotonic() + limit_s
        while True:
            status = self.status
            if reached(screen := self.screen()):
                return screen
            wanted = repr(shown) if isinstance(shown, str) else "what was waited for"
            assert status is None, f"{wanted} does not come: it ended with status {status}:\n{screen}"
            assert time.monotonic() < over, f"{wanted} is not there after {limit_s:g} s, but:\n{screen}"
            time.sleep(LOOK_S)

    def until_gone(self, shown: str, limit_s: float = LIMIT_S) -> str:
        """Wait until a text is not on the screen; the screen then.

        :raises AssertionError: it stays
        """
        return self.until(lambda screen: shown not in screen, limit_s)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, as somebody does who drags its window."""
        self._tmux.call("resize-window", "-t", self._name, "-x", str(columns), "-y", str(rows))

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        columns, rows = self._told("#{pane_width} #{pane_height}").split()
        return int(columns), int(rows)

    @property
    def pid(self) -> int:
        """The program's process."""
        return int(self._told("#{pane_pid}"))

    @property
    def title(self) -> str:
        """What the program has called its window."""
        return self._told("#{pane_title}")

    @property
    def status(self) -> int | None:
        """The exit status of the program, or 128 and the number of a signal; None while it runs."""
        dead, status, number = self._told("#{pane_dead},#{pane_dead_status},#{pane_dead_signal}").split(",")
        if dead != "1":  # what it has written last is not all on the screen yet
            return None
        if number:
            return 128 + int(number)
        if status:
            return int(status)
        self._tmux.call("run-shell", "true")  # tmux 3.3 misses some ends of children, but not this one's
        return None

    def ended(self, limit_s: float = LIMIT_S) -> int:
        """Wait until the program has ended; its exit status.

        :raises AssertionError: it goes on
        """
        over = time.monotonic() + limit_s
        while (status := self.status) is None:
            assert time.monotonic() < over, f"it goes on after {limit_s:g} s:\n{self.screen()}"
            time.sleep(LOOK_S)
        return status

    def close(self, limit_s: float = LIMIT_S) -> None:
        """Close the terminal under the program, as a lost connection does, and wait for the program's end.

        :raises AssertionError: it goes on
        """
        pid = self.pid
        self._tmux.call("kill-session", "-t", self._name)
        over = time.monotonic() + limit_s
        while runs(pid):
            assert time.monotonic() < over, f"process {pid} goes on without its terminal"
            time.sleep(LOOK_S)

    def _told(self, form: str) -> str:
        return self._tmux.call("display-message", "-p", "-t", self._name, form).rstrip("\n")


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@dataclass
class Tmux:
    """A server of terminals."""

    environment: Mapping[str, str]
    numbers: Iterator[int]

    def open(self, *words: str, columns: int = 80, rows: int = 24) -> Pane:
        """A terminal of that size in which a command runs."""
        name = f"t{next(self.numbers)}"
        self.call("new-session", "-d", "-s", name, "-x", str(columns), "-y", str(rows), "--", *words)
        return Pane(self, name)

    def call(self, *words: str) -> str:
        """Tell the server something; what it says.

        :raises AssertionError: it refuses
        """
        done = subprocess.run(
            ["tmux", "-u", "-L", NAME, *words],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        assert done.returncode == 0, f"tmux {words}: {done.stderr.strip()}"
        return done.stdout


@contextmanager
def tmux(environment: Mapping[str, str] | None = None) -> Iterator[Tmux]:
    """A server whose programs have this environment; at the end all of them are gone."""
    folder = Path(tempfile.mkdtemp(prefix="qvdt-tmux-"))  # a test's own directory is too long for a socket
    given = os.environ if environment is None else environment
    kept = {name: value for name, value in given.items() if not name.startswith(OF_A_TERMINAL)}
    variables = {**kept, "TMUX_TMPDIR": str(folder), "LC_ALL": "C.UTF-8", "COLORTERM": "truecolor"}
    options = folder / "options"
    options.write_text("".join(f"set {' '.join(words[:-1])} '{words[-1]}'\n" for words in OPTIONS))
    server = subprocess.Popen(
        ["tmux", "-u", "-L", NAME, "-f", str(options), "-D"],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        socket = folder / f"tmux-{os.getuid()}" / NAME
        over = time.monotonic() + STARTS_WITHIN_S
        while not socket.exists():
            assert server.poll() is None, f"tmux ended with status {server.returncode}"
            assert time.monotonic() < over, "tmux does not start"
            time.sleep(LOOK_S)
        yield Tmux(variables, itertools.count())
    finally:
        server.terminate()  # its programs are hung up
        try:
            server.wait(STARTS_WITHIN_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder)
