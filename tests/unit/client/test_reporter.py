"""What the user and programs read while the client waits."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from appliance.client.reporter import Reporter
from appliance.clock import ManualClock

START = datetime(2030, 1, 1, tzinfo=UTC)


async def test_steps_carry_the_time_since_the_start() -> None:
    clock, out = ManualClock(START), io.StringIO()
    reporter = Reporter(clock, debug=False, out=out)
    await clock.advance(2.25)
    reporter.say("starting X")
    reporter.mark("102", "starting X")
    assert out.getvalue() == "[   2.2 s] starting X\n"


async def test_the_time_line_is_for_programs() -> None:
    clock, out = ManualClock(START), io.StringIO()
    reporter = Reporter(clock, debug=True, out=out)
    await clock.advance(0.5)
    reporter.mark("102", "starting X")
    reporter.mark("101")
    epoch = START.timestamp() + 0.5
    assert out.getvalue() == f"TIMELINE 102 {epoch:.6f} starting X\nTIMELINE 101 {epoch:.6f}\n"
