"""Reads the recorded dialogues of tests/wire/transcripts: who said which bytes on which connection, in order.

A line is `C3> b'…'` (the client, on connection 3) or `S3> b'…'` (the server); all else is commentary.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

TRANSCRIPTS = Path(__file__).resolve().parent.parent / "wire" / "transcripts"

_LINE = re.compile(r"([CS])(\d+)> (b['\"].*)")


@dataclass(slots=True)
class Exchange:
    """What one side asked, and all that the other answered to it."""

    request: bytes = b""
    answer: bytes = b""


@dataclass(slots=True)
class Dialogue:
    """One connection, from its first byte to its last."""

    number: int
    exchanges: list[Exchange] = field(default_factory=list)


def dialogues(name: str) -> list[Dialogue]:
    """The connections recorded in the file `name`."""
    found: dict[int, Dialogue] = {}
    for line in (TRANSCRIPTS / name).read_text(encoding="ascii").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        side, number, data = match[1], int(match[2]), ast.literal_eval(match[3])
        exchanges = found.setdefault(number, Dialogue(number)).exchanges
        if side == "C":
            if not exchanges or exchanges[-1].answer:
                exchanges.append(Exchange())
            exchanges[-1].request += data
        else:
            exchanges[-1].answer += data
    return list(found.values())
