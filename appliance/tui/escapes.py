"""What is read of a terminal where Textual's own reading loses a key, or takes a pasted text for keys.

A terminal sends the same whether Alt was held with a key or escape was pressed before it, and over a slow
line two keys arrive together. Textual reads such a pair as Alt with a letter, which consoles pass on as the
pair that it was; of Alt with anything else it forgets the escape, so that `Esc : w q` typed quickly into an
editor would write `:wq` into the text.

Escapes within a pasted text are keys for Textual, and so is what follows each: whoever pastes a coloured log
would press keys that stop desktops.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Generator, Iterable

from textual import events
from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver
from textual.message import Message

BEGIN, END = "\x1b[200~", "\x1b[201~"
"""Around a pasted text (ctlseqs of xterm, "Bracketed Paste Mode")."""
LINES_AND_TABS = "\n\r\t"


class WholeParser(XTermParser):
    """Gives the escape before a sign back as the key that it is, and a pasted text as one piece of text."""

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._pasted: str | None = None
        """What has come of a text that is being pasted, perhaps with the beginning of END."""
        self._before = ""
        """What came last beside it, as far as it may be the beginning of BEGIN."""

    def feed(self, data: str) -> Iterable[Message]:
        """Read on; nothing at all is the end."""
        if not data:
            yield from super().feed(data)
        while data:
            data = yield from self._type(data) if self._pasted is None else self._paste(data)

    def tick(self) -> Iterable[Message]:
        """Take an escape that was followed by nothing for what it is."""
        for message in super().tick():
            self._before = ""
            yield message

    def _type(self, data: str) -> Generator[Message, None, str]:
        """Read keys up to a pasted text; the rest is left."""
        known = len(self._before)
        text = self._before + data
        at = text.find(BEGIN)
        typed = text if at < 0 else text[: at + len(BEGIN)]
        self._before = text[-len(BEGIN) + 1 :]
        if at >= 0:
            self._before, self._pasted = "", ""
        yield from super().feed(typed[known:])
        return text[len(typed) :]

    def _paste(self, data: str) -> Generator[Message, None, str]:
        """Gather a pasted text up to its end; the rest is left."""
        assert self._pasted is not None
        known = max(0, len(self._pasted) - len(END) + 1)
        self._pasted += data
        at = self._pasted.find(END, known)
        if at < 0:
            return ""
        text, rest = self._pasted[:at], self._pasted[at + len(END) :]
        self._pasted = None
        for message in super().feed(END):
            yield events.Paste(plain(text)) if isinstance(message, events.Paste) else message
        return rest

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[events.Key]:
        if alt and len(sequence) == 1 and not sequence.isalnum():
            yield events.Key("escape", "\x1b")
        yield from super()._sequence_to_key_events(sequence, alt=alt)


def plain(text: str) -> str:
    """The text without what no person writes: controls other than ends of lines and tabs."""
    return "".join(
        letter for letter in text if letter in LINES_AND_TABS or unicodedata.category(letter) != "Cc"
    )


def lose_no_key() -> None:
    """Let the drivers that are made from now on read so; they take their parser by this name and no other."""
    setattr(linux_driver, "XTermParser", WholeParser)  # noqa: B010
