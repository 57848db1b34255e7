"""What a guest says on its console, made harmless for the terminal of an administrator. Pure.

A guest may write anything, and a terminal obeys: it types answers to queries into the shell of whoever
looks, fills the clipboard, renames windows, locks the keyboard. So nothing passes but what is known to
draw: text, the controls that move the cursor, and whole sequences from a short list. Everything else,
and everything unknown, malformed or unfinished, is dropped: the terminal is back in its ground state
after each piece, whatever the guest does, and however its bytes are cut into chunks.

Raw C1 controls are dropped too; bytes that are not UTF-8 come out as U+FFFD.
"""

from __future__ import annotations

import codecs
import re

LONGEST_STRING = 4096
"""How much of an unfinished OSC, DCS, APC, PM or SOS is swallowed before it counts as over."""
LARGEST_NUMBER = 9999
"""Larger numbers in a sequence serve only to keep a terminal busy."""

# No possessive quantifiers here: those of Python 3.11.2 let wrong things match.
TOKEN = re.compile(
    r"""
      (?P<text>   (?: [\x07-\x0f\x20-\x7e\xa0-\U0010ffff]+ | \x1b\[ [0-9]{0,4} (?:[;:][0-9]{0,4}){0,11} m )+ )
    | \x1b\[ (?P<parameters> [0-?]{0,64} ) (?P<between> [\x20-/]{0,2} ) (?P<final> [@-~] )
    | (?P<string> \x1b [\]PX^_] )
    | \x1b (?P<escape> [\x20-/]{0,2} [0-~] )
    | (?P<noise> \x1b+ (?=\x1b) | [\x00-\x06\x10-\x1a\x1c-\x1f\x7f-\x9f]+ | \x1b )
    """,
    re.VERBOSE,
)
UNFINISHED = re.compile(r"\x1b(?:[\x20-/]{0,2}|\[[0-?]{0,64}[\x20-/]{0,2})\Z")
STRING_BODY = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")

NUMBERS = re.compile(r"[0-9;:]*\Z")
DRAWING = frozenset("@ABCDEFGHIJKLMPSTXZ`abdefmr")
"""Finals of CSI sequences that move, erase, insert, colour and scroll: they take numbers alone.

Not `g`: tab stops stay when the console is left.
"""
ERASE = "J"
SCROLLBACK = 3
"""What `J` would erase with it: what the administrator's terminal has kept, of other work too."""
BARE = frozenset("su")
"""Save and restore the cursor: with parameters, they mean something else."""
MODES = frozenset({"4"})
"""ANSI modes a guest may set (insert); not the keyboard lock, nor local echo."""
PRIVATE_MODES = frozenset(
    {"1", "5", "7", "12", "25", "47", "1047", "1048", "1049"}  # keys, looks, wrapping, other screen
    | {"1000", "1002", "1006", "2004"}  # mouse and bracketed paste: they shape what a person types
)
ESCAPES = frozenset({"7", "8", "=", ">", "D", "E", "M", "(A", "(B", "(0", ")A", ")B", ")0"})
"""Save, restore, keypad, lines, line-drawing characters."""
FULL_RESET = "c"
GENTLE_RESET = "\x1b[!p\x1b[m\x1b[H\x1b[2J"
"""Stands in for a full reset, which would also undo the administrator's own settings."""

TIDY = (
    b"\x1b[?1000;1002;1006;2004;1047l\x1b[?1;5l\x1b>\x1b[?7;25h\x1b[4l"  # mouse, screens, keys, wrapping
    b"\x1b7\x1b[r\x1b8\x0f\x1b(B\x1b)B\x1b[m\x1b[0 q"  # scroll region, character sets, colours, cursor
)
"""Undoes every lasting thing that what passes may do to a terminal; what is shown stays."""
ON_THE_NEXT_LINE = b"\x1b[9999;1H\r\n"
OTHER_SCREEN = re.compile(rb"\x1b\[\?(?:[0-9]+;)*(?:47|1047|1049)(?:;[0-9]+)*([hl])")


def tidying(shown: bytes) -> bytes:
    """What undoes all that programs that are gone have done to a terminal by what was shown.

    Nothing if it is undone already. What comes after the other screen is shown below all of the first.
    """
    if not shown or shown.endswith((TIDY, TIDY + ON_THE_NEXT_LINE)):
        return b""
    switches = [match[1] for match in OTHER_SCREEN.finditer(shown)]
    return TIDY + ON_THE_NEXT_LINE if switches[-1:] == [b"h"] else TIDY


class HarmlessOutput:
    """The filter of one line: keeps its place between chunks."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unfinished = ""
        self._string_left: int | None = None

    def feed(self, data: bytes) -> bytes:
        """What of `data`, and of an unfinished sequence before it, may be shown."""
        text = self._unfinished + self._decoder.decode(data)
        tail = UNFINISHED.search(text)
        end = tail.start() if tail else len(text)
        self._unfinished = text[end:]
        shown: list[str] = []
        position = self._swallow(text, 0, end)
        while position < end:
            token = TOKEN.match(text, position, end)
            assert token is not None, "the alternatives cover every character"
            position = token.end()
            if token["string"]:
                self._string_left = LONGEST_STRING
                position = self._swallow(text, position, end)
            else:
                shown.append(_harmless(token))
        return "".join(shown).encode()

    def _swallow(self, text: str, start: int, end: int) -> int:
        """Skip the body of the string we are in, if we are in one, and the bell that may close it."""
        if self._string_left is None:
            return start
        body = STRING_BODY.match(text, start, min(end, start + self._string_left))
        assert body is not None
        stop = body.end()
        if stop == end:
            self._string_left -= stop - start
            return stop
        self._string_left = None
        return stop + 1 if text[stop] == "\x07" else stop


def _harmless(token: re.Match[str]) -> str:
    """What is shown in place of a token: itself, or nothing."""
    if token["text"]:
        return token["text"]
    if token["final"]:
        return token[0] if _draws(token["parameters"], token["between"], token["final"]) else ""
    if token["escape"]:
        return (
            token[0] if token["escape"] in ESCAPES else GENTLE_RESET if token["escape"] == FULL_RESET else ""
        )
    return ""


def _draws(parameters: str, between: str, final: str) -> bool:
    if between:
        return (parameters, between, final) == ("", "!", "p") or (
            between == " " and final == "q" and parameters in {"", "0", "1", "2", "3", "4", "5", "6"}
        )
    if final in {"h", "l"}:
        if parameters.startswith("?"):
            return PRIVATE_MODES.issuperset(parameters[1:].split(";"))
        return parameters in MODES
    if final in BARE:
        return not parameters
    if final == "T" and ";" in parameters:  # starts the tracking of highlights, not a scroll
        return False
    if final not in DRAWING or NUMBERS.match(parameters) is None:
        return False
    numbers = [int(number) for number in re.split("[;:]", parameters) if number]
    if final == ERASE and SCROLLBACK in numbers:
        return False
    return all(number <= LARGEST_NUMBER for number in numbers)
