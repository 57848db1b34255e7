"""Moving tags: whom it concerns is shown before anything happens."""

from __future__ import annotations

from appliance.qa.calls import verb_of
from appliance.tui.dialogs.tagging import Tagging
from tests.support.dialog_calls import (
    Gate,
    Recorder,
    tagging,
    tags,
    vms,
)
from tests.support.dialogs import acting
from tests.support.qa import Installation


async def test_a_tag_shows_whom_it_concerns_before_it_moves(aged: Installation, call: Recorder) -> None:
    async with acting(tagging(call, choices={"tag": ["default"]})) as actor:
        assert actor.shows("Whom it concerns is told here.")
        await actor.press("down")
        await actor.until(lambda: actor.shows("1 desktop of 1 person, 1 in use, would boot two"))
        assert actor.shows("web-1")
        assert actor.shows("◉ connected")
        assert "default" in (await tags(aged))[1], "nothing has moved yet"
        assert call.changes == []
        await actor.press("tab", "tab")
        await actor.write("now + 2 days")
        await actor.press("enter")
        outcome = await actor.done()
    assert outcome.line == "DI tagged"
    assert "default" in (await tags(aged))[2]
    (vm,) = await vms(aged)
    assert vm.runtime.vm_expiration_hard is not None


async def test_a_tag_that_concerns_nobody_says_so(aged: Installation, call: Recorder) -> None:
    async with acting(tagging(call)) as actor:
        await actor.write("pilot")
        await actor.until(lambda: actor.shows("No desktop is concerned."))


async def test_a_tag_that_is_refused_says_why_before_it_is_tried(aged: Installation, call: Recorder) -> None:
    async with acting(tagging(call)) as actor:
        await actor.write("head")
        await actor.until(lambda: actor.shows("ead "))
        await actor.until(lambda: "Whom it concerns" not in actor.text)
        assert not actor.shows("desktops of")
    assert call.changes == []


async def test_a_rehearsal_of_what_is_written_no_more_is_given_up(aged: Installation) -> None:
    gate = Gate(aged, "--dry-run")
    dialog = Tagging(gate, "di", verb_of("di", "tag"), title="Tag", button="Tag", each=[{"di_id": "2"}])
    async with acting(dialog) as actor:
        await actor.write("default")
        await actor.until(gate.begun.is_set)
        await actor.press("end", "ctrl+u")
        await actor.until(lambda: gate.given_up)
        assert actor.shows("Whom it concerns is told here.")


async def test_the_newest_move_is_taken_back(aged: Installation, call: Recorder) -> None:
    assert (await call(["di", "tag", "di_id=2", "tag=default"])).ok
    undo = Tagging(
        call,
        "di",
        verb_of("di", "tag --undo"),
        title="Roll back",
        button="Roll back",
        fixed={"osf": "desktop"},
    )
    async with acting(undo) as actor:
        assert actor.shows("$ qa di tag --undo osf=desktop")
        await actor.until(lambda: actor.shows("The tag default of the OSF desktop would point at DI 1 (one)"))
        assert actor.shows("1 desktops in use run that, and would have no limits any more.")
        await actor.press("enter")
        assert (await actor.done()).ok
    assert "default" in (await tags(aged))[1]
