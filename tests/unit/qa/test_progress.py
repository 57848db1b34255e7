"""What people see of long work."""

from __future__ import annotations

import io

from appliance.qa.progress import Progress


class Terminal(io.StringIO):
    """A stream on which a line can move."""

    def isatty(self) -> bool:
        return True


def line_of(written: str) -> str:
    """What a terminal shows of one line at last."""
    cells: list[str] = []
    for part in written.split("\r"):
        text, clears, _ = part.partition("\x1b[K")
        cells[: len(text)] = text
        if clears:
            del cells[len(text) :]
    return "".join(cells)


def test_a_shorter_step_leaves_nothing_of_a_longer_one() -> None:
    stream = Terminal()
    progress = Progress(stream, quiet=False)
    progress("unpacking the archive", 0.99)
    progress("hash", 0.1)
    assert line_of(stream.getvalue()) == "hash  10 %"


def test_where_no_line_moves_each_step_is_told_once() -> None:
    stream = io.StringIO()
    progress = Progress(stream, quiet=False)
    for share in (0.0, 0.5, 1.0):
        progress("copying", share)
    progress("hashing", 0.0)
    assert stream.getvalue() == "copying …\nhashing …\n"
