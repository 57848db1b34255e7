"""Runs of `scripts/demo`, and what each must show."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.trial import LOGIN, ROOT, Trial, read_picture
from tests.support.footprint import remains

MILESTONES = ["asked", "VM started", "VMA answered", "X listening", "101", "first picture", "desktop read"]


@dataclass(slots=True)
class Demo:
    """Runs of `scripts/demo` in one directory, with temporary files of their own."""

    directory: Path
    temporary: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """What the demo says."""
        return self.directory.with_suffix(".out")

    @property
    def hold_file(self) -> Path:
        """Tells others where the desktop is."""
        return self.directory / "hold.env"

    def start(self, *words: str, display: str | None = None) -> subprocess.Popen[str]:
        """Start the demo; its output goes to a file."""
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        environment.pop("DISPLAY", None)
        if display is not None:
            environment["DISPLAY"] = display
        with self.output.open("w") as told:
            demo = subprocess.Popen(
                [str(ROOT / "scripts" / "demo"), "--dir", str(self.directory), *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                text=True,
                start_new_session=True,
            )
        self.running.append(demo)
        return demo

    def await_hold(self, demo: subprocess.Popen[str]) -> None:
        """Wait until the desktop is held for others."""
        soon(lambda: self.hold_file.exists() or demo.poll() is not None, 120)
        assert self.hold_file.exists(), self.output.read_text()

    def end(self, demo: subprocess.Popen[str], limit_s: float = 120) -> str:
        """Wait for the end; what it said."""
        try:
            status = demo.wait(limit_s)
        except subprocess.TimeoutExpired as exc:
            raise AssertionError(f"the demo goes on:\n{self.output.read_text()}") from exc
        said = self.output.read_text()
        assert status == 0, f"the demo ended with {status}:\n{said}"
        return said

    def once(self, *words: str, display: str | None = None, limit_s: float = 120) -> str:
        """`scripts/demo --once`, to a good end."""
        return self.end(self.start("--once", *words, display=display), limit_s)

    def remains(self) -> list[str]:
        """What is left of it."""
        return remains(self.directory, self.temporary)

    def sweep(self) -> None:
        """End what still runs."""
        for demo in self.running:
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGKILL)
                demo.wait()
        Trial(self.directory).sweep()


@contextmanager
def making_demos(folder: Path) -> Iterator[Callable[[str], Demo]]:
    """Makes demos below a folder; ends them."""
    made: list[Demo] = []

    def make(name: str) -> Demo:
        temporary = folder / f"{name}-tmp"
        temporary.mkdir()
        made.append(Demo(folder / name, temporary))
        return made[-1]

    try:
        yield make
    finally:
        for demo in made:
            demo.sweep()


def soon(condition: Callable[[], object], limit_s: float = 60) -> bool:
    """Whether `condition` comes to hold."""
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def assert_seen(demo: Demo, said: str) -> None:
    """The whole time line was told, and the picture shows who is where."""
    told = re.findall(r"^ +(\d+\.\d\d)  (.+)$", said, re.MULTILINE)
    assert [name for _, name in told] == MILESTONES, said
    seconds = [float(number) for number, _ in told]
    assert seconds[0] == 0
    assert seconds == sorted(seconds)
    text = read_picture(demo.directory / "desktop.png")
    assert LOGIN in text
    assert "desk1" in text
