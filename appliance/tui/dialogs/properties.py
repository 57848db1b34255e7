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

from appliance.config import is_secret
from appliance.harmless import printable
from appliance.tui.calls import Calls, Outcome
from appliance.tui.dialogs.confirm import named
from appliance.tui.dialogs.dialog import Push, Twin
from appliance.tui.dialogs.field import Field, Question
from appliance.tui.dialogs.working import WorkingDialog
from appliance.tui.facts import HIDDEN

NEW = "new"
FEW = 3


class Properties(WorkingDialog):
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
        super().__init__(call, title)
        self.noun = noun
        self._whom = list(whom)
        self._filter_words = list(filter_words)
        self._gone: set[str] = set()
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
        """Delete the property that has the focus, or keep it after all; a new one just goes away."""
        for field in self._properties():
            if not field.answer.has_focus:
                continue
            if field.is_new:
                self._new.answer.focus()
                field.remove()
            else:
                self._delete(field, field.key not in self._gone)
        self.call_after_refresh(self._changed)

    def _delete(self, field: Property, deleted: bool) -> None:
        (self._gone.add if deleted else self._gone.discard)(field.key)
        field.set_class(deleted, "-gone")
        field.tell("is deleted when you save" if deleted else None)

    def action_save(self) -> None:
        """Write what was changed."""
        if not self.is_busy:
            self.begin(self._save, "save")

    async def _read(self) -> None:
        outcome = await self.call([self.noun, "propget", "-o", "json", *self._filter_words])
        if not self.is_open:
            return
        if not outcome.ok:
            self.show_problem(outcome.err, outcome.hint)
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
        if not equals or not key or key.startswith("-"):
            new.tell("Write it as key=value; a key does not begin with a dash.")
            return
        there = next((field for field in self._properties() if field.key == key), None)
        if there is None:
            there = Property(key, "", (), added=True)
            await self.query_one("#fields", VerticalScroll).mount(there)
            self.query_one("#none", Static).display = False
        self._delete(there, False)
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
            self.show_problem("nothing is changed yet")
            return
        outcome = Outcome(words=(), status=0)
        with self.working():
            for words in calls:
                outcome = await self.call(words)
                if not outcome.ok:
                    break
        if not self.is_open:
            return
        if outcome.ok:
            self.dismiss(outcome)
        else:
            self.show_problem(outcome.err, outcome.hint)

    def _properties(self) -> list[Property]:
        return list(self.query(Property))

    def _kept(self) -> list[Property]:
        return [field for field in self._properties() if field.key not in self._gone]

    def _changed(self) -> None:
        self.hide_problem()
        self.query_one(Twin).tell(self.calls())
        self.call_after_refresh(self.fit)


class Property(Field):
    """A property: its key, and its value; where objects differ, the values that they have."""

    def __init__(self, key: str, value: str, different: Sequence[str], *, added: bool = False) -> None:
        secret = is_secret(key)
        super().__init__(Question(name=key, title=key, value="" if secret else value, secret=secret))
        self.key = key
        self.is_new = added
        """Whether it is not stored yet."""
        shown = [HIDDEN] if secret else [printable(one) for one in different[:FEW]]
        more = ", …" if len(different) > FEW and not secret else ""
        if different:
            self.answer.placeholder = f"they differ: {', '.join(shown)}{more}"
        elif secret:
            self.answer.placeholder = HIDDEN

    @property
    def is_changed(self) -> bool:
        """Whether it is new, or has another value than now."""
        return self.is_new or super().is_changed


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
