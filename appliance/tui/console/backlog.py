"""What has come from a console and waits to be drawn: bounded, whatever the guest and the hub do. Pure.

Drawing is slower than a flood. When more than MOST_BYTES wait, the middle is left out: the newest
KEPT_BYTES stay, from the beginning of a line, and of what goes before them the last sequence of each kind
that changes how the rest is drawn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_BYTES = 131_072
KEPT_BYTES = 32_768

LASTING = re.compile(
    rb"""
      \x1b\[\? (?P<modes> [0-9;]{1,32} ) [hl]
    | \x1b (?P<set> [()] ) [0AB]
    | (?P<shift> [\x0e\x0f] )
    | \x1b\[ 4 (?P<insert> [hl] )
    | \x1b\[ (?P<margins> [0-9;]{0,9} r )
    | (?P<reset> \x1b\[!p | \x1bc )
    """,
    re.VERBOSE,
)
KNOWN_MODES = frozenset({1, 5, 7, 25, 47, 1000, 1002, 1006, 1047, 1049, 2004})
"""Private modes that outlast what was skipped; of others, nothing is remembered."""
ONE_SCREEN = {1047: 47, 1049: 47}
"""Modes that switch the same thing."""
PLAIN = b"\x1b[m"


@dataclass(frozen=True, slots=True)
class Skipped:
    """In the place of what was left out."""

    count: int
    """Bytes."""
    lasting: bytes
    """Sequences in it that still matter."""


class Backlog:
    """Bytes, in the order in which they came."""

    def __init__(self, most_free: int = 1_048_576) -> None:
        """Up to `most_free` bytes that are `whole` wait beside the others."""
        self._most_free = most_free
        self._waiting = bytearray()
        self._skipped = 0
        self._lasting: dict[object, bytes] = {}
        self._free = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __bool__(self) -> bool:
        return bool(self._waiting or self._skipped)

    def add(self, data: bytes, *, whole: bool = False) -> None:
        """Let `data` wait; nothing is left out for the sake of what is `whole`: history, in bounds."""
        self._waiting += data
        if whole:
            self._free = min(self._free + len(data), self._most_free)
        if len(self._waiting) > MOST_BYTES + self._free:
            self._skip()

    def take(self, count: int) -> bytes | Skipped:
        """What comes next: `count` bytes or fewer, or word of what was left out; empty if nothing waits."""
        if self._skipped:
            skipped = Skipped(self._skipped, b"".join(self._lasting.values()) + PLAIN)
            self._skipped = 0
            self._lasting.clear()
            return skipped
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        self._free = max(0, self._free - len(taken))
        return taken

    def keep_lines(self, count: int) -> None:
        """Forget what waits but for its last lines, for nobody could look at more; lasting sequences stay."""
        start = len(self._waiting)
        for _ in range(count + 1):
            start = self._waiting.rfind(b"\n", 0, start)
            if start < 0:
                return
        self._leave_out(start + 1)
        taken = self.take(0)
        if isinstance(taken, Skipped):
            self._waiting[:0] = taken.lasting
        self._free = min(self._free, len(self._waiting))

    def _skip(self) -> None:
        self._leave_out(_beginning(self._waiting, len(self._waiting) - KEPT_BYTES))
        self._free = 0

    def _leave_out(self, start: int) -> None:
        gone = bytes(self._waiting[:start])
        for match in LASTING.finditer(gone):
            self._keep(match)
        del self._waiting[:start]
        self._skipped += len(gone)

    def _keep(self, match: re.Match[bytes]) -> None:
        """Remember a sequence in the place of the former one of its kind."""
        if match["modes"]:
            for mode in {int(digits) for digits in match["modes"].split(b";") if digits}:
                if mode in KNOWN_MODES:
                    self._replace(ONE_SCREEN.get(mode, mode), b"\x1b[?%d%c" % (mode, match[0][-1]))
        elif match["set"]:
            self._replace(match["set"], match[0])
        elif match["reset"]:
            self._lasting = {key: kept for key, kept in self._lasting.items() if key == 47}
            self._replace("reset", match[0])
        else:
            self._replace(match.lastgroup, match[0])

    def _replace(self, key: object, sequence: bytes) -> None:
        self._lasting.pop(key, None)
        self._lasting[key] = sequence


def _beginning(data: bytearray, after: int) -> int:
    """Where the first line after the place `after` begins; else a sequence, else a character."""
    if line := data.find(b"\n", after) + 1:
        return line
    if (sequence := data.find(b"\x1b", after)) >= 0:
        return sequence
    return next((at for at in range(after, len(data)) if data[at] & 0xC0 != 0x80), len(data))
