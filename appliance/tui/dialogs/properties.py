"""The editor of properties: the keys and values of one object, or of several at once.

Nothing is written before it is meant: what was changed is sent as one `propset` and one `propdel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Input, Static

from appliance.tui.calls import Calls, Outcome
from appliance.tui.dialogs.confirm import named
from appliance.tui.dialogs.dialog import Dialog, Item, Push, Twin, glyphs_of
from appliance.tui.dialogs.field import Field, Question

NEW = "new"
FEW = 3


class Properties(Dialog[Outcome | None]):
    """The properties of the objects that `filter_words` choose; its result is the last call's outcome."""

    KEYS = "tab next · ctrl+d delete · enter save · esc leave"
    SCROLLS = "#fields"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save", show=False),
        Binding("ctrl+d", "delete", "Delete", show=False, priority=True),
    ]
    DEFAULT_CSS = """
    Properties {
        #whom { height: auto; max-height: 3; margin-bottom: 1; }
        #fields { height: auto; scrollbar-size-vertical: 1; }
        #new { height: auto; margin-top: 1; }
        #problem { height: auto; margin-top: 1; display: none; }
        #help { height: 1; margin-top: 1; color: $text-muted; }
        Field.-gone > .line > .label { text-style: strike; color: $text-error; }
    }
    """

    def __init__(
        self, call: Calls, noun: str, *, title: str, whom: Sequence[str], filter_words: Sequence[str]
    ) -> None:
        super().__init__(title)
        self.call = call
        self.noun = noun
        self._whom = list(whom)
        self._filter_words = list(filter_words)
        self._gone: set[str] = set()
        self._busy = False
        self._new = Field(Question(name=NEW, shape="key=value"))

    def body(self) -> ComposeResult:
        """The properties that there are, and a line for another one."""
        yield Static(named(self._whom), id="whom")
        with VerticalScroll(id="fields", can_focus=False):
            yield Static("…", id="none", classes="muted")
        with Vertical(id="new"):
            yield self._new
        yield Vertical(id="problem")
        yield Static("Filters find them as property.KEY; ctrl+d deletes one.", id="help")
        yield Twin()

    def buttons(self) -> ComposeResult:
        """Cancel, and save."""
        yield Push("Cancel", id="cancel")
        yield Push("Save", id="do", kind="main")

    def on_mount(self) -> None:
        self.begin(self._read, "read")

    def calls(self) -> list[list[str]]:
        """What saving would call."""
        changed = [f"{field.key}={field.text}" for field in self._kept() if field.is_changed]
        calls = []
        if changed:
            calls.append([self.noun, "propset", *changed, *self._filter_words])
        if self._gone:
            calls.append([self.noun, "propdel", *sorted(self._gone), *self._filter_words])
        return calls

    def on_field_changed(self, event: Field.Changed) -> None:
        """Show the commands."""
        event.stop()
        self._changed()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take another property in, or save."""
        event.stop()
        if event.input is self._new.answer and self._new.text:
            self.begin(partial(self._take_in, self._new), "take")
        else:
            self.action_save()

    def pressed(self, name: str) -> None:
        """Save."""
        self.action_save()

    def action_delete(self) -> None:
        """Delete the property that has the focus, or keep it after all."""
        for field in self._properties():
            if field.answer.has_focus:
                self._gone ^= {field.key}
                field.set_class(field.key in self._gone, "-gone")
                field.tell("is deleted when you save" if field.key in self._gone else None)
        self._changed()

    def action_save(self) -> None:
        """Write what was changed."""
        if not self._busy:
            self.begin(self._save, "save")

    async def _read(self) -> None:
        outcome = await self.call([self.noun, "propget", "-o", "json", *self._filter_words])
        if not self.is_open:
            return
        if not outcome.ok:
            self._show_problem(outcome.err.strip(), outcome.hint)
            return
        found = by_key(outcome.json, len(self._whom))
        area = self.query_one("#fields", VerticalScroll)
        none = self.query_one("#none", Static)
        none.update("No property is set yet.")
        none.display = not found
        for key, (value, different) in sorted(found.items()):
            await area.mount(Property(key, value, different))
        first = next(iter(self._properties()), None)
        (first or self._new).answer.focus()
        self._changed()

    async def _take_in(self, new: Field) -> None:
        key, equals, value = new.text.partition("=")
        key = key.strip()
        if not equals or not key:
            new.tell("Write it as key=value.")
            return
        there = next((field for field in self._properties() if field.key == key), None)
        if there is None:
            there = Property(key, "", (), added=True)
            await self.query_one("#fields", VerticalScroll).mount(there)
            self.query_one("#none", Static).display = False
        there.answer.value = value.strip()
        new.answer.value = ""
        self._changed()

    async def _save(self) -> None:
        new = self._new
        if new.text:
            await self._take_in(new)
            if new.problem:
                new.answer.focus()
                return
        calls = self.calls()
        if not calls:
            self._show_problem("Nothing is changed yet.", None)
            return
        self._busy = True
        outcome = Outcome(words=(), status=0)
        for words in calls:
            outcome = await self.call(words)
            if not outcome.ok:
                break
        self._busy = False
        if not self.is_open:
            return
        if outcome.ok:
            self.dismiss(outcome)
        else:
            self._show_problem(outcome.err.strip(), outcome.hint)

    def _properties(self) -> list[Property]:
        return list(self.query(Property))

    def _kept(self) -> list[Property]:
        return [field for field in self._properties() if field.key not in self._gone]

    def _changed(self) -> None:
        self.query_one("#problem").display = False
        self.query_one(Twin).tell(self.calls())
        self.call_after_refresh(self.fit)

    def _show_problem(self, problem: str, hint: str | None) -> None:
        area = self.query_one("#problem", Vertical)
        area.display = True
        area.remove_children()
        area.mount(Item(glyphs_of(self.app).wrong, problem, "wrong"))
        if hint:
            area.mount(Item(glyphs_of(self.app).chevron, hint, "muted"))
        self.call_after_refresh(self.fit)


class Property(Field):
    """A property: its key, and its value; where objects differ, the values that they have."""

    def __init__(self, key: str, value: str, different: Sequence[str], *, added: bool = False) -> None:
        super().__init__(Question(name=key, title=key, value=value))
        self.key = key
        self._different = list(different)
        self._added = added

    def on_mount(self) -> None:
        if self._different:
            some = ", ".join(self._different[:FEW])
            more = ", …" if len(self._different) > FEW else ""
            self.answer.placeholder = f"they differ: {some}{more}"

    @property
    def is_changed(self) -> bool:
        """Whether it is new, or has another value than now."""
        return self._added or super().is_changed


def by_key(rows: Sequence[Mapping[str, Any]], objects: int) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The value of each key, or where the objects differ, no value and all that there are."""
    values: dict[str, list[str]] = {}
    for row in rows:
        values.setdefault(str(row["key"]), []).append(str(row["value"]))
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for key, several in values.items():
        different = sorted(set(several))
        absent = ["(none)"] if len(several) < objects else []
        found[key] = (several[0], ()) if len(different) == 1 and not absent else ("", (*different, *absent))
    return found
