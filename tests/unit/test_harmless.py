"""Text of strangers does nothing at a terminal."""

from __future__ import annotations

from appliance.harmless import printable, printable_lines


def test_what_acts_is_replaced() -> None:
    assert printable("é\x1b[2J\u202e\x9b\n") == "é [2J   "
    assert printable("a\x07b", "?") == "a?b"
    assert printable_lines("one\x1b\r\ntwo\t\n") == "one  \ntwo \n"
