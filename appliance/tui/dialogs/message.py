"""A text to read: what failed and the remedy, the help of a pane, what a verb has said."""

from __future__ import annotations

from typing import ClassVar, Self

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from appliance.harmless import printable_lines
from appliance.tui.calls import Outcome
from appliance.tui.dialogs.dialog import Dialog, Push, Twin


class Message(Dialog[None]):
    """A text that scrolls; `hint` says what to do about it, `call` what it came from."""

    KEYS = "↑ ↓ scroll · esc close"
    SCROLLS = "#text"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll(-1)", "Up", show=False),
        Binding("down,j", "scroll(1)", "Down", show=False),
        Binding("b", "scroll_page(-1)", "Page up", show=False),
        Binding("space,f", "scroll_page(1)", "Page down", show=False),
        Binding("home,g", "scroll_to(0)", "First", show=False),
        Binding("end,G", "scroll_to(1)", "Last", show=False),
        Binding("enter,q,question_mark", "leave", "Close", show=False),
    ]
    DEFAULT_CSS = """
    Message {
        #text { height: auto; scrollbar-size-vertical: 1; }
        #text > Static { height: auto; }
        #hint { height: auto; margin-top: 1; color: $text-success; }
    }
    """

    def __init__(
        self,
        title: str,
        text: str | Content,
        *,
        hint: str | None = None,
        call: tuple[str, ...] | None = None,
        danger: bool = False,
        wide: bool = False,
    ) -> None:
        super().__init__(title, danger=danger)
        self._text = Content(printable_lines(text)) if isinstance(text, str) else text
        self._hint = hint
        self._call = call
        self.set_class(wide, "-wide")

    @classmethod
    def of(cls, title: str, outcome: Outcome) -> Self:
        """What came of a call: the failure, or all that it said."""
        if outcome.ok:
            said = [text.rstrip() for text in (outcome.out, outcome.err) if text.strip()]
            return cls(title, "\n\n".join(said) or "It said nothing.", call=outcome.words, wide=True)
        text = outcome.err.rstrip()
        if outcome.pointer:
            text += f"\n\n{outcome.pointer}"
        return cls(title, text, hint=outcome.hint, call=outcome.words, danger=True)

    def body(self) -> ComposeResult:
        """The text, the remedy and the twin."""
        with VerticalScroll(id="text", can_focus=False):
            yield Static(self._text)
        if self._hint:
            yield Static(Content.assemble(("What helps: ", "bold"), printable_lines(self._hint)), id="hint")
        yield Twin([self._call] if self._call else [])

    def buttons(self) -> ComposeResult:
        """Close."""
        yield Push("Close", id="cancel")

    def on_mount(self) -> None:
        self.query_one("#cancel", Push).focus()

    def action_scroll(self, lines: int) -> None:
        """Move by lines."""
        self.query_one("#text").scroll_relative(y=lines, animate=False)

    def action_scroll_to(self, end: int) -> None:
        """Move to the first line, or to the last one."""
        area = self.query_one("#text")
        area.scroll_to(y=area.max_scroll_y if end else 0, animate=False)
