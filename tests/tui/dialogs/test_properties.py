"""Properties of what is marked: set, changed, deleted, and kept secret."""

from __future__ import annotations

from typing import Any

from appliance.tui.dialogs.properties import Properties, Property, by_key
from tests.support.dialog_calls import (
    WEB_1,
    Gate,
    Recorder,
    properties,
)
from tests.support.dialogs import acting
from tests.support.qa import Installation


async def test_properties_are_set_and_deleted(qa: Installation, call: Recorder) -> None:
    assert (await call(["vm", "propset", "room=12", "floor=3", *WEB_1])).ok
    call.calls.clear()
    dialog = Properties(call, "vm", title="Properties", whom=["web-1"], filter_words=WEB_1)
    async with acting(dialog) as actor:
        await actor.until(lambda: actor.shows("floor"))
        await actor.press("ctrl+d", "tab")
        await actor.write("14")
        await actor.press("tab")
        await actor.write("color=red = warm")
        await actor.press("enter")
        await actor.until(lambda: actor.shows("color"))
        assert call.changes == []
        await actor.press("ctrl+s")
        assert (await actor.done()).ok
    assert await properties(qa) == {"room": "14", "color": "red = warm"}


def editor(call: Any) -> Properties:
    """The properties of web-1."""
    return Properties(call, "vm", title="Properties", whom=["web-1"], filter_words=WEB_1)


async def test_properties_that_are_being_saved_cannot_be_left(qa: Installation) -> None:
    gate = Gate(qa, "propset")
    async with acting(editor(gate)) as actor:
        await actor.until(lambda: actor.shows("No property is set yet."))
        await actor.write("room=12")
        await actor.press("ctrl+s")
        await actor.until(gate.begun.is_set)
        await actor.press("escape")
        await actor.until(lambda: actor.shows("It is under way"))
        assert actor.shows("working")
        gate.may_go_on.set()
        assert (await actor.done()).ok
    assert await properties(qa) == {"room": "12"}


async def test_a_property_that_is_written_anew_is_not_deleted(qa: Installation, call: Recorder) -> None:
    assert (await call(["vm", "propset", "room=12", *WEB_1])).ok
    dialog = editor(call)
    async with acting(dialog) as actor:
        await actor.until(lambda: actor.shows("room"))
        await actor.press("ctrl+d", "tab")
        await actor.write("room=14")
        await actor.press("enter")
        await actor.until(lambda: not dialog._new.text)
        await actor.press("ctrl+s")
        assert (await actor.done()).ok
    assert await properties(qa) == {"room": "14"}


async def test_a_new_property_is_taken_out_again(qa: Installation, call: Recorder) -> None:
    async with acting(editor(call)) as actor:
        await actor.until(lambda: actor.shows("No property is set yet."))
        await actor.write("-x=1")
        await actor.press("enter")
        await actor.until(lambda: actor.shows("Write it as key=value"))
        await actor.press("home", "delete", "enter")
        await actor.until(lambda: bool(actor.screen.query(Property)))
        await actor.press("shift+tab", "ctrl+d")
        await actor.until(lambda: not actor.screen.query(Property))
        await actor.press("ctrl+s")
        await actor.until(lambda: actor.shows("Nothing is changed yet."))
    assert call.changes == []


async def test_a_secret_property_can_be_changed_and_is_never_shown(qa: Installation, call: Recorder) -> None:
    assert (await call(["vm", "propset", "db_password=hunter2", *WEB_1])).ok
    async with acting(editor(call)) as actor:
        await actor.until(lambda: actor.shows("db_password"))
        assert actor.shows("***")
        assert not actor.shows("hunter2")
        await actor.press("ctrl+s")
        await actor.until(lambda: actor.shows("Nothing is changed yet."))
        await actor.write("xyzzy")
        assert actor.shows("db_password=…")
        assert not actor.shows("xyzzy")
        await actor.press("ctrl+s")
        assert (await actor.done()).ok
    assert await properties(qa) == {"db_password": "xyzzy"}


async def test_leaving_properties_changes_none(qa: Installation, call: Recorder) -> None:
    assert (await call(["vm", "propset", "room=12", *WEB_1])).ok
    dialog = Properties(call, "vm", title="Properties", whom=["web-1"], filter_words=WEB_1)
    async with acting(dialog) as actor:
        await actor.until(lambda: actor.shows("room"))
        await actor.write("14")
        await actor.press("escape")
        assert await actor.done() is None
    assert await properties(qa) == {"room": "12"}


def test_values_that_differ_are_not_taken_for_one() -> None:
    rows = [
        {"id": 1, "key": "room", "value": "12"},
        {"id": 2, "key": "room", "value": "14"},
        {"id": 1, "key": "floor", "value": "3"},
        {"id": 2, "key": "floor", "value": "3"},
        {"id": 1, "key": "color", "value": "red"},
    ]
    assert by_key(rows, 2) == {
        "room": ("", ("12", "14")),
        "floor": ("3", ()),
        "color": ("", ("red", "(none)")),
    }
