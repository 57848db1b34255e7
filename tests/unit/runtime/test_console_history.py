from __future__ import annotations

import pytest

from appliance.runtime.console_history import from_a_safe_place


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        (b"half a line\nwhole\n", b"whole\n"),
        (b"1mhalf a sequence\r\nwhole", b"whole"),
        (b"x" * 5000 + b"\n", b"x" * 5000 + b"\n"),
        ("ééé".encode()[1:], "éé".encode()),
        (b"\x80" * 6, b"\x80\x80"),
        (b"", b""),
    ],
)
def test_a_cut_history_begins_with_a_line_or_at_least_a_character(cut: bytes, kept: bytes) -> None:
    assert from_a_safe_place(cut) == kept
