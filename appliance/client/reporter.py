"""What the user sees while waiting: one line a step on standard error, with the seconds since the start."""

from __future__ import annotations

import sys
from typing import TextIO

from appliance.clock import Clock


class Reporter:
    """Says what happens; with `debug` also as `TIMELINE <name> <epoch seconds> [text]` for programs."""

    def __init__(self, clock: Clock, *, debug: bool, out: TextIO | None = None) -> None:
        self._clock = clock
        self._debug = debug
        self._out = out if out is not None else sys.stderr
        self._started = clock.monotonic()

    def say(self, text: str) -> None:
        """Show one step to the user."""
        elapsed = self._clock.monotonic() - self._started
        print(f"[{elapsed:6.1f} s] {text}", file=self._out, flush=True)

    def warn(self, text: str) -> None:
        """Show a danger to the user."""
        print(f"qvd-client: WARNING: {text}", file=self._out, flush=True)

    def mark(self, name: str, text: str = "") -> None:
        """Set one point of the time line; `name` is one word."""
        if self._debug:
            instant = self._clock.now().timestamp()
            print(f"TIMELINE {name} {instant:.6f} {text}".rstrip(), file=self._out, flush=True)
