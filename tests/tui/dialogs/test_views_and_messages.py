"""Saved views, and what is told in a dialog."""

from __future__ import annotations

from appliance.tui.calls import Outcome
from appliance.tui.dialogs.choices import Columns, Views
from appliance.tui.dialogs.message import Message
from appliance.tui.remembered import SavedView
from appliance.tui.view import VM_COLUMNS
from tests.support.dialogs import acting


async def test_a_view_that_replaces_another_is_said_to() -> None:
    mine = SavedView(pane="vms", name="mine")
    async with acting(Views([mine], mine)) as actor:
        await actor.press("tab")
        await actor.write("min")
        assert not actor.shows("it is replaced")
        await actor.write("e")
        await actor.until(lambda: actor.shows("There is a view of this name: it is replaced."))


async def test_what_is_written_while_the_list_has_the_focus_is_a_name() -> None:
    mine = SavedView(pane="vms", name="mine")
    async with acting(Views([mine], mine)) as actor:
        await actor.write("my own")
        await actor.press("enter")
        assert await actor.done() == (SavedView(pane="vms", name="my own"), False)


async def test_space_on_cancel_cancels() -> None:
    mine = SavedView(pane="vms", name="mine")
    async with acting(Views([mine], mine)) as actor:
        await actor.press("tab", "tab", "space")
        assert await actor.done() is None


async def test_a_table_has_a_column() -> None:
    async with acting(Columns(VM_COLUMNS, [VM_COLUMNS[0].key])) as actor:
        await actor.press("space", "enter")
        await actor.until(lambda: actor.shows("One at least must be chosen."))
        await actor.press("space", "enter")
        assert await actor.done() == (VM_COLUMNS[0].key,)


async def test_ctrl_c_copies_what_is_selected_and_else_leaves() -> None:
    mine = SavedView(pane="vms", name="mine")
    async with acting(Views([mine], mine)) as actor:
        await actor.write("own")
        await actor.press("shift+home", "ctrl+c")
        await actor.until(lambda: actor.stage.clipboard == "own")
        await actor.press("end", "ctrl+c")
        assert await actor.done() is None


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
