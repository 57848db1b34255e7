"""The first picture is what Textual draws in its place: the same text in the same colours."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pyte
import pytest
from rich.console import Console
from textual._compositor import CompositorUpdate
from textual.app import App, ComposeResult
from textual.content import Content

from appliance.storage.live import VmLine
from appliance.tui import themes
from appliance.tui.columns import Scene
from appliance.tui.first_picture import COLOURLESS, LOOKS, SCROLLBAR, SORT, Office, picture
from appliance.tui.glyphs import ASCII, FULL, Glyphs
from appliance.tui.opening import look_of
from appliance.tui.summary import summary
from appliance.tui.tally import Tally
from appliance.tui.view import VM_COLUMNS
from appliance.tui.widgets.bars import HintBar, TabBar, TopBar
from appliance.tui.widgets.record_table import RecordTable

NOW = datetime(2026, 11, 28, 10, tzinfo=UTC)
SIZES = ((80, 24), (120, 40), (200, 60))


def desktop(number: int, **others: Any) -> VmLine:
    values: dict[str, Any] = dict.fromkeys(VmLine._fields)
    values |= {
        "id": number,
        "name": f"desk-{number}",
        "user": "alice",
        "osf": "office",
        "backend": "lxc",
        "tag": "default",
        "state": "stopped",
        "phase": "stopped",
        "restart": 0,
        "user_state": "disconnected",
        "next_di_id": 2,
        "next_di": "2026-11",
        "postponed": 0,
        "asked": 0,
        "blocked": 0,
        "failures": 0,
    }
    return VmLine(**(values | others))


def office_of(count: int) -> dict[int, VmLine]:
    runs = {"state": "running", "phase": "running/monitoring", "state_ts": "2026-11-27 08:00:00", "di_id": 1}
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {**runs, "di": "2026-10", "soft": "2026-11-28 10:30:00", "hard": "2026-11-28 10:59:00"},
        {**runs, "di": "2026-10", "user_state": "connected", "real_user": "bruno"},
        {"failure": "it ended", "failures": 2, "blocked": 1, "block_cause": "image"},
        {"state": "zombie", "phase": "zombie/reaping"},
        {"name": "設計部のとても長い名前のデスクトップその一", "user": "鈴木"},
        {"name": "d" * 60, "waits_for": "memory"},
        {"state": "starting", "phase": "starting/awaiting-vma"},
    )
    return {number: desktop(number, **kinds[number % len(kinds)]) for number in range(1, count + 1)}


class Same(App[None]):
    """What the TUI draws around and in its first table."""

    CSS = "Screen { background: $background; layout: vertical; }"

    def __init__(self, vms: dict[int, VmLine], glyphs: Glyphs, theme: str, *, read_only: bool) -> None:
        super().__init__()
        self.console = Console(
            file=io.StringIO(), color_system="truecolor", force_terminal=True, legacy_windows=False
        )
        self._vms, self._glyphs, self._read_only = vms, glyphs, read_only
        themes.register(self)
        self.theme = theme

    def compose(self) -> ComposeResult:
        yield TopBar()
        yield TabBar()
        columns = [column for column in VM_COLUMNS if not column.optional]
        yield RecordTable(columns, self._glyphs, lambda: Scene(NOW, self._glyphs), sort=SORT)
        yield HintBar()

    def on_mount(self) -> None:
        table: RecordTable[VmLine] = self.query_one(RecordTable)
        table.empty = ""
        table.replace(self._vms)
        table.focus()
        room = self.size.width - 2
        told = summary("node1", None, Tally(self._vms), self._glyphs, read_only=self._read_only, room=room)
        self.query_one(TopBar).tell(Content.assemble(*told))


def cells(screen: pyte.Screen, lines: range, columns: int) -> list[list[tuple[str, ...]]]:
    """What is on lines of a screen, with its colours; those of blanks do not show, but for their ground."""
    shown: list[list[tuple[str, ...]]] = []
    for y in lines:
        row = [screen.buffer[y][x] for x in range(columns)]
        shown.append(
            [
                (cell.data, cell.bg) if cell.data == " " else (cell.data, cell.fg, cell.bg, str(cell.bold))
                for cell in row
            ]
        )
    return shown


async def compared(
    size: tuple[int, int], theme: str, glyphs: Glyphs, count: int, *, read_only: bool = False
) -> None:
    """Draw both, and compare them."""
    vms = office_of(count)
    ours, theirs = pyte.Screen(*size), pyte.Screen(*size)
    office = Office(
        tally=Tally(vms),
        node="node1",
        read_only=read_only,
        scene=Scene(NOW, glyphs),
        columns=(),
        look=LOOKS[theme],
        width=size[0],
        height=size[1],
    )
    drawn = picture(office)
    pyte.Stream(ours).feed(drawn)
    assert ours.display[-1].strip() == ""
    app = Same(vms, glyphs, theme, read_only=read_only)
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.1)
        update = app.screen._compositor.render_update(full=True)
        assert isinstance(update, CompositorUpdate)
        pyte.Stream(theirs).feed(update.render_segments(app.console))
    table = range(2, size[1] - 1)
    without_scrollbar = size[0] - SCROLLBAR
    assert "alice" in "".join(theirs.display)
    for y in range(size[1]):
        if y != 1:
            length = size[0] if y in {0, size[1] - 1} else without_scrollbar
            assert ours.display[y][:length] == theirs.display[y][:length]
    assert cells(ours, range(1), size[0]) == cells(theirs, range(1), size[0])
    assert cells(ours, table, without_scrollbar) == cells(theirs, table, without_scrollbar)
    assert ours.buffer[1][size[0] - 1].bg == theirs.buffer[1][size[0] - 1].bg
    assert ours.buffer[size[1] - 1][0].bg == theirs.buffer[size[1] - 1][0].bg


@pytest.mark.parametrize("theme", LOOKS)
async def test_colours_are_those_of_the_theme(theme: str) -> None:
    await compared((120, 40), theme, FULL, 60)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [5, 300])
async def test_rows_stand_where_they_will_be(size: tuple[int, int], count: int) -> None:
    await compared(size, "qvd-dark", FULL, count)


async def test_poor_terminals_get_ascii_and_who_looks_is_told_so() -> None:
    await compared((200, 60), "qvd-dark", ASCII, 30, read_only=True)


@pytest.mark.parametrize("size", [(39, 24), (80, 7)])
def test_where_there_is_no_room_nothing_is_drawn(size: tuple[int, int]) -> None:
    office = Office(
        tally=Tally(office_of(3)),
        node="node1",
        read_only=False,
        scene=Scene(NOW),
        columns=(),
        look=COLOURLESS,
        width=size[0],
        height=size[1],
    )
    assert picture(office) == ""


def test_colours_are_sent_only_where_there_are_any() -> None:
    rich = {"COLORTERM": "truecolor"}
    assert look_of("qvd-light", rich) is LOOKS["qvd-light"]
    assert look_of("nord", rich) is COLOURLESS
    assert look_of("qvd-light", {}) is COLOURLESS
    assert look_of("qvd-light", {**rich, "NO_COLOR": "1"}) is COLOURLESS
    assert set(LOOKS) | {"textual-ansi", "ansi-dark", "ansi-light"} >= set(themes.NAMES)
