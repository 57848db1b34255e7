"""What is read of a terminal where Textual's own reading loses a key.

A terminal sends the same whether Alt was held with a key or escape was pressed before it, and over a slow
line two keys arrive together. Textual reads such a pair as Alt with a letter, which consoles pass on as the
pair that it was; of Alt with anything else it forgets the escape, so that `Esc : w q` typed quickly into an
editor would write `:wq` into the text.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual import events
from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver


class WholeParser(XTermParser):
    """Gives the escape before a sign back as the key that it is."""

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[events.Key]:
        if alt and len(sequence) == 1 and not sequence.isalnum():
            yield events.Key("escape", "\x1b")
        yield from super()._sequence_to_key_events(sequence, alt=alt)


def lose_no_key() -> None:
    """Let the drivers that are made from now on read so; they take their parser by this name and no other."""
    setattr(linux_driver, "XTermParser", WholeParser)  # noqa: B010
