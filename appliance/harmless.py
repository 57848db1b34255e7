"""What strangers have written, as text on which no terminal acts. Pure."""

from __future__ import annotations


def printable(text: str, instead: str = " ") -> str:
    """The text on one line, and unable to talk to the terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else instead for char in text)


def printable_lines(text: str) -> str:
    """The same of a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))
