"""What all dialogs are made of: the box in the middle, the buttons at its foot, and how they look.

Whatever a dialog is for, Escape leaves it and nothing was done. It is told by form as well as by colour what
has the focus, so that it can be used without colours; on a terminal that draws ASCII alone, so does the box.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

from textual import events
from textual.app import App, ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static
from textual.worker import Worker

from appliance.harmless import printable, printable_lines
from appliance.tui.calls import twin
from appliance.tui.glyphs import ASCII, FULL, Glyphs

T = TypeVar("T")
TWIN_LINES = 4
"""How many lines of a twin are shown at most."""
IN_ASCII = str.maketrans({"·": "-", "…": "...", "↑": "^", "↓": "v", "•": "*"})
FRAME = 2
"""The lines above and below a box."""


def glyphs_of(app: App[object]) -> Glyphs:
    """The signs of the app whose dialog it is."""
    glyphs = getattr(app, "glyphs", FULL)
    return glyphs if isinstance(glyphs, Glyphs) else FULL


def drawn(app: App[object], text: str) -> str:
    """The text as the terminal can draw it."""
    return text.translate(IN_ASCII) if glyphs_of(app) is ASCII else text


class Push(Static, can_focus=True):
    """A button of one line; what has the focus is marked by a sign."""

    DEFAULT_CSS = """
    Push {
        width: auto;
        height: 1;
        margin-left: 2;
        padding: 0 2 0 1;
        background: $foreground 10%;
        color: $foreground;
        &:hover { background: $foreground 20%; }
        &:focus { background: $foreground 30%; text-style: bold; }
        &.-main { background: $primary 25%; color: $text-primary; }
        &.-main:hover { background: $primary 45%; }
        &.-main:focus { background: $primary; color: auto; }
        &.-danger { background: $error 25%; color: $text-error; }
        &.-danger:hover { background: $error 45%; }
        &.-danger:focus { background: $error; color: auto; }
        &:disabled { background: $foreground 5%; color: $text-disabled; text-style: none; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "press", "Press", show=False)]

    class Pressed(Message):
        """Somebody means it."""

        def __init__(self, push: Push) -> None:
            self.push = push
            super().__init__()

        @property
        def control(self) -> Push:
            """Which one it was."""
            return self.push

    def __init__(self, label: str, *, id: str, kind: str = "", disabled: bool = False) -> None:  # noqa: A002
        super().__init__(id=id, classes=f"-{kind}" if kind else None, disabled=disabled)
        self.label = printable(label)

    def render(self) -> Content:
        """The label, behind a sign if it has the focus."""
        sign = glyphs_of(self.app).cursor if self.has_focus else " "
        return Content(f"{sign} {self.label}")

    def relabel(self, label: str) -> None:
        """Show another label."""
        if label != self.label:
            self.label = label
            self.refresh(layout=True)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    async def on_click(self, event: events.Click) -> None:
        event.stop()
        self.action_press()

    def action_press(self) -> None:
        """Tell that it was pressed."""
        if not self.disabled:
            self.post_message(self.Pressed(self))


class Item(Horizontal):
    """A sentence behind a sign of its own."""

    DEFAULT_CSS = """
    Item {
        height: auto;
        & > .sign { width: 2; height: 1; }
        & > .sentence { width: 1fr; height: auto; }
        &.warns > .sign { color: $text-warning; text-style: bold; }
        &.wrong > .sign, &.wrong > .sentence { color: $text-error; }
        &.muted { color: $text-muted; }
    }
    """

    def __init__(self, sign: str, sentence: str, kind: str = "") -> None:
        super().__init__(classes=kind or None)
        self._sign = sign
        self._sentence = printable_lines(sentence)

    def compose(self) -> ComposeResult:
        """The sign, and the sentence in a column of its own."""
        yield Static(Content(self._sign), classes="sign")
        yield Static(Content(self._sentence), classes="sentence")


class Twin(Static):
    """The `qa` command that does the same."""

    DEFAULT_CSS = """
    Twin {
        height: auto;
        max-height: 4;
        margin-top: 1;
        padding: 0 1;
        color: $text-muted;
        background: $foreground 5%;
    }
    """

    def __init__(self, calls: Sequence[Sequence[str]] = ()) -> None:
        super().__init__(id="twin")
        self._commands: list[str] = []
        self.tell(calls)

    def tell(self, calls: Sequence[Sequence[str]]) -> None:
        """Show the commands; of many, the first."""
        self._commands = [printable(twin(words)) for words in calls]
        self.display = bool(calls)
        self.refresh(layout=True)

    def render(self) -> Content:
        """As much of it as there is room for."""
        first = self._commands[0] if self._commands else ""
        dots = glyphs_of(self.app).ellipsis
        rest = f"  {dots} and {len(self._commands) - 1} more like it" if len(self._commands) > 1 else ""
        room = (self.size.width or 70) * (TWIN_LINES - 1) - len(rest)  # a line may be lost to long words
        if len(first) > room:
            first = f"{first[:room]} {dots}"
        return Content.assemble(("$ ", "bold $text-primary"), first, (rest, "$foreground-disabled"))


class Dialog(ModalScreen[T]):
    """A question or a form above the screen; `leave` and Escape end it without a result."""

    AUTO_FOCUS = None
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("ctrl+c", "interrupt", "Copy, else leave", show=False, priority=True),
        Binding("pageup", "scroll_page(-1)", "Page up", show=False),
        Binding("pagedown", "scroll_page(1)", "Page down", show=False),
    ]
    DEFAULT_CSS = """
    Dialog {
        align: center middle;
        background: $background 60%;
        & > #box {
            width: 76;
            max-width: 100%;
            height: auto;
            max-height: 100%;
            padding: 1 2;
            background: $surface;
            border: round $primary;
            border-title-color: $text-primary;
            border-title-style: bold;
            border-title-align: left;
            border-subtitle-color: $text-muted;
            border-subtitle-align: right;
        }
        &.-ascii > #box { border: ascii $primary; }
        &.-danger > #box { border: round $error; border-title-color: $text-error; }
        &.-danger.-ascii > #box { border: ascii $error; }
        &.-wide > #box { width: 116; }
        &.-short > #box { padding: 0 2; }
        #buttons { height: 1; margin-top: 1; align-horizontal: right; }
        .note { height: auto; }
        .muted { height: auto; color: $text-muted; }
    }
    """
    KEYS = "esc leave"
    """What the keys do, at the foot of the box."""
    SCROLLS: str | None = None
    """What of the box gives way, and scrolls, where the screen is too low for all."""

    def __init__(self, title: str, *, danger: bool = False) -> None:
        super().__init__()
        self._late: tuple[T | None] | None = None
        """Its result, if it ended beneath another dialog."""
        self.heading = printable(title)
        self.set_class(danger, "-danger")

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        """End it with a result; whoever presses a button twice has pressed it once.

        Beneath another dialog it ends as soon as that has: a screen can only be taken away from the top.
        """
        if not self.is_open:
            return AwaitComplete()
        if self.app.screen is self:
            return super().dismiss(result)
        self._late = self._late or (result,)
        return AwaitComplete()

    @property
    def is_open(self) -> bool:
        """Whether it is still there: work that it began may end after it was left."""
        return self.app.is_running and self in self.app.screen_stack

    def body(self) -> ComposeResult:
        """What the box holds above its buttons."""
        yield from ()

    def buttons(self) -> ComposeResult:
        """The buttons, from left to right."""
        yield from ()

    def compose(self) -> ComposeResult:
        """The box."""
        self.set_class(glyphs_of(self.app) is ASCII, "-ascii")
        with Vertical(id="box") as box:
            box.border_title = Content(self.heading)
            box.border_subtitle = drawn(self.app, self.KEYS)
            yield from self.body()
            with Horizontal(id="buttons"):
                yield from self.buttons()

    def on_screen_resume(self) -> None:
        """What ended while another dialog was above it ends now."""
        if self._late is not None:
            self.dismiss(*self._late)

    def on_resize(self) -> None:
        """Fit the box into the screen."""
        self.call_after_refresh(self.fit)

    def fit(self) -> None:
        """Let what scrolls have the lines that the rest of the box leaves; to be called when that changes.

        Where there are few, the box does without its empty ones.
        """
        if not self.is_open or not self.query("#buttons"):
            return  # it is left already, or its box is not filled yet
        box = self.query_one("#box")
        area = self.scrolling
        others = [one for one in box.children if one is not area and one.display]
        taken = FRAME + sum(one.outer_size.height + one.styles.margin.height for one in others)
        if area is not None:
            taken += area.styles.margin.height
            area.styles.max_height = max(3, self.size.height - taken)
            taken += area.virtual_size.height
        self.set_class(taken + 2 > self.size.height, "-short")

    @property
    def scrolling(self) -> Widget | None:
        """What scrolls, if anything does."""
        return self.query_one(self.SCROLLS) if self.SCROLLS else None

    def action_scroll_page(self, pages: int) -> None:
        """Move by pages in what scrolls."""
        if (area := self.scrolling) is not None:
            area.scroll_relative(y=pages * max(1, area.size.height - 1), animate=False)

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]], group: str) -> Worker[None]:
        """Let work go on beside the dialog, in the place of what is under way in its group."""
        return self.run_worker(work, group=group, exclusive=True)

    def action_leave(self) -> None:
        """End it; nothing is done."""
        self.dismiss(None)

    def action_interrupt(self) -> None:
        """Ctrl-c: copy what is selected, else leave."""
        field = self.focused
        if isinstance(field, Input) and field.selected_text:
            field.action_copy()
        else:
            self.action_leave()

    def on_push_pressed(self, event: Push.Pressed) -> None:
        """The button called `cancel` leaves; others are for the dialog itself."""
        event.stop()
        if event.push.id == "cancel":
            self.action_leave()
        else:
            self.pressed(event.push.id or "")

    def pressed(self, name: str) -> None:
        """A button other than `cancel` was pressed."""

    def keys(self, words: str) -> None:
        """Say other things about the keys."""
        self.query_one("#box", Vertical).border_subtitle = drawn(self.app, words)
