"""What a console has shown before, sent to a viewer who has just come."""

from __future__ import annotations

from appliance.clock import Timers
from appliance.console_output import HarmlessOutput
from appliance.control import Stream
from appliance.control_frames import MAX_PAYLOAD, FrameKind
from appliance.runtime.console_capture import Capture

FIRST_LINE_BYTES = 4096
"""A history that begins within a line begins with the next one, unless that is further away."""


STEP_BYTES = 8192
"""Made harmless at a time, so that the daemon does not wait for it."""
CATCH_UP_BYTES = 262_144
"""Sent of what is shown while the history is on its way; a guest that says more than its viewer can read
would never have it arrive."""


async def send_history(stream: Stream, capture: Capture, count: int, timers: Timers) -> None:
    """Send the last `count` bytes, and what is shown meanwhile: live bytes may follow when this returns.

    Nothing is lost or doubled between the two, for the capture is read until nothing is left in it; only of
    more than CATCH_UP_BYTES that are shown meanwhile, the rest is skipped, and a line says so. The viewer is
    waited for, and nothing grows if it does not read. What was kept is made harmless again: it may begin
    within a sequence, and a file may have been written by another hand. A frame is sent even if there is no
    history.
    """
    output = HarmlessOutput()
    position = max(capture.end - count, capture.first)
    until = capture.end + CATCH_UP_BYTES
    is_cut = position > capture.first
    is_first = True
    shown = bytearray()
    while is_first or position < capture.end:
        if position >= until:
            skipped = f"\x1b[m\r\n... {capture.end - position:,} bytes skipped ...\r\n"
            stream.offer(FrameKind.DATA, bytes(shown))
            stream.offer(FrameKind.DATA, skipped.encode())
            return
        data, position = capture.read(position, STEP_BYTES)
        shown += output.feed(from_a_safe_place(data) if is_cut else data)
        is_cut = False
        if len(shown) >= MAX_PAYLOAD or position >= capture.end:
            for start in range(0, max(len(shown), int(is_first)), MAX_PAYLOAD):
                await stream.send(FrameKind.DATA, bytes(shown[start : start + MAX_PAYLOAD]))
            shown.clear()
            is_first = False
        await timers.sleep(0)


def from_a_safe_place(cut: bytes) -> bytes:
    """`cut` from its first whole line on; if that is far away, without half a character at its beginning."""
    if line := cut.find(b"\n", 0, FIRST_LINE_BYTES) + 1:
        return cut[line:]
    start = 0
    while start < min(4, len(cut)) and cut[start] & 0xC0 == 0x80:
        start += 1
    return cut[start:]
