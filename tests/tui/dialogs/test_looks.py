"""Every dialog, as full as they get, on every screen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.tui.dialogs.dialog import Dialog, Push
from appliance.tui.dialogs.message import Message
from appliance.tui.dialogs.properties import Properties
from appliance.tui.glyphs import ASCII
from tests.support.dialog_calls import (
    WEB_1,
    Recorder,
    form,
    importing,
    staged,
    stop,
    tagging,
)
from tests.support.dialogs import acting
from tests.support.qa import Installation

SIZES = ((80, 24), (120, 40), (200, 60))


def every(qa: Installation, call: Recorder) -> list[Dialog[Any]]:
    """One of each, as full as they get."""
    names = [f"a-desktop-with-a-rather-long-name-{number}" for number in range(100)]
    return [
        stop(
            whom=names,
            costs=["It costs a lot. " * 8] * 4,
            typed="100",
            calls=[["vm", "del", "-f", str(names)]],
        ),
        form(call, "osf", "add"),
        form(call, "vm", "edit", whom=names, filter_words=["-f", f"name in ({','.join(names)})"]),
        tagging(call, proposed={"tag": "default", "expire-soft": "now", "expire-hard": "now + 1 day"}),
        importing(qa, call, proposed={"expire-soft": "now", "expire-hard": "foo"}),
        Properties(call, "vm", title="Properties", whom=names, filter_words=WEB_1),
        Message("Long", "\n".join(names), hint="Do something. " * 10, call=("vm", "list")),
    ]


@pytest.mark.parametrize("size", SIZES)
async def test_buttons_can_be_seen_on_every_screen(
    qa: Installation, call: Recorder, size: tuple[int, int]
) -> None:
    for name in range(12):
        staged(qa, f"{name}.tar")
    for dialog in every(qa, call):
        async with acting(dialog, size=size) as actor:
            await asyncio.sleep(0.6)
            await actor.pilot.pause()
            screen = actor.screen.region
            assert screen.contains_region(actor.screen.query_one("#box").region), dialog
            for push in actor.screen.query(Push):
                if push.display:
                    assert push.region.height == 1, dialog
                    assert screen.contains_region(push.region), dialog
                    assert actor.shows(push.label)


async def test_a_poor_terminal_gets_ascii_alone(call: Recorder) -> None:
    async with acting(stop(dangerous=True), glyphs=ASCII) as actor:
        box = actor.screen.query_one("#box").region
        lines = actor.text.splitlines()[box.y : box.bottom]
        assert "".join(lines).isascii()
