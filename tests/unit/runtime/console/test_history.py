from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from appliance.clock import SystemClock
from appliance.control import Stream
from appliance.control_frames import MAX_PAYLOAD, FrameKind
from appliance.runtime.console_capture import Capture
from appliance.runtime.console_history import CATCH_UP_BYTES, from_a_safe_place, send_history


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


class Slow:
    """A viewer's stream: while it takes a frame, the guest says more than that."""

    def __init__(self, capture: Capture) -> None:
        self.got = b""
        self._capture = capture

    async def send(self, kind: FrameKind, payload: bytes) -> None:
        self.offer(kind, payload)
        assert len(self.got) < 2_000_000, "the history never ends"
        for _ in range(50):
            self._capture.append(b"." * 2000)

    def offer(self, kind: FrameKind, payload: bytes | Mapping[str, object]) -> bool:
        assert isinstance(payload, bytes)
        assert len(payload) <= MAX_PAYLOAD
        self.got += payload
        return True


async def test_a_viewer_slower_than_its_guest_gets_its_history_and_a_word_of_what_it_misses(
    tmp_path: Path,
) -> None:
    capture = Capture(tmp_path / "7.tty")
    capture.append(b"history\r\n" * 10_000)
    slow = Slow(capture)
    await send_history(cast("Stream", slow), capture, 65_536, SystemClock())
    capture.close()
    assert slow.got.startswith(b"history\r\n")
    assert slow.got.endswith(b" bytes skipped ...\r\n")
    assert 65_536 < len(slow.got) < 65_536 + CATCH_UP_BYTES + 2 * MAX_PAYLOAD
    skipped = int(slow.got.rsplit(b"... ", 2)[1].split()[0].replace(b",", b""))
    assert skipped > MAX_PAYLOAD
