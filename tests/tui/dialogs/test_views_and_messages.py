"""Saved views, and what is told in a dialog."""

from __future__ import annotations

from appliance.tui.calls import Outcome
from appliance.tui.dialogs.choices import Views
from appliance.tui.dialogs.message import Message
from appliance.tui.remembered import SavedView
from tests.support.dialogs import acting


async def test_a_view_that_replaces_another_is_said_to() -> None:
    mine = SavedView(pane="vms", name="mine")
    async with acting(Views([mine], mine)) as actor:
        await actor.press("tab")
        await actor.write("min")
        assert not actor.shows("it is replaced")
        await actor.write("e")
        await actor.until(lambda: actor.shows("There is a view of this name: it is replaced."))


async def test_a_failure_tells_what_helps() -> None:
    failed = Outcome(words=("vm", "start"), status=1, err="there is no image", hint="qa di add")
    async with acting(Message.of("Start", failed)) as actor:
        for text in ("there is no image", "qa di add", "$ qa vm start"):
            assert actor.shows(text)
        await actor.press("q")
        assert await actor.done() is None


async def test_a_long_text_scrolls() -> None:
    async with acting(Message("Log", "\n".join(f"line {number}" for number in range(500)))) as actor:
        assert actor.shows("line 3")
        assert actor.shows("Close")
        await actor.press("end")
        assert actor.shows("line 499")
        assert not actor.shows("line 3\n")
