"""What a table leaves undrawn is right: the terminal shows what drawing all of it anew would."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyte
import pytest
from rich.console import Console
from textual._compositor import CompositorUpdate
from textual.app import App, ComposeResult
from textual.screen import Screen

from appliance.tui.columns import Column, Scene
from appliance.tui.glyphs import FULL
from appliance.tui.widgets.record_table import RecordTable

SIZE = (60, 14)


class Thing(NamedTuple):
    name: str
    state: str
    size: int


COLUMNS: tuple[Column[Thing], ...] = (
    Column(
        key="name",
        title="Name",
        cell=lambda thing, scene: (thing.name, "strong"),
        sort=lambda thing: thing.name,
        least=8,
        most=20,
    ),
    Column(
        key="state",
        title="State",
        cell=lambda thing, scene: (thing.state, "good" if thing.state == "up" else "bad"),
        sort=lambda thing: thing.state,
        least=6,
        most=12,
    ),
    Column(
        key="size",
        title="Size",
        cell=lambda thing, scene: (str(thing.size + scene.now.second), "plain"),
        sort=lambda thing: thing.size,
        least=5,
        most=5,
        right=True,
    ),
)


class TableApp(App[None]):
    """A table, and the terminal that shows what it sends."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(
            file=io.StringIO(), color_system="truecolor", force_terminal=True, legacy_windows=False
        )
        self.scene = Scene(datetime(2026, 11, 28, tzinfo=UTC))
        self.terminal = pyte.Screen(*SIZE)
        self.sent: list[str] = []
        self._stream = pyte.Stream(self.terminal)

    def compose(self) -> ComposeResult:
        yield RecordTable(COLUMNS, FULL, lambda: self.scene, sort="name")

    @property
    def table(self) -> RecordTable[Thing]:
        return self.query_one(RecordTable)

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        """Nothing is written while nobody sees an app: so we take what would be."""
        super()._display(screen, renderable)
        if isinstance(renderable, CompositorUpdate):
            self.sent.append(renderable.render_segments(self.console))
            self._stream.feed(self.sent[-1])

    def shown(self) -> list[str]:
        """What the terminal shows, with its colours."""
        buffer = self.terminal.buffer
        return [
            "".join(
                f"{cell.data}{cell.fg}{cell.bg}{cell.bold}"
                for cell in (buffer[y][x] for x in range(SIZE[0] - 1))
            )
            for y in range(SIZE[1])
        ]

    def anew(self) -> list[str]:
        """What it would show if everything were drawn again."""
        table = self.table
        table._looks.clear()
        table._kept.clear()
        table._drawn.clear()
        self.terminal.reset()
        self._display(self.screen, self.screen._compositor.render_update(full=True))
        return self.shown()


@pytest.mark.parametrize("seed", range(3))
async def test_the_terminal_shows_what_drawing_it_all_would(seed: int) -> None:
    dice = random.Random(seed)
    app = TableApp()
    things = {number: Thing(f"thing-{number:02}", "up", number) for number in range(40)}

    def some() -> dict[int, Thing]:
        keys = dice.sample(sorted(things), 3)
        return {
            key: things[key]._replace(state=dice.choice(["up", "down", "待機"]), size=dice.randint(0, 99))
            for key in keys
        }

    async with app.run_test(size=SIZE) as pilot:
        app.table.replace(things)
        app.table.focus()
        await pilot.pause(0.04)
        for _ in range(40):
            match dice.randrange(9):
                case 0:
                    changed = some()
                    things |= changed
                    app.table.apply(changed)
                case 1:
                    gone = dice.sample(sorted(things), 1)
                    app.table.apply({}, gone)
                    del things[gone[0]]
                case 2:
                    key = dice.randrange(100, 10_000)
                    things[key] = Thing(f"thing-{dice.randrange(99):02}", "up", 1)
                    app.table.apply({key: things[key]})
                case 3:
                    app.scene = Scene(app.scene.now.replace(second=dice.randrange(60)))
                    app.table.repaint()
                case 4:
                    app.table.sort_by(dice.choice(["name", "state", "size"]), reverse=dice.random() < 0.5)
                case 5:
                    app.table.show(
                        dice.choice([None, lambda thing: thing.state == "up", lambda thing: thing.size % 2])
                    )
                case 6:
                    app.set_focus(None if app.table.has_focus else app.table)
                case _:
                    await pilot.press(*dice.choices(["j", "k", "space", "pagedown", "G", "g", "V"], k=3))
            await pilot.pause(0.04)
            shown = app.shown()
            assert any("thing" in line for line in app.terminal.display) or not len(app.table.listing)
            assert shown == app.anew()
            assert app.table.chosen or not len(app.table.listing)


async def test_a_change_out_of_sight_sends_nothing_and_one_in_sight_its_row() -> None:
    app = TableApp()
    things = {number: Thing(f"thing-{number:02}", "up", number) for number in range(40)}
    async with app.run_test(size=SIZE) as pilot:
        app.table.replace(things)
        await pilot.pause(0.04)
        app.sent.clear()
        app.table.apply({39: things[39]._replace(state="down")})
        await pilot.pause(0.04)
        assert app.sent == []
        app.table.apply({2: things[2]._replace(state="down")})
        await pilot.pause(0.04)
        assert "thing-02" in "".join(app.sent)
        assert "down" in "".join(app.sent)
        assert "thing-03" not in "".join(app.sent)


@pytest.mark.parametrize("change", [{39: Thing("thing-39", "up", -1)}, {99: Thing("thing-99", "up", -1)}])
async def test_rows_that_come_above_the_view_send_nothing_but_the_scrollbar(change: dict[int, Thing]) -> None:
    app = TableApp()
    things = {number: Thing(f"thing-{number:02}", "up", number) for number in range(40)}
    async with app.run_test(size=SIZE) as pilot:
        app.table.replace(things)
        app.table.sort_by("size")
        app.table.set_cursor(30)
        await pilot.pause(0.04)
        assert app.table.scroll_offset.y > 0
        await pilot.pause(0.04)
        app.sent.clear()
        app.table.apply(change)
        await pilot.pause(0.04)
        assert app.sent
        assert "thing" not in "".join(app.sent)
        assert app.table.current == things[30]
