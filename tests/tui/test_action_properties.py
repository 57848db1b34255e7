"""The editor of properties of the TUI, for every kind of object that has some."""

from __future__ import annotations

import pytest
from textual.app import App

from appliance.tui.dialogs.field import Answer
from appliance.tui.dialogs.properties import Properties, Property
from tests.support.tui import seated, twin_words
from tests.support.tui_office import Office, comparable, nothing_changes

PROPERTIES = (
    ("vms", ("lab-1",), "vm_properties"),
    ("vms", ("desk-0", "desk-1"), "vm_properties"),
    ("users", ("alice",), "user_properties"),
    ("images", ("office v3",), "di_properties"),
    ("images", ("lab",), "osf_properties"),
    ("hosts", ("spare", "spare2"), "host_properties"),
)


@pytest.mark.parametrize(("pane", "rows", "table"), PROPERTIES)
async def test_properties_are_set_changed_and_deleted(
    office: Office, copy: Office, pane: str, rows: tuple[str, ...], table: str
) -> None:
    before = office.sql(f"SELECT key, value FROM {table}")
    async with seated(office, pane) as seat:
        await seat.choose(*rows)

        async def opened() -> Properties:
            await seat.press("p")
            await seat.asked()
            dialog = seat.app.screen
            assert isinstance(dialog, Properties)
            await seat.until(
                lambda: all(worker.is_finished for worker in seat.app.workers if worker.group == "read")
            )
            await seat.until(lambda: isinstance(seat.app.focused, Answer))
            return dialog

        with nothing_changes(office):
            await opened()
            await seat.write("floor=2")
            await seat.press("escape")
            await seat.answered()
        assert seat.log == []
        dialog = await opened()
        dialog._new.answer.focus()
        await seat.write("floor")
        with nothing_changes(office):
            await seat.press("ctrl+s")
            await seat.shown("Write it as key=value")
        await seat.write("=2")
        await seat.press("ctrl+s")
        await seat.answered()
        await seat.done()
        expected = sorted([*before, *[("floor", "2")] * len(rows)])
        assert sorted(office.sql(f"SELECT key, value FROM {table}")) == expected

        if len(rows) > 1:
            await seat.mark(*rows) if not seat.marked else None
        dialog = await opened()
        field = next(one for one in dialog.query(Property) if one.key == "floor")
        assert field.text == "2"
        field.answer.focus()
        await seat.settle()
        await seat.press("ctrl+d", "ctrl+s")
        await seat.answered()
        await seat.done(2)
        assert sorted(office.sql(f"SELECT key, value FROM {table}")) == sorted(before)
        twins = [twin_words(line) for line in seat.log]
    for words in twins:
        await copy.elsewhere(*words)
    assert comparable(office.tables()) == comparable(copy.tables())


async def test_a_property_has_its_answer_before_it_is_on_the_screen() -> None:
    async with App[None]().run_test():
        assert Property("room", "12", ()).text == "12"
        assert not Property("room", "12", ()).is_changed
        assert Property("room", "12", (), added=True).is_changed
