"""One line of a form: what is asked, what was answered, and beneath it what is wrong or understood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from appliance.errors import ConfigError, UsageError
from appliance.harmless import printable, printable_lines

ACRONYMS = {"di": "DI", "osf": "OSF", "ip": "IP", "cpus": "CPUs", "vm": "VM", "io": "I/O"}
LABEL_WIDTH = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a field asks for."""

    name: str
    title: str | None = None
    """The name for people, unless it is made from `name`."""
    doc: str = ""
    shape: str = ""
    """What an answer looks like, shown where there is none yet."""
    parse: Callable[[str], Any] = str
    required: bool = False
    value: str = ""
    """What is there now: only another answer is a change."""
    proposed: str | None = None
    """An answer to begin with, if it is not `value`."""
    choices: Sequence[str] = ()
    """Good answers; others may be good as well."""
    secret: bool = False
    """Whether nobody sees it as it is written."""
    by_stdin: bool = False
    """Whether it is no word of a command: the verb reads it."""
    tells_time: bool = False

    @property
    def label(self) -> str:
        """The name for people."""
        if self.title is not None:
            return self.title
        words = self.name.replace("_", " ").replace("-", " ").split(" ")
        shown = " ".join(ACRONYMS.get(word, word) for word in words)
        return shown[:1].upper() + shown[1:]


class Answer(Input):
    """The line that is written in; up and down go through the choices, or else to the next field."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "choose(-1)", "Previous", show=False),
        Binding("down", "choose(1)", "Next", show=False),
    ]

    def __init__(self, question: Question) -> None:
        shape = "" if question.shape == "TEXT" else question.shape
        super().__init__(
            question.value if question.proposed is None else question.proposed,
            placeholder=printable(shape),
            password=question.secret,
            compact=True,
        )
        self._begun = ""
        self._put = ""
        self.offer(question.choices)

    def offer(self, choices: Sequence[str]) -> None:
        """Know other choices; what cannot be shown as it is cannot be chosen."""
        self._choices = [choice for choice in choices if choice.isprintable()]
        self.suggester = SuggestFromList(self._choices, case_sensitive=False) if self._choices else None

    def action_choose(self, step: int) -> None:
        """Put the next choice that begins as what was written, or leave the field."""
        if not self._choices:
            (self.screen.focus_next if step > 0 else self.screen.focus_previous)()
            return
        if self.value != self._put:
            self._begun = self.value
        fitting = self.fitting(self._begun)
        if not fitting:
            return
        place = fitting.index(self.value) + step if self.value in fitting else (0 if step > 0 else -1)
        self._put = fitting[place % len(fitting)]
        self.value = self._put
        self.cursor_position = len(self.value)

    def fitting(self, begun: str | None = None) -> list[str]:
        """The choices that begin as what was written; all if that is one of them itself."""
        text = (self.value if begun is None else begun).lower()
        if text in (choice.lower() for choice in self._choices):
            return self._choices
        return [choice for choice in self._choices if choice.lower().startswith(text)]


class Field(Vertical):
    """A question with its `answer`, the line that is written in; `problem` is what is wrong with it."""

    DEFAULT_CSS = f"""
    Field {{
        height: auto;
        & > .line {{ height: 1; }}
        & > .line > .label {{ width: {LABEL_WIDTH}; height: 1; color: $text-muted; }}
        & > .line > Answer {{
            width: 1fr; height: 1; border: none; padding: 0 1;
            background: $foreground 7%;
            &:focus {{ background: $foreground 16%; }}
            &.-wrong {{ background: $error 20%; }}
        }}
        &.-focused > .line > .label {{ color: $foreground; text-style: bold; }}
        & > .feedback {{ height: auto; padding-left: {LABEL_WIDTH + 1}; display: none; }}
        & > .feedback.-told {{ display: block; }}
        & > .feedback.-good {{ color: $text-success; }}
        & > .feedback.-guess {{ color: $text-warning; }}
        & > .feedback.-wrong {{ color: $text-error; }}
    }}
    """

    class Changed(Message):
        """Another answer was written."""

        def __init__(self, field: Field) -> None:
            self.field = field
            super().__init__()

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = replace(question, value=printable(question.value))
        self.problem: str | None = None
        self.answer = Answer(self.question)
        self._feedback = Static(classes="feedback")

    def compose(self) -> ComposeResult:
        """Label, answer, and room for a word about it."""
        with Horizontal(classes="line"):
            label = Content(printable(self.question.label))
            yield Static(
                label + Content.styled(" *", "$text-warning") if self.question.required else label,
                classes="label",
            )
            yield self.answer
        yield self._feedback

    @property
    def text(self) -> str:
        """What was answered."""
        value = self.answer.value
        return value if self.question.secret else value.strip()

    @property
    def is_changed(self) -> bool:
        """Whether the answer is another one than what is there now; blanks at its ends alone make none."""
        return self.question.value not in {self.answer.value, self.text}

    @property
    def word(self) -> str | None:
        """The argument, if there is anything to tell."""
        return f"{self.question.name}={self.text}" if self.is_changed else None

    def on_descendant_focus(self) -> None:
        self.add_class("-focused")

    def on_descendant_blur(self) -> None:
        self.remove_class("-focused")

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.check()
        self.post_message(self.Changed(self))

    def check(self) -> None:
        """Find out whether the answer can be read, and say so beneath it."""
        if self.question.tells_time:
            return
        self.tell(None)
        if self.is_changed:
            try:
                self.question.parse(self.text)
            except (ValueError, UsageError, ConfigError) as exc:
                self.tell(str(exc))

    def tell(self, problem: str | None, *, place: int | None = None) -> None:
        """Say what is wrong with the answer, and at which of its letters; or that nothing is."""
        self.problem = problem
        self.answer.set_class(problem is not None, "-wrong")
        if problem is None:
            self._say("", "")
        elif place is not None and place < self.answer.size.width - 2:
            self._say(f"{' ' * place}^\n{problem}", "wrong")
        else:
            self._say(problem, "wrong")

    def explain(self, sentence: str, *, is_sure: bool = True) -> None:
        """Say beneath the answer what was understood; nothing, if there are no words for it."""
        self.tell(None)
        self._say(sentence, "good" if is_sure else "guess")

    def _say(self, words: str, kind: str) -> None:
        self._feedback.set_classes(f"feedback -{kind} -told" if words else "feedback")
        self._feedback.update(Content(printable_lines(words)))
