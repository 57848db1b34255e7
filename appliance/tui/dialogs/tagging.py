"""The form for tags: beside what is written stands whom it concerns, as a rehearsal of the verb tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rich.cells import cell_len, set_cell_size
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from appliance.harmless import printable
from appliance.model import UserState
from appliance.tui.actions import count
from appliance.tui.calls import Outcome
from appliance.tui.dialogs.dialog import glyphs_of
from appliance.tui.dialogs.form import VerbForm
from appliance.tui.glyphs import Glyphs

PAUSE_S = 0.3
"""How long nothing must be written before a rehearsal begins."""
MOST = 200
"""How many desktops are named."""
NAME, USER, PRESENCE = 20, 14, 14
CONNECTED = {UserState.CONNECTING, UserState.CONNECTED}

Row = Mapping[str, Any]
WAITING = Content.styled("Whom it concerns is told here.", "not bold $foreground-muted")


class Tagging(VerbForm):
    """A form of `di tag`, `di untag` or `di tag --undo`, with the desktops that it would concern."""

    SCROLLS = "#concerned"
    DEFAULT_CSS = """
    Tagging {
        #box { width: 100; }
        #fields { max-height: 8; }
        #summary { height: auto; margin-top: 1; text-style: bold; }
        #concerned { height: auto; scrollbar-size-vertical: 1; }
        #rows { height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
        #help { height: 1; }
    }
    """

    _pause: Timer | None = None
    _rehearsed: tuple[tuple[str, ...], ...] | None = None
    _rows: Sequence[Row] = ()
    _told: Sequence[str] = ()
    """What a rehearsal says beside whom it concerns."""
    _heading: Content | None = WAITING

    def on_mount(self) -> None:
        self._versions: dict[int, str] = {}
        super().on_mount()
        self.begin(self._learn_versions, "versions")

    def beneath(self) -> ComposeResult:
        """The desktops concerned."""
        yield Static("", id="summary")
        with VerticalScroll(id="concerned", can_focus=False):
            yield Static("", id="rows")

    def changed(self) -> None:
        """Rehearse what is written now, unless more is written at once; what was written before is past."""
        self.workers.cancel_group(self, "rehearsal")
        if self._pause is not None:
            self._pause.stop()
        self._pause = self.set_timer(PAUSE_S, self._rehearse)

    def _rehearse(self) -> None:
        calls = tuple(tuple(words) for words in self.calls_left())
        if calls == self._rehearsed:
            return
        self._rehearsed = None
        if self.problems() or any(field.problem for field in self.fields) or self._lacks_something():
            self._tell(WAITING, ())
            return
        self.begin(partial(self._ask, calls), "rehearsal")

    def _lacks_something(self) -> bool:
        return any(field.question.required and not field.text for field in self.fields)

    async def _ask(self, calls: tuple[tuple[str, ...], ...]) -> None:
        rows: list[Row] = []
        told: list[str] = []
        for words in calls:
            outcome = await self.call([*words, "--dry-run", "-o", "json"])
            if not outcome.ok:
                self._tell(_failure(outcome), ())
                return
            rows += outcome.json
            if self.verb.name.endswith("--undo"):
                told += outcome.notes[:-1]  # the last one counts what is shown here
        self._rehearsed, self._told = calls, told
        self._tell(None, rows)

    async def _learn_versions(self) -> None:
        """How images are called by people."""
        outcome = await self.call(["di", "list", "-o", "json"])
        if outcome.ok:
            self._versions = {row["id"]: row["version"] for row in outcome.json if row["version"]}
            self._show_rows()

    def _tell(self, heading: Content | None, rows: Sequence[Row]) -> None:
        self._heading, self._rows = heading, rows
        self._show_rows()

    def _show_rows(self) -> None:
        if not self.is_open:
            return
        rows, glyphs = self._rows, glyphs_of(self.app)
        heading = self._heading
        if heading is None:
            said = [Content.styled(printable(line), "$text-primary") for line in self._told]
            heading = Content("\n").join([*said, summary(rows, self._versions)])
        self.query_one("#summary", Static).update(heading)
        differ = len({row["next_di_id"] for row in rows}) > 1
        lines = [line(row, self._versions, glyphs, then=differ) for row in rows[:MOST]]
        if len(rows) > MOST:
            lines.append(Content.styled(f"and {len(rows) - MOST:,} more", "$foreground-muted"))
        self.query_one("#rows", Static).update(Content("\n").join(lines))
        self.query_one("#concerned", VerticalScroll).display = bool(lines)
        self.call_after_refresh(self.fit)


def summary(rows: Sequence[Row], versions: Mapping[int, str]) -> Content:
    """How many desktops, of how many people, how many are in use, and where they all would go."""
    if not rows:
        return Content("No desktop is concerned.")
    people = len({row["user"] for row in rows})
    connected = sum(row["user_state"] in CONNECTED for row in rows)
    targets = {row["next_di_id"] for row in rows}
    desktops = f"{count(len(rows), 'desktop')} of {count(people, 'person', 'people')}, "
    in_use = (f"{connected:,} in use", "bold $text-warning" if connected else "")
    if len(targets) > 1:
        return Content.assemble(desktops, in_use)
    (target,) = targets
    if target is None:
        return Content.assemble(desktops, in_use, ", would find ", ("no image", "bold $text-error"))
    return Content.assemble(
        desktops, in_use, ", would boot ", (_image(target, versions, ""), "bold $text-success")
    )


def line(row: Row, versions: Mapping[int, str], glyphs: Glyphs, *, then: bool) -> Content:
    """A desktop that is concerned, and what it runs; with `then`, also what it would boot."""
    present = row["user_state"] in CONNECTED
    presence = f"{glyphs.person} {row['user_state']}" if present else ""
    target = row["next_di_id"]
    return Content.assemble(
        (_cut(str(row["name"]), NAME, glyphs.ellipsis), "bold"),
        _cut(str(row["user"]), USER, glyphs.ellipsis),
        (_cut(presence, PRESENCE + 1, glyphs.ellipsis), "$text-warning"),
        (_image(row["current_di_id"], versions, "stopped"), "$foreground-muted"),
        (f" {glyphs.chevron} ", "$foreground-muted") if then else "",
        (_image(target, versions, "no image"), "$text-error" if target is None else "") if then else "",
    )


def _failure(outcome: Outcome) -> Content:
    text = printable(outcome.err.strip())
    hint = f" ({printable(outcome.hint)})" if outcome.hint else ""
    return Content.assemble(
        (f"{text[:1].upper()}{text[1:]}", "bold $text-error"), (hint, "not bold $foreground-muted")
    )


def _image(number: int | None, versions: Mapping[int, str], none: str) -> str:
    return none if number is None else printable(versions.get(number, f"image {number}"))


def _cut(text: str, width: int, ellipsis: str) -> str:
    text = printable(text)
    if cell_len(text) > width - 1:
        text = set_cell_size(text, width - 2) + ellipsis
    return set_cell_size(text, width)
