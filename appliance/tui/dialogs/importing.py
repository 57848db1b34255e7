"""The import of an image: which file, into which OSF, and then how far it is.

The import belongs to the app, not to the dialog: it may go on while the dialog is closed, and says at its end
how it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import Worker

from appliance.clock import Calendar, SystemClock, Timers
from appliance.config import PATH_STORAGE_STAGING, Settings
from appliance.harmless import printable
from appliance.qa.verbs import Verb
from appliance.threads import in_thread
from appliance.tui.calls import Calls, Outcome
from appliance.tui.dialogs import times
from appliance.tui.dialogs.dialog import Push, glyphs_of
from appliance.tui.dialogs.form import HARD, SOFT, VerbForm

ASKED = ("path", "osf", "version", "notes", SOFT, HARD, "delete")
SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
LONGEST = 40
"""Cells of a name that others are aligned with."""
LEAST_S = 1.0
"""After how long a speed is told."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file in the staging directory."""

    name: str
    size: int
    """Bytes."""
    changed: datetime


class Importing(VerbForm):
    """The form of `di add`; its result is the outcome, or nothing if the import goes on without us."""

    DEFAULT_CSS = """
    Importing {
        #where { height: 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
        #files {
            height: auto; max-height: 6; border: none; padding: 0; background: $surface;
            margin-bottom: 1; scrollbar-size-vertical: 1;
            &:focus { border: none; }
        }
        #under-way { height: auto; display: none; }
        #under-way > Static { height: auto; }
        #file { text-style: bold; margin-bottom: 1; }
        #far { color: $text-muted; }
        #stop { display: none; }
        &.-importing {
            #under-way, #stop { display: block; }
            #where, #files, #fields, #help, #do { display: none; }
        }
        #files.-empty { display: none; }
    }
    """
    BAR: ClassVar[int] = 60
    """Cells of the bar."""

    def __init__(
        self,
        call: Calls,
        verb: Verb,
        *,
        settings: Settings,
        title: str = "Import an image",
        fixed: Mapping[str, str] | None = None,
        proposed: Mapping[str, str] | None = None,
        choices: Mapping[str, Sequence[str]] | None = None,
        calendar: Calendar | None = None,
        timers: Timers | None = None,
    ) -> None:
        super().__init__(
            call,
            "di",
            verb,
            title=title,
            button="Import",
            fixed=fixed,
            proposed=proposed,
            choices=choices,
            only=ASKED,
            calendar=calendar,
        )
        self._stopwatch = timers or SystemClock()
        self._staging = settings[PATH_STORAGE_STAGING]
        self._candidates: list[Candidate] = []
        self._worker: Worker[None] | None = None
        self._ended = asyncio.Event()
        self._outcome: Outcome | None = None
        self._gone = False
        self._bytes = 0
        self._begun: tuple[str, float, float] = ("", 0.0, 0.0)
        self._cancelling = False

    def above(self) -> ComposeResult:
        """The files that wait in the staging directory; how far it is, once it is under way."""
        yield Static("Looking into the staging directory …", id="where")
        files = OptionList(id="files", classes="-empty", compact=True, markup=False)
        files.can_focus = False
        yield files
        with Vertical(id="under-way"):
            yield Static(id="file")
            yield Static(id="bar")
            yield Static(id="far")

    def buttons(self) -> ComposeResult:
        """Those of a form, and one that gives up what is under way."""
        yield Push("Cancel the import", id="stop", kind="danger")
        yield from super().buttons()

    def on_mount(self) -> None:
        super().on_mount()
        self.begin(self._look, "staging")

    def changed(self) -> None:
        """Point at the file that is written."""
        self._point()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if field := self.field("path"):
            field.answer.value = self._candidates[event.option_index].name
            field.answer.focus()

    def pressed(self, name: str) -> None:
        """Import, or give up what is under way."""
        if name != "stop":
            self.action_submit()
        elif self._worker is not None and not self._cancelling:
            self._cancelling = True
            self.query_one("#far", Static).update("Cancelling, and removing what was copied …")
            self._worker.cancel()

    def action_leave(self) -> None:
        """Leave; an import that is under way goes on."""
        if self._worker is not None and not self._ended.is_set():
            self._gone = True
        self.dismiss(None)

    async def run_calls(self) -> Outcome:
        """Import, and show how far it is."""
        (words,) = self.calls()
        self._ended.clear()
        self._outcome = None
        self._cancelling = False
        self._begun = ("", 0.0, 0.0)
        path = self.field("path")
        await self._show_stage(path.text if path else "")
        self._worker = self.app.run_worker(partial(self._import, words), group="import", exclusive=False)
        await self._ended.wait()
        self._worker = None
        if not self.is_open:
            return self._outcome or Outcome(words=tuple(words), status=1)
        self.set_class(False, "-importing")
        self.query_one("#cancel", Push).relabel("Cancel")
        self.call_after_refresh(self.fit)
        assert self._outcome is not None
        return self._outcome

    async def _import(self, words: Sequence[str]) -> None:
        """The work of the app: it ends by itself, whoever looks on."""
        try:
            self._outcome = await self.call(words, progress=self._progress)
        except asyncio.CancelledError:
            self._outcome = Outcome(
                words=tuple(words), status=1, err="the import was cancelled", hint="nothing of it is left"
            )
            raise
        finally:
            self._ended.set()
        if self._gone:
            self.app.notify(
                self._outcome.line,
                title="Import",
                severity="information" if self._outcome.ok else "error",
                markup=False,
            )

    async def _show_stage(self, path: str) -> None:
        self._bytes = await in_thread(_size, self._staging, path)
        self.set_class(True, "-importing")
        self.query_one("#file", Static).update(Content(f"{printable(Path(path).name)}  {size(self._bytes)}"))
        self._draw("beginning", 0.0)
        leave = self.query_one("#cancel", Push)
        leave.relabel("Leave it running")
        leave.focus()
        self.keys("esc leave it running")
        self.call_after_refresh(self.fit)

    def _progress(self, step: str, share: float) -> None:
        if not self._gone and self.is_open and not self._cancelling:
            self._draw(step, share)

    def _draw(self, step: str, share: float) -> None:
        now = self._stopwatch.monotonic()
        if step != self._begun[0]:
            self._begun = (step, share, now)
        glyphs = glyphs_of(self.app)
        full = round(share * self.BAR)
        self.query_one("#bar", Static).update(
            Content.assemble(
                (glyphs.bar * full, "$text-success"),
                (glyphs.bar_rest * (self.BAR - full), "$foreground-disabled"),
                (f" {share:4.0%}", "bold"),
            )
        )
        self.query_one("#far", Static).update(Content(printable(self._how_far(step, share, now))))

    def _how_far(self, step: str, share: float, now: float) -> str:
        first, elapsed = self._begun[1], now - self._begun[2]
        parts = [f"{step}: {size(share * self._bytes)} of {size(self._bytes)}"]
        if elapsed >= LEAST_S and share > first:
            speed = (share - first) / elapsed
            parts.append(f"{size(speed * self._bytes)}/s")
            parts.append(f"{(1 - share) / speed:,.0f} s left")
        return ", ".join(parts)

    async def _look(self) -> None:
        """List what waits in the staging directory."""
        self._candidates = await in_thread(candidates, self._staging)
        if not self.is_open:
            return
        if field := self.field("path"):
            field.answer.offer([one.name for one in self._candidates])
        found = (
            f"{self._staging}" if self._candidates else f"Nothing waits in {self._staging}; give a full path."
        )
        self.query_one("#where", Static).update(Content(printable(found)))
        files = self.query_one("#files", OptionList)
        width = max((cell_len(one.name) for one in self._candidates), default=0)
        files.add_options([Option(self._line(one, min(width, LONGEST))) for one in self._candidates])
        files.set_class(not self._candidates, "-empty")
        files.highlighted = None
        self._point()
        self.call_after_refresh(self.fit)

    def _line(self, one: Candidate, width: int) -> Content:
        changed = times.shown(one.changed.astimezone(self.now.tzinfo), self.now)
        shown = printable(one.name)
        name = set_cell_size(shown, max(width, cell_len(shown)))
        return Content.assemble(name, (f"  {size(one.size):>9}  {changed}", "$foreground-muted"))

    def _point(self) -> None:
        field = self.field("path")
        names = [one.name for one in self._candidates]
        files = self.query_one("#files", OptionList)
        files.highlighted = names.index(field.text) if field and field.text in names else None


def candidates(staging: Path) -> list[Candidate]:
    """The files in the staging directory, the newest first; none if it cannot be read.

    Those are left out whose names cannot be shown: nobody could choose them.
    """
    found = []
    try:
        for file in staging.iterdir():
            if file.name.startswith(".") or not file.name.isprintable() or not file.is_file():
                continue
            stat = file.stat()
            found.append(Candidate(file.name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)))
    except OSError:
        return found
    return sorted(found, key=lambda one: one.changed, reverse=True)


def size(number: float) -> str:
    """So many bytes, for people."""
    for unit in SIZES:
        if number < 1024 or unit == SIZES[-1]:
            return f"{number:.0f} {unit}" if unit in SIZES[:2] else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError


def _size(staging: Path, path: str) -> int:
    for file in (staging / path, Path(path)):
        try:
            return file.stat().st_size
        except OSError:
            continue
    return 0
