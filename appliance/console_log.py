"""The log of what a guest wrote to its console: kept small, and shown without anything that could act."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

TAIL_BYTES = 1 << 16
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
"""What a terminal obeys. A string that does not end on its line is none: all that follows would be gone."""


def tail(parts: Sequence[Path], lines: int) -> str:
    """The last lines of a log in several files, the latest last, without what a terminal could act on."""
    content = b"".join(_end(part) for part in parts)
    text = harmless(content[-TAIL_BYTES:])
    whole = [line for line in text.splitlines() if line.strip()]
    return "\n".join(whole[max(0, len(whole) - lines) :])


def harmless(data: bytes) -> str:
    """What was read as text that no terminal acts on."""
    text = data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in ESCAPES.sub("", text) if char.isprintable() or char in "\n\t")


def bound(log: Path, before: Path, most_bytes: int) -> bool:
    """Empty a log that has outgrown `most_bytes` and leave its end in the file `before`; whether it had.

    Whoever writes to it must do so by appending. What it writes in this very moment is lost. On a full disk
    there is nothing in `before`, but the log is emptied all the same.
    """
    try:
        if log.stat().st_size <= most_bytes:
            return False
        try:
            before.write_bytes(_end(log))
        except OSError:
            with suppress(OSError):
                before.unlink()
        with log.open("r+b") as stream:
            stream.truncate(0)
    except OSError:
        return False
    return True


def _end(file: Path) -> bytes:
    with suppress(OSError), file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
        return stream.read(TAIL_BYTES)
    return b""
