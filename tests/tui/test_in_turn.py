"""Keys that come in one packet, as over a slow line, do what they would do one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from textual.widgets import Input

from appliance.tui import in_turn
from appliance.tui.dialogs.form import VerbForm
from appliance.tui.panes.base import TablePane
from appliance.tui.panes.users import UsersPane
from appliance.tui.site import Site
from tests.support.console_bench import arrived
from tests.support.console_desk import VM, ConsoleApp, Daemon, daemon, painted, until
from tests.support.tui import Seat, key_event, seated
from tests.support.tui_office import Office

T = TypeVar("T")


@pytest.fixture(autouse=True)
def endless_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is dealt with only because another took too long."""
    monkeypatch.setattr(in_turn, "PATIENCE_S", 3600.0)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with daemon(tmp_path, VM) as made:
        yield made


async def at_once(seat: Seat, *keys: str) -> None:
    """Press keys faster than anything can come of them."""
    for key in keys:
        seat.strike(key)
    await seat.settle()


def filtered(seat: Seat) -> str:
    """What the pane is filtered by."""
    assert isinstance(seat.app.pane, TablePane)
    return seat.app.pane.filter_bar.text


async def test_the_letters_of_a_filter_are_no_actions(office: Office) -> None:
    async with seated(office) as seat:
        await seat.go("vms")
        await at_once(seat, "slash", *"desk", "minus", "2")
        await seat.until(lambda: seat.rows == ["desk-2"])
        assert filtered(seat) == "desk-2"
        assert (seat.log, seat.asks, seat.notices) == ([], False, "")


async def test_what_follows_a_filter_goes_to_the_rows(office: Office) -> None:
    async with seated(office) as seat:
        await seat.go("vms")
        await at_once(seat, "slash", *"lab", "enter", "j", "space", "e")
        await seat.asked()
        assert filtered(seat) == "lab"
        assert (seat.rows, seat.marked) == (["lab-0", "lab-1", "lab-2"], {"lab-1"})
        await seat.shown("lab-1")


async def test_a_pane_is_gone_to_by_its_name(office: Office) -> None:
    async with seated(office) as seat:
        await seat.go("vms")
        await at_once(seat, "colon", *"users", "enter")
        await seat.until(lambda: seat.app.pane is not None and seat.app.pane.name_ == "users")
        assert seat.log == []


async def test_what_is_typed_after_an_action_goes_to_its_form(office: Office) -> None:
    """A form is made from what is read first."""
    async with seated(office, "users") as seat:
        await at_once(seat, "a", *"zoe")
        form = seat.app.screen
        assert isinstance(form, VerbForm)
        assert [field.text for field in form.fields][:2] == ["zoe", ""]


async def test_what_is_typed_after_an_action_answers_its_question(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-0")
        await at_once(seat, "D", *"desk", "minus", "0")
        assert seat.asks
        assert seat.app.screen.query_one(Input).value == "desk-0"
        assert seat.log == []


def slowly(look: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """The same, and later than keys come."""

    async def waiting(*of: object) -> T:
        await asyncio.sleep(0.5)
        return await look(*of)

    return waiting


async def test_a_pane_has_its_rows_before_the_cursor_moves(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UsersPane, "fetch", slowly(UsersPane.fetch))
    async with seated(office) as seat:
        await at_once(seat, "3", "j")
        assert seat.here == seat.rows[1]


async def test_keys_that_come_before_the_first_rows_wait_for_them(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Site, "read", slowly(Site.read))
    async with seated(office, pane=None) as seat:
        await at_once(seat, "j", "space")
        assert seat.marked == {seat.rows[1]}


class Preparing(ConsoleApp):
    """An app in which something is prepared for ever."""

    prepares = False

    @property
    def is_preparing(self) -> bool:
        return self.prepares


async def test_patience_is_lost_once_for_each_thing_that_is_prepared(desk: Daemon) -> None:
    app, line = Preparing(desk.control), desk.lines[VM]
    async with app.run_test(size=(80, 24)) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.company.you_write)
        for _ in range(2):
            app.prepares = True
            app.post_message(key_event("a").set_sender(app))
            await until(pilot, lambda: app.turns.busy)
            assert line.typed() == b""
            app.turns._lose_patience(app.turns._number)
            assert await arrived(line, b"a") == b"a"
            for key in ("b", "c"):
                app.post_message(key_event(key).set_sender(app))
                assert await arrived(line, key.encode()) == key.encode()
            app.prepares = False
            app.post_message(key_event("x").set_sender(app))
            assert await arrived(line, b"x") == b"x"


async def test_a_dialog_that_was_left_keeps_no_key_back(office: Office) -> None:
    async with seated(office) as seat:
        await seat.go("vms")
        await seat.point("desk-0")
        await seat.press("e")
        await seat.asked()
        await at_once(seat, "escape", "j", "j")
        await seat.answered()
        assert seat.here == "desk-2"


async def test_every_way_of_leaving_ends_a_key_of_its_own(office: Office) -> None:
    """Whatever is removed while a key is under way, the next is not waited for."""
    async with seated(office) as seat:
        await seat.go("vms")
        for opens in ("question_mark", "e", "v", "ctrl+p", "slash", "colon"):
            await at_once(seat, opens)
            await at_once(seat, "escape")
        await seat.answered()
        await seat.point("desk-0")
        await at_once(seat, *"jj")
        assert seat.here == "desk-2"


async def test_a_search_in_a_console_is_not_told_to_the_guest(desk: Daemon) -> None:
    app, line = ConsoleApp(desk.control), desk.lines[VM]
    async with app.run_test(size=(80, 24)) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.company.you_write)
        line.print(b"".join(b"%03d\r\n" % number for number in range(300)))
        await until(pilot, lambda: any(row.startswith("299") for row in painted(app.terminal)))
        for key in ("l", "s", "ctrl+right_square_bracket", "slash", *"042", "enter"):
            app.post_message(key_event(key).set_sender(app))
        await until(pilot, lambda: any(row.startswith("042") for row in painted(app.terminal)))
        assert line.typed() == b"ls"
