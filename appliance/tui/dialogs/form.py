"""A form for the arguments of a verb: made from the verb's own table, and checked by its own rules.

What the form sends is a `qa` command, shown at its foot as it grows. A failure is shown in the form, and
nothing of what was written is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.events import DescendantFocus
from textual.widgets import Input, Static

from appliance import attime
from appliance.clock import Calendar, SystemClock
from appliance.config import is_secret
from appliance.harmless import printable
from appliance.qa.verbs import Argument, SyntaxErrors, Verb
from appliance.threads import in_thread
from appliance.tui.calls import Calls, Outcome
from appliance.tui.dialogs import times
from appliance.tui.dialogs.confirm import named
from appliance.tui.dialogs.dialog import Push, Twin, drawn
from appliance.tui.dialogs.field import Field, Question
from appliance.tui.dialogs.times import Kind, Meaning
from appliance.tui.dialogs.working import WorkingDialog, sentence

SOFT, HARD = "expire-soft", "expire-hard"
TIMES = (SOFT, HARD)
PASSWORD, AGAIN = "password", "password-again"
OF_PASSWORDS = ("password", "password-file")
FROM_STDIN = "password-file=-"
YES_NO = ("yes", "no")
TICK_S = 5.0
MOST_CHOICES = 8


class VerbForm(WorkingDialog):
    """A form; its result is the outcome of the last call, which was done, or nothing if it was left.

    `fixed` arguments are not asked for. With `each`, there is a call for each of several sets of them. An
    argument in `values` has that value now: it is sent if another is written, and an empty one if it is
    emptied. `proposed` answers are there to begin with. `only` says which arguments are asked for, and in
    which order; `arguments` stands in for those of the verb, where it takes pairs of any name.
    """

    KEYS = "tab next · enter do it · esc leave"
    SCROLLS = "#fields"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s", "submit", "Do it", show=False)]
    DEFAULT_CSS = """
    VerbForm {
        #whom { height: auto; max-height: 3; margin-bottom: 1; }
        #fields { height: auto; scrollbar-size-vertical: 1; }
        #problem { height: auto; margin-top: 1; }
        #help { height: 2; margin-top: 1; color: $text-muted; }
    }
    """

    def __init__(
        self,
        call: Calls,
        noun: str,
        verb: Verb,
        *,
        title: str,
        button: str,
        whom: Sequence[str] = (),
        filter_words: Sequence[str] = (),
        fixed: Mapping[str, str] | None = None,
        each: Sequence[Mapping[str, str]] = ({},),
        values: Mapping[str, str] | None = None,
        proposed: Mapping[str, str] | None = None,
        only: Sequence[str] = (),
        choices: Mapping[str, Sequence[str]] | None = None,
        arguments: Sequence[Argument] = (),
        calendar: Calendar | None = None,
    ) -> None:
        super().__init__(call, title)
        self.noun = noun
        self.verb = verb
        self.calendar = calendar or SystemClock()
        self._button = button
        self._whom = list(whom)
        self._filter_words = list(filter_words)
        self._each = [{**(fixed or {}), **one} for one in each]
        self._done = 0
        self._zone = attime.local_zone(os.environ.get("TZ"))
        self._meanings: dict[str, Meaning] = {}
        names = {name for one in self._each for name in one}
        self.questions = tuple(
            _questions(
                verb, arguments or verb.arguments, only, names, values or {}, proposed or {}, choices or {}
            )
        )

    def body(self) -> ComposeResult:
        """Whom it is about, the fields, and the feet of the form."""
        if self._whom:
            yield Static(named(self._whom), id="whom")
        yield from self.above()
        with VerticalScroll(id="fields", can_focus=False):
            for question in self.questions:
                yield Field(question)
        yield from self.beneath()
        yield Vertical(id="problem")
        yield Static(id="help")
        yield Twin()

    def above(self) -> ComposeResult:
        """What a form of its own kind has above the fields."""
        yield from ()

    def beneath(self) -> ComposeResult:
        """What a form of its own kind has beneath the fields."""
        yield from ()

    def buttons(self) -> ComposeResult:
        """Cancel, and what it does."""
        yield Push("Cancel", id="cancel")
        yield Push(self._button, id="do", kind="main")

    def on_mount(self) -> None:
        self.hide_problem()
        for field in self.fields:
            if field.question.proposed:
                field.check()
        self._changed()
        for field in self.fields:
            self._read_time(field)
        empty = [field for field in self.fields if field.question.required and not field.text]
        if focused := next(iter((*empty, *self.fields)), None):
            focused.answer.focus()
        else:
            self.query_one("#do", Push).focus()
        self.set_interval(TICK_S, self._tick)

    @property
    def fields(self) -> list[Field]:
        """The fields, from top to bottom."""
        return list(self.query(Field))

    def field(self, name: str) -> Field | None:
        """The field of an argument, if it is asked for."""
        return next((field for field in self.fields if field.question.name == name), None)

    @property
    def now(self) -> datetime:
        """The present, here."""
        return self.calendar.now().astimezone(self._zone)

    def arguments(self) -> list[str]:
        """What was answered, as words of a command."""
        words = []
        for field in self.fields:
            if not field.question.by_stdin and (word := field.word):
                words.append(word)
            elif field.question.name == PASSWORD and field.text:
                words.append(FROM_STDIN)
        return words

    def calls(self) -> list[list[str]]:
        """The calls that the form would make, as far as it is filled in."""
        answered = self.arguments()
        return [
            [
                self.noun,
                *self.verb.name.split(" "),
                *(f"{name}={value}" for name, value in fixed.items()),
                *answered,
                *self._filter_words,
            ]
            for fixed in self._each
        ]

    def calls_left(self) -> list[list[str]]:
        """Those that are not done yet: some may be, when another has failed."""
        return self.calls()[self._done :]

    def stdin(self) -> str:
        """What the calls read: the password, if one is asked for."""
        field = self.field(PASSWORD)
        return f"{field.text}\n" if field and field.question.by_stdin and field.text else ""

    def problems(self) -> list[str]:
        """What keeps it from being done, apart from answers that cannot be read."""
        first = self.calls()[0]
        words = first[1 + len(self.verb.name.split(" ")) : len(first) - len(self._filter_words)]
        try:
            self.verb.given(words)
        except SyntaxErrors as exc:
            return [_for_people(error) for error in exc.errors if not error.startswith("argument ")]
        return []

    def on_field_changed(self, event: Field.Changed) -> None:
        """Check what belongs together, and show the command."""
        event.stop()
        self._read_time(event.field)
        self._changed()

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Tell what the field is for."""
        self._explain()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_submit()

    def pressed(self, name: str) -> None:
        """Do it."""
        self.action_submit()

    def action_submit(self) -> None:
        """Do it, if all is well."""
        if not self.is_busy:
            self.begin(self._submit, "submit")

    def changed(self) -> None:
        """Something was written: for forms that show more than the command."""

    async def run_calls(self) -> Outcome:
        """Do what the form is for; an outcome that failed is shown, and the form stays."""
        outcome = Outcome(words=(), status=0)
        for words in self.calls_left():
            outcome = await self.call(words, stdin=self.stdin())
            if not outcome.ok:
                break
            self._done += 1
        return outcome

    def _changed(self) -> None:
        self._check_passwords()
        self.hide_problem()
        self.query_one(Twin).tell(self.calls_left())
        self._explain()
        self.changed()
        self.call_after_refresh(self.fit)

    def _explain(self) -> None:
        field = next((field for field in self.fields if field.answer.has_focus), None)
        if field is None:
            text = Content(self.verb.doc)
        else:
            question = field.question
            must = ("Required. ", "$text-warning") if question.required else ""
            text = Content.assemble(must, sentence(printable(question.doc)))
            if question.choices:
                fitting = field.answer.fitting()[:MOST_CHOICES]
                some = " · ".join(fitting) or "none begins like this"
                text = text + Content.assemble(
                    (drawn(self.app, "  ↑↓ "), "bold $text-primary"), drawn(self.app, some)
                )
        self.query_one("#help", Static).update(text)

    def _check_passwords(self) -> None:
        first, again = self.field(PASSWORD), self.field(AGAIN)
        if first is None or again is None:
            return
        again.tell("The two differ." if again.text and first.text != again.text else None)

    def _read_time(self, field: Field) -> None:
        if not field.question.tells_time:
            return
        name = field.question.name
        self._meanings.pop(name, None)
        if not field.is_changed or not field.text:
            known = times.soon(field.text, self.now, self._zone) if field.text else None
            lifted = "it is lifted" if field.is_changed else ""
            field.explain(known.sentence(self.now) if known and known.instant else lifted)
            return
        if (meaning := times.soon(field.text, self.now, self._zone)) is not None:
            self._understood(field, meaning)
            return
        field.explain("…")
        self.begin(partial(self._read_later, field), f"read-{name}")

    async def _read_later(self, field: Field) -> None:
        text = field.text
        meaning = await in_thread(times.later, text, self.now, self._zone)
        if self.is_open and text == field.text:
            self._understood(field, meaning)

    def _understood(self, field: Field, meaning: Meaning) -> None:
        self._meanings[field.question.name] = meaning
        if meaning.kind is Kind.WRONG:
            field.tell(meaning.reason, place=meaning.place)
        else:
            field.explain(meaning.sentence(self.now), is_sure=meaning.kind is Kind.GOOD)
        self._compare_times()
        self.call_after_refresh(self.fit)

    def _compare_times(self) -> None:
        soft, hard = (self._meanings.get(name) for name in TIMES)
        field = self.field(HARD)
        if not (field and soft and hard and soft.instant and hard.instant):
            return
        if hard.instant < soft.instant:
            field.tell("comes before the soft limit: nobody would be asked")
        else:
            field.explain(hard.sentence(self.now), is_sure=hard.kind is Kind.GOOD)

    def _tick(self) -> None:
        """Let what was written as a distance from now move with it."""
        for field in self.fields:
            meaning = self._meanings.get(field.question.name)
            if meaning is None or meaning.kind is Kind.WRONG:
                continue
            again = times.soon(field.text, self.now, self._zone) if meaning.kind is Kind.GOOD else meaning
            if again is not None:
                self._understood(field, again)

    async def _submit(self) -> None:
        for field in self.fields:
            if field.question.tells_time and field.text and field.is_changed:
                await self._read_later(field)
            if not self.is_open:
                return
        if wrong := self._first_wrong():
            wrong.answer.focus()
            return
        if problems := self.problems():
            self.show_problem(problems[0])
            return
        with self.working():
            outcome = await self.run_calls()
        if not self.is_open:
            return
        if outcome.ok:
            self.dismiss(outcome)
            return
        done = f"{self._done} of {len(self._each)} are done. " if self._done else ""
        self.query_one(Twin).tell(self.calls_left())
        self.show_problem(done + sentence(outcome.err), outcome.hint)

    def _first_wrong(self) -> Field | None:
        again, first = self.field(AGAIN), self.field(PASSWORD)
        for field in self.fields:
            if field.question.required and not field.text:
                field.tell("This is needed.")
        if again and first and first.text != again.text:
            again.tell("The two differ.")
        return next((field for field in self.fields if field.problem), None)


def _questions(
    verb: Verb,
    arguments: Sequence[Argument],
    only: Sequence[str],
    fixed: set[str],
    values: Mapping[str, str],
    proposed: Mapping[str, str],
    choices: Mapping[str, Sequence[str]],
) -> Iterator[Question]:
    """The questions of a form. Of arguments that exclude one another, the first is asked for."""
    by_name = {argument.name: argument for argument in arguments}
    spare = {
        name for group in verb.one_of for place, name in enumerate(group) if place > 0 or fixed & set(group)
    }
    names = only or [name for name in by_name if name not in spare]
    asks_password = False
    for name in names:
        if name in fixed:
            continue
        if name in OF_PASSWORDS:
            if not asks_password:
                asked = Question(name=PASSWORD, required=True, secret=True, by_stdin=True)
                yield replace(asked, doc="nobody sees it as it is written")
                yield replace(asked, name=AGAIN, doc="the same again")
            asks_password = True
            continue
        argument = by_name[name]
        yield Question(
            name=name,
            doc=argument.doc,
            shape=argument.shape,
            parse=argument.parse,
            required=argument.required or any(name == group[0] for group in verb.one_of),
            value=values.get(name, ""),
            proposed=proposed.get(name),
            choices=choices.get(name, YES_NO if argument.shape == "yes|no" else ()),
            tells_time=name in TIMES,
            secret=is_secret(name),
        )


def _for_people(error: str) -> str:
    return "nothing is changed yet" if error.startswith("nothing to change") else error
