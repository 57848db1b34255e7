"""Asks Debian's own at(1) what expressions mean: any number of them in one process, at any pretended time."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
GRAMMAR = Path("/usr/share/doc/at/timespec")
"""The grammar as Debian ships it with `at`."""


@dataclass(frozen=True, slots=True)
class Question:
    """An expression, when (seconds since 1970) and in which $TZ it is asked."""

    now: int
    tz: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `at` does: `at` makes a job, `past` and `garbled` refuse; the instant unless garbled."""

    word: str
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Oracle:
    """A copy of /usr/bin/at without its privileges, and the library that is loaded into it."""

    program: Path
    library: Path

    def ask(self, questions: Sequence[Question]) -> list[Verdict]:
        """The verdicts, in order."""
        lines = ["\x1f".join((str(one.now), one.tz, *one.words)) for one in questions]
        assert not any("\n" in line for line in lines), "an expression holds the end of a line"
        done = subprocess.run(
            [self.program],
            input="".join(f"{line}\n" for line in lines),
            env={"LD_PRELOAD": str(self.library)},
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        verdicts = [_verdict(line) for line in done.stdout.splitlines()]
        assert len(verdicts) == len(questions), "at answered another number of questions"
        return verdicts


def _verdict(line: str) -> Verdict:
    word, *seconds = line.split()
    return Verdict(word, int(seconds[0]) if seconds else None)


@contextmanager
def oracle() -> Iterator[Oracle]:
    """Build it, in a directory that goes at the end."""
    with tempfile.TemporaryDirectory(prefix="qvd-at-") as directory:
        program, library = Path(directory) / "at", Path(directory) / "at_oracle.so"
        shutil.copyfile("/usr/bin/at", program)
        program.chmod(0o755)
        subprocess.run(
            ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE], check=True
        )
        yield Oracle(program, library)
