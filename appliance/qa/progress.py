"""Shows on standard error how far long work is."""

from __future__ import annotations

import sys


class Progress:
    """A line that moves on a terminal, else one for each step."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._moves = sys.stderr.isatty()
        self._step = ""
        self._percent = -1

    def __call__(self, step: str, share: float) -> None:
        """Told by the work, from whatever thread it is done in; `share` is from 0 to 1."""
        percent = int(share * 100)
        if self._quiet or (step, percent) == (self._step, self._percent):
            return
        if self._moves:
            end = "\n" if percent == 100 else ""
            print(f"\r{step} {percent:3} %", end=end, file=sys.stderr, flush=True)
        elif step != self._step:
            print(f"{step} …", file=sys.stderr, flush=True)
        self._step, self._percent = step, percent

    def end_line(self) -> None:
        """Leave the line that moves, whatever it shows."""
        if self._moves and not self._quiet and self._step and self._percent != 100:
            print(file=sys.stderr, flush=True)
