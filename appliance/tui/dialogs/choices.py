"""Two small choices: which columns a table has, and which saved view of it to show, keep or forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.style import Style
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.strip import Strip
from textual.widgets import Input, OptionList, SelectionList, Static
from textual.widgets.option_list import Option

from appliance.harmless import printable
from appliance.tui.columns import Column
from appliance.tui.dialogs.dialog import Dialog, Push
from appliance.tui.remembered import SavedView


class Ticks(SelectionList[str]):
    """A list to tick off, by signs that need no colour and that every terminal has."""

    def render_line(self, y: int) -> Strip:
        """One line, with a box before it."""
        line = super().render_line(y)
        index = self.scroll_offset.y + y
        if index >= self.option_count:
            return line
        is_ticked = self.get_option_at_index(index).value in self.selected
        left, inner, right, *rest = line
        look = (rest[0].style or Style()) + Style(meta=left.style.meta if left.style else None)
        box = zip(("[", "x" if is_ticked else " ", "]"), (left, inner, right), strict=True)
        return Strip([*(segment._replace(text=sign, style=look) for sign, segment in box), *rest])


class Columns(Dialog[tuple[str, ...] | None]):
    """Which columns to show; the result is their keys, none: the usual ones."""

    KEYS = "space choose · enter done · u usual · esc leave"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "done", "Done", show=False, priority=True),
        Binding("u", "usual", "The usual ones", show=False),
    ]
    DEFAULT_CSS = """
    Columns {
        & > #box { width: 56; }
        Ticks { height: auto; max-height: 16; margin-bottom: 1; }
        Ticks, Ticks:focus { border: none; padding: 0; background: $surface; background-tint: 0%; }
    }
    """

    def __init__(self, columns: Sequence[Column[Any]], shown: Sequence[str]) -> None:
        super().__init__("Columns")
        self._columns = columns
        self._shown = set(shown)

    def body(self) -> ComposeResult:
        """A list to choose from."""
        yield Ticks(*((column.title, column.key, column.key in self._shown) for column in self._columns))
        yield Static(
            "Where there is not room for all, the least important are left out.", id="told", classes="muted"
        )

    def buttons(self) -> ComposeResult:
        """Cancel and done."""
        yield Push("Cancel", id="cancel")
        yield Push("Done", id="do", kind="main")

    def on_mount(self) -> None:
        self.query_one(Ticks).focus()

    def pressed(self, name: str) -> None:
        """It is meant."""
        self.action_done()

    def action_done(self) -> None:
        """Show these."""
        if (cancel := self.query_one("#cancel", Push)).has_focus:
            cancel.action_press()
            return
        chosen = set(self.query_one(Ticks).selected)
        if not chosen:
            self.query_one("#told", Static).update("One at least must be chosen.")
            return
        self.dismiss(tuple(column.key for column in self._columns if column.key in chosen))

    def action_usual(self) -> None:
        """Show the usual ones."""
        self.dismiss(())


class Views(Dialog[tuple[SavedView, bool] | None]):
    """Saved views; the result is one, and whether it shall be forgotten. A new name saves the present."""

    KEYS = "enter show or save · del forget · esc leave"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("delete", "forget", "Forget", show=False)]
    DEFAULT_CSS = """
    Views {
        & > #box { width: 60; }
        OptionList { height: auto; max-height: 12; }
        OptionList, OptionList:focus { border: none; padding: 0; background: $surface; background-tint: 0%; }
        Input { margin-top: 1; border: none; height: 1; padding: 0 1; background: $foreground 10%; }
        #there { display: none; }
        Input:focus { background: $foreground 20%; border: none; }
    }
    """

    def __init__(self, views: Sequence[SavedView], present: SavedView) -> None:
        super().__init__("Saved views")
        self._views = list(views)
        self._present = present

    def body(self) -> ComposeResult:
        """The list, and a name for another."""
        if self._views:
            yield OptionList(*(Option(printable(_told(view))) for view in self._views), markup=False)
        else:
            yield Static("None is saved yet.", classes="muted")
        what = "a name, to save how the table looks now"
        yield Input(placeholder=what, max_length=40, compact=True, select_on_focus=False)
        yield Static("There is a view of this name: it is replaced.", id="there", classes="muted")

    def buttons(self) -> ComposeResult:
        """Cancel."""
        yield Push("Cancel", id="cancel")

    def on_mount(self) -> None:
        (self.query_one(OptionList) if self._views else self.query_one(Input)).focus()

    def on_key(self, event: events.Key) -> None:
        """What is written while the list has the focus is a name."""
        if event.is_printable and event.character and isinstance(self.focused, OptionList):
            event.stop()
            field = self.query_one(Input)
            field.focus()
            field.insert_text_at_cursor(event.character)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss((self._views[event.option_index], False))

    @on(Input.Changed)
    def _tell_whether_it_is_there(self, event: Input.Changed) -> None:
        event.stop()
        name = event.value.strip()
        self.query_one("#there").display = any(view.name == name for view in self._views)

    @on(Input.Submitted)
    def _named(self, event: Input.Submitted) -> None:
        event.stop()
        name = event.value.strip()
        if name:
            shown = {field: getattr(self._present, field) for field in SavedView.__dataclass_fields__}
            self.dismiss((SavedView(**{**shown, "name": name}), False))

    def action_forget(self) -> None:
        """Forget the view at the cursor."""
        lists = self.query(OptionList)
        if lists and (at := lists.first().highlighted) is not None:
            self.dismiss((self._views[at], True))


def _told(view: SavedView) -> str:
    """Its name, and what it shows."""
    parts = [view.filter or "all rows"]
    if view.sort:
        parts.append(f"by {view.sort}{' from the end' if view.reverse else ''}")
    return f"{view.name}   {', '.join(parts)}"
