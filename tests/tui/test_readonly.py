"""`--readonly`: nothing that anybody presses, chooses or writes changes a row."""

from __future__ import annotations

import random

import pytest
from textual.widgets import Input

from appliance.tui.app import PANES
from appliance.tui.panes.base import TablePane
from tests.support.tui import seated
from tests.support.tui_office import Office, nothing_changes

SEEDS = (1, 2, 3)
PRESSES = 350
KEYS = (
    *"abcdefghijklmnoprstuvwxyzABCDEFGHIJKLMNOPRSTUVWXYZ123456789/:?<>=*,.[]-+ ",
    *("enter", "escape", "tab", "shift+tab", "up", "down", "left", "right", "pageup", "pagedown"),
    *(
        "home",
        "end",
        "space",
        "backspace",
        "delete",
        "ctrl+a",
        "ctrl+s",
        "ctrl+d",
        "ctrl+p",
        "f1",
        "f2",
        "f3",
    ),
    *("shift+up", "shift+down", "ctrl+l", "ctrl+right_square_bracket"),
)


async def test_no_action_of_any_pane_changes_anything(office: Office) -> None:
    async with seated(office, read_only=True) as seat:
        assert "[read only]" in seat.text
        with nothing_changes(office):
            for pane in PANES:
                await seat.press(str(PANES.index(pane) + 1))
                await seat.until(lambda: isinstance(seat.app.pane, pane))  # noqa: B023
                if isinstance(seat.app.pane, TablePane):
                    await seat.until(lambda: seat.rows)
                for action in pane.actions:
                    if not action.changes:
                        continue
                    await seat.press(action.key)
                    assert not seat.asks, action.name
            await seat.go("vms")
            await seat.press("asterisk", "s", "x", "D")
            assert not seat.asks
        assert seat.log == []
        assert "only reads" in seat.notices


async def test_the_palette_and_the_help_offer_nothing_that_changes(office: Office) -> None:
    async with seated(office, read_only=True) as seat:
        commands = {command.title for command in seat.app.get_system_commands(seat.app.screen)}
        for pane in PANES:
            for action in pane.actions:
                assert (f"{pane.title}: {action.title}" in commands) == (not action.changes), action.name
        await seat.press("question_mark")
        await seat.asked()
        assert "Console" in seat.text
        assert "Deletes stopped desktops" not in seat.text


async def test_an_action_called_by_its_name_is_refused_too(office: Office) -> None:
    async with seated(office, read_only=True) as seat:
        with nothing_changes(office):
            for action in type(seat.app.pane).actions:  # type: ignore[union-attr]
                if action.changes:
                    seat.app.act(action)
            await seat.settle()
            await seat.settle()
            assert not seat.asks
        assert seat.log == []


@pytest.mark.parametrize("seed", SEEDS)
async def test_keys_at_random_change_nothing_and_break_nothing(office: Office, seed: int) -> None:
    chance = random.Random(seed)
    async with seated(office, read_only=True, size=(80, 24)) as seat:
        with nothing_changes(office):
            for number in range(PRESSES):
                if number % 40 == 0:
                    await seat.press("escape", "escape", str(chance.randint(1, len(PANES) + 1)))
                key = chance.choice(KEYS)
                if key == "q" and not isinstance(seat.app.focused, Input):
                    continue
                seat.strike(key)
                if number % 5 == 0:
                    await seat.settle()
                assert seat.app.is_running
                assert seat.app._exception is None
        for _ in range(4):
            await seat.press("escape")
        await seat.go("vms")
        await seat.until(lambda: len(seat.table.listing.records) == 11)
        assert seat.log == [] or all(
            line.command.startswith(("qa vm log", "qa home list")) for line in seat.log
        )
