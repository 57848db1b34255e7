"""How the TUI behaves: getting about, help, palette, quitting, rubbish in names, terminals of any size."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.binding import Binding
from textual.command import CommandPalette
from textual.widgets import Input

from appliance.tui import themes
from appliance.tui.app import PANES
from appliance.tui.panes.base import TablePane
from tests.support.tui import Seat, seated
from tests.support.tui_office import Office, nothing_changes

# Getting about


async def test_digits_and_names_lead_to_every_pane(office: Office) -> None:
    async with seated(office) as seat:
        for number, pane in enumerate(PANES, 1):
            await seat.press(str(number))
            assert isinstance(seat.app.pane, pane)
            assert seat.app.focused is not None, "keys go nowhere"
        await seat.press(str(len(PANES) + 1))
        assert seat.app.pane is None
        await seat.shown("No console is open")
        for pane in PANES:
            await seat.press("colon")
            await seat.write(pane.title.lower()[:3])
            await seat.press("enter")
            assert isinstance(seat.app.pane, pane)
        await seat.press("colon")
        await seat.write("cons")
        await seat.press("enter")
        assert seat.app.pane is None
        await seat.press("colon", "escape", "escape")
        await seat.until(lambda: seat.app.pane is not None)
        await seat.press("2", "colon")
        await seat.write("nowhere [/]")
        await seat.press("enter")
        await seat.until(lambda: "There is no pane" in seat.notices)
        assert isinstance(seat.app.pane, TablePane)
        await seat.press("colon")
        await seat.write("us")
        await seat.press("escape", "j")
        assert seat.here == "desk-1", "keys go to the table again"


async def test_every_action_and_every_pane_is_in_the_palette(office: Office) -> None:
    async with seated(office) as seat:
        commands = {command.title: command for command in seat.app.get_system_commands(seat.app.screen)}
        for pane in PANES:
            assert f"Go to {pane.title}" in commands
            for action in pane.actions:
                assert commands[f"{pane.title}: {action.title}"].help.startswith(f"{action.key}: ")
        await seat.press("ctrl+p")
        await seat.until(lambda: isinstance(seat.app.screen, CommandPalette))
        await seat.write("Users: Disable")
        await seat.shown("Lets users log in no more")
        with nothing_changes(office):
            await seat.press("down", "enter")
            await seat.until(lambda: seat.app.pane is not None and seat.app.pane.name_ == "users")
            await seat.until(lambda: "x: with the row at the cursor" in seat.notices)
            assert not seat.asks, "nobody has seen the rows yet"
            await seat.until(lambda: seat.rows)
            await seat.press("ctrl+p")
            await seat.until(lambda: isinstance(seat.app.screen, CommandPalette))
            await seat.write("Users: Disable")
            await seat.shown("Lets users log in no more")
            await seat.press("down", "enter")
            await seat.until(lambda: not isinstance(seat.app.screen, CommandPalette))
            await seat.asked()
            await seat.shown("Disable 1 user?")
            await seat.press("escape")
            await seat.answered()


async def test_help_names_every_key_of_every_pane(office: Office) -> None:
    shown = {"slash": "/", "less_than_sign": "<", "greater_than_sign": ">", "equals_sign": "="}
    async with seated(office, size=(120, 60)) as seat:
        for number, pane in enumerate(PANES, 1):
            await seat.press(str(number), "question_mark")
            await seat.asked()
            words = str(seat.app.screen.query_one("#text Static").render()).split()
            text = " ".join(words)
            for action in pane.actions:
                assert action.key in words, action.name
                assert action.doc in text
            for binding in pane.BINDINGS:
                if not isinstance(binding, Binding) or binding.action.startswith("app.act("):
                    continue
                key = binding.key.split(",")[0]
                assert shown.get(key, key) in words, f"{key} {binding.description} is not in the help"
            await seat.press("q")
            await seat.answered()
            assert seat.app.is_running, "q in a dialog closes the dialog"


async def test_no_key_of_a_pane_hides_one_that_works_everywhere(office: Office) -> None:
    async with seated(office) as seat:
        everywhere = {
            key
            for binding in type(seat.app).BINDINGS
            if isinstance(binding, Binding)
            for key in binding.key.split(",")
        }
        hidden = {(pane.name_, one.key) for pane in PANES for one in pane.actions if one.key in everywhere}
        assert hidden <= {("images", "y")}


async def test_the_log_of_commands_opens_and_closes(office: Office) -> None:
    async with seated(office) as seat:
        for name in ("desk-0", "desk-1", "lab-0"):
            await seat.point(name)
            await seat.press("s")
            await seat.until(lambda: seat.log[-1:] and seat.log[-1].ok)
        assert seat.text.count("$ qa vm start") == 1
        await seat.press("l")
        await seat.until(lambda: seat.text.count("$ qa vm start") == 3)
        await seat.press("l")
        await seat.until(lambda: seat.text.count("$ qa vm start") == 1)


async def test_names_are_copied(office: Office) -> None:
    async with seated(office) as seat:
        await seat.mark("desk-1", "desk-3")
        await seat.press("y")
        assert seat.app.clipboard == "desk-1\ndesk-3"
        await seat.go("users")
        await seat.press("y")
        assert seat.app.clipboard == "alice"


async def test_a_theme_is_kept_over_a_restart(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    other = list(themes.NAMES)[-1]
    async with seated(office, remembered=file) as seat:
        assert seat.app.theme != other
        commands = {command.title: command for command in seat.app.get_system_commands(seat.app.screen)}
        commands[f"Theme {other}"].callback()
        await seat.settle()
        assert seat.app.theme == other
    async with seated(office, remembered=file) as seat:
        assert seat.app.theme == other


# Quitting


@pytest.mark.parametrize("key", ["q", "ctrl+q"])
async def test_quitting_touches_no_desktop(office: Office, key: str) -> None:
    with nothing_changes(office):
        async with seated(office) as seat:
            await seat.mark("desk-2", "desk-4")
            seat.strike(key)
            await seat.until(lambda: not seat.app.is_running)
        assert seat.app.return_code in {0, None}


async def test_ctrl_c_quits_only_when_it_is_pressed_twice(office: Office) -> None:
    with nothing_changes(office):
        async with seated(office) as seat:
            await seat.press("ctrl+c")
            await seat.until(lambda: "Press ctrl-c again" in seat.notices)
            assert seat.app.is_running
            seat.strike("ctrl+c")
            await seat.until(lambda: not seat.app.is_running)


async def test_ctrl_c_in_a_filter_or_a_dialog_hurts_nothing(office: Office) -> None:
    with nothing_changes(office):
        async with seated(office) as seat:
            await seat.press("slash", "a", "ctrl+c")
            assert seat.app.is_running
            await seat.press("escape")
            await seat.point("desk-2")
            await seat.press("x")
            await seat.asked()
            await seat.press("ctrl+c")
            await seat.answered()
            assert seat.app.is_running
            assert seat.log == []


# Rubbish

RUBBISH = (
    "[bold]x[/bold]",
    "[/]",
    "[@click=app.exit]quit[/]",
    "\x1b]0;owned\x07name",
    "\x1b[31mred\x1b[2J",
    "鈴木一郎の机" * 5,
    "a" * 64,
    "e\u0301" * 20,
    "\u202egpj.exe",
    "tab\there",
    "line\nend",
    "$error",
    "$(reboot)",
    "👩‍👩‍👧‍👦 family",
    "",
)


async def test_names_of_any_kind_are_shown_as_text_in_every_pane(office: Office) -> None:
    for number, name in enumerate(RUBBISH, 1):
        if number <= 11:
            office.sql("UPDATE vms SET name = ? WHERE id = ?", name, number)
        if number <= 6:
            office.sql("UPDATE users SET login = ? WHERE id = ?", name, number)
        if number <= 3:
            office.sql("UPDATE osfs SET name = ? WHERE id = ?", name, number)
        if number <= 4:
            office.sql("UPDATE hosts SET name = ? WHERE id = ?", name, number)
        office.sql("UPDATE dis SET notes = ?, version = ? WHERE id = ?", name, f"{name}{number}", number)
        office.sql("INSERT INTO configs VALUES (?, ?)", f"site.x{number}", name)
        office.sql(
            "INSERT INTO events (at, \"by\", what, object, was, now) VALUES ('2026-01-02', ?, ?, ?, ?, ?)",
            *[name] * 5,
        )
        office.sql(
            "INSERT INTO alarms (kind, object, text, raised, last, count) "
            "VALUES ('pool', ?, ?, '2026-01-02 03:04:05', '2026-01-02 03:04:05', 1)",
            name,
            name,
        )
    office.sql(
        "UPDATE vm_runtimes SET failure = ?, failure_cause = 'image', failures = 1 WHERE vm_id < 3",
        RUBBISH[2],
    )
    async with seated(office, size=(160, 40)) as seat:
        for pane in PANES:
            await seat.press(str(PANES.index(pane) + 1))
            await seat.until(lambda: isinstance(seat.app.pane, pane))  # noqa: B023
            if not isinstance(seat.app.pane, TablePane):
                await seat.shown("Latest events")
                continue
            await seat.until(lambda: seat.rows)
            for _ in range(min(8, len(seat.rows))):
                await seat.press("down")
            await seat.press("asterisk", "y", "escape")
            text = seat.text
            assert "\x1b" not in text
            assert "\x07" not in text
        assert seat.app.is_running


async def test_a_tag_tells_of_desktops_of_any_name(office: Office) -> None:
    for number, name in enumerate(RUBBISH[:11], 1):
        office.sql("UPDATE vms SET name = ? WHERE id = ?", name, number)
        office.sql("UPDATE users SET login = ? WHERE id = ?", name, number)
    async with seated(office, "images") as seat:
        await seat.point("office v3")
        await seat.press("t")
        await seat.asked()
        await seat.write("default")
        await seat.shown("4 desktops of 2 people")
        assert "[bold]x" in seat.text
        assert "\x1b" not in seat.text
        await seat.press("escape")
        await seat.answered()


async def test_an_action_on_a_name_of_any_kind_hits_that_desktop(office: Office) -> None:
    wishes = "SELECT vm_id FROM vm_runtimes WHERE vm_cmd = 'start'"
    async with seated(office) as seat:
        for number, name in enumerate(RUBBISH[:7]):
            office.sql("UPDATE vms SET name = ? WHERE id = 2", name)
            await seat.until(lambda: seat.vm(name).id == 2 if has(seat, name) else False)  # noqa: B023
            seat.table.set_cursor(2)
            with nothing_changes(office):
                for key in ("E", "t", "p", "enter", "x", "D") if not name.isprintable() else ("E", "D"):
                    await seat.press(key)
                    if key not in {"enter", "x"}:
                        await seat.asked()
                    assert "\x1b" not in seat.text
                    assert "\x07" not in seat.text
                    await seat.press("escape")
                    await seat.answered()
            await seat.press("s")
            line = await seat.done(2 * number + 1)
            assert line.ok, line
            assert office.sql(wishes) == [(2,)]
            await seat.until(lambda: seat.app.site.tally.vms[2].cmd == "start")
            await seat.press("x")
            await seat.asked()
            await seat.press("y")
            await seat.done(2 * number + 2)
            assert office.sql(wishes) == []
            await seat.until(lambda: seat.app.site.tally.vms[2].cmd is None)
            assert "\x1b" not in seat.text


def has(seat: Seat, name: str) -> bool:
    """Whether the TUI knows a desktop of this name."""
    return any(vm.name == name for vm in seat.app.site.tally.vms.values())


async def test_a_name_that_nobody_can_write_can_be_typed_to_delete_it(office: Office) -> None:
    office.sql("UPDATE vms SET name = ? WHERE id = 2", RUBBISH[3])
    async with seated(office) as seat:
        seat.table.set_cursor(2)
        await seat.press("D")
        await seat.asked()
        assert "\x1b" not in seat.text
        await seat.write("]0;owned name")
        await seat.press("enter")
        assert (await seat.done()).ok
        assert (
            len(office.sql("SELECT id FROM vms WHERE id <> 2")) == len(office.sql("SELECT id FROM vms")) == 10
        )


@pytest.mark.parametrize("size", [(20, 5), (1, 1), (300, 8)])
async def test_any_size_of_terminal_is_borne(office: Office, size: tuple[int, int]) -> None:
    async with seated(office, size=(80, 24)) as seat:
        await seat.point("desk-2")
        for number in range(1, len(PANES) + 2):
            await seat.press(str(number))
            await seat.resize(*size)
            for key in ("down", "G", "g", "enter", "slash", "escape", "escape"):
                seat.strike(key)
            await seat.settle()
            await seat.resize(80, 24)
        await seat.go("vms")
        for key in ("x", "e", "p", "f2", "f3", "question_mark", "D"):
            await seat.point("desk-1" if key == "D" else "desk-2")
            await seat.press(key)
            await seat.asked()
            await seat.resize(*size)
            await seat.press("tab", "down")
            await seat.resize(80, 24)
            await seat.press("escape")
            await seat.answered()
        assert seat.here == "desk-1"
        await seat.shown("desk-1")
        assert seat.log == []


async def test_an_answer_that_comes_after_its_row_was_deleted_is_told(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-1")
        await seat.press("D")
        await seat.asked()
        await office.elsewhere("vm", "del", "-f", "name=desk-1")
        await seat.until(lambda: "desk-1" not in {vm.name for vm in seat.app.site.tally.vms.values()})
        with nothing_changes(office):
            assert isinstance(seat.app.focused, Input)
            await seat.write("desk-1")
            await seat.press("enter")
            await seat.answered()
            await seat.until(lambda: "desk-1: gone by now" in seat.notices)
        assert seat.log == []
        assert office.names("true") >= {"desk-0", "desk-2"}
