"""Shows people how far long work is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TextIO

Told = Callable[[str, float], None]
"""Told a step and its share, from 0 to 1, from whatever thread the work is done in."""


REST_OF_LINE = "\x1b[K"
"""Takes away what a longer step has left there."""


class Steps(Protocol):
    """What a verb tells how far its work is."""

    def __call__(self, step: str, share: float) -> None: ...

    def end_line(self) -> None:
        """There is nothing more to tell."""


class Progress:
    """A line that moves on a terminal, else one for each step."""

    def __init__(self, stream: TextIO, *, quiet: bool) -> None:
        self._stream = stream
        self._quiet = quiet
        self._moves = stream.isatty()
        self._step = ""
        self._percent = -1

    def __call__(self, step: str, share: float) -> None:
        """Told by the work, from whatever thread it is done in; `share` is from 0 to 1."""
        percent = int(share * 100)
        if self._quiet or (step, percent) == (self._step, self._percent):
            return
        if self._moves:
            end = "\n" if percent == 100 else ""
            print(f"\r{step} {percent:3} %{REST_OF_LINE}", end=end, file=self._stream, flush=True)
        elif step != self._step:
            print(f"{step} …", file=self._stream, flush=True)
        self._step, self._percent = step, percent

    def end_line(self) -> None:
        """Leave the line that moves, whatever it shows."""
        if self._moves and not self._quiet and self._step and self._percent != 100:
            print(file=self._stream, flush=True)


class Passed:
    """Steps that somebody else shows."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def __call__(self, step: str, share: float) -> None:
        self._told(step, share)

    def end_line(self) -> None:
        """Whoever shows them sees the end of the call itself."""
