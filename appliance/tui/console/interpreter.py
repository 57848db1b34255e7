"""From the bytes of a console to what they do to its screen. Pure.

The hub lets only harmless sequences through, and this knows no others: what it does not know, it leaves
out. It is several times faster than pyte's own reader, which takes one character at a time.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator

from appliance.tui.console.screen import GuestScreen

LONGEST_SEQUENCE = 4096
"""How much of an unfinished sequence waits for its end; a longer one is over."""

TOKEN = re.compile(
    r"""
      (?P<text>    [^\x00-\x1f\x7f-\x9f]{1,256} )
    | (?P<newline> \r\n )
    | (?P<control> [\x07-\x0f] )
    | \x1b\[ (?P<prefix> [<-?]? ) (?P<parameters> [0-?]* ) (?P<between> [\x20-/]* ) (?P<final> [@-~] )
    | (?P<string>  \x1b [\]PX^_] [^\x07\x1b]* (?: \x07 | \x1b\\ | (?=\x1b) | \Z ) )
    | \x1b (?P<escape> [\x20-/]* [0-~] )
    | (?P<noise>   [\s\S] )
    """,
    re.VERBOSE,
)
UNFINISHED = re.compile(r"\x1b(?:[\x20-/]*|\[[0-?]*[\x20-/]*|[\]PX^_][^\x07\x1b]*\x1b?)\Z")

CSI: dict[str, tuple[str, int]] = {
    "@": ("insert_characters", 1),
    "A": ("cursor_up", 1),
    "B": ("cursor_down", 1),
    "C": ("cursor_forward", 1),
    "D": ("cursor_back", 1),
    "E": ("cursor_down1", 1),
    "F": ("cursor_up1", 1),
    "G": ("cursor_to_column", 1),
    "H": ("cursor_position", 2),
    "I": ("tab_forward", 1),
    "J": ("erase_in_display", 1),
    "K": ("erase_in_line", 1),
    "L": ("insert_lines", 1),
    "M": ("delete_lines", 1),
    "P": ("delete_characters", 1),
    "S": ("scroll_up", 1),
    "T": ("scroll_down", 1),
    "X": ("erase_characters", 1),
    "Z": ("tab_back", 1),
    "`": ("cursor_to_column", 1),
    "a": ("cursor_forward", 1),
    "b": ("repeat", 1),
    "d": ("cursor_to_line", 1),
    "e": ("cursor_down", 1),
    "f": ("cursor_position", 2),
    "g": ("clear_tab_stop", 1),
    "r": ("set_margins", 2),
    "s": ("save_cursor", 0),
    "u": ("restore_cursor", 0),
}
"""Finals of sequences, what they call, and with how many numbers at most."""
ESCAPES = {
    "7": "save_cursor",
    "8": "restore_cursor",
    "D": "index",
    "H": "set_tab_stop",
    "M": "reverse_index",
    "c": "reset",
}
"""What escapes of one letter call, beside `E`, which begins a line."""
CONTROLS = {
    "\x08": "backspace",
    "\x09": "tab",
    "\x0a": "linefeed",
    "\x0b": "linefeed",
    "\x0c": "linefeed",
    "\x0d": "carriage_return",
    "\x0e": "shift_out",
    "\x0f": "shift_in",
}
"""What control characters call."""


class Interpreter:
    """Feeds one screen, keeping its place between chunks."""

    def __init__(self, screen: GuestScreen) -> None:
        self._screen = screen
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unfinished = ""
        self._tokens: Iterator[re.Match[str]] = iter(())
        self.is_idle = True
        """Whether all that was taken is done."""
        self._csi = {final: (_method(screen, name), most) for final, (name, most) in CSI.items()}
        self._escapes = {key: _method(screen, name) for key, name in ESCAPES.items()}
        self._escapes["E"] = self._next_line
        self._controls = {key: _method(screen, name) for key, name in CONTROLS.items()}

    def feed(self, data: bytes) -> None:
        """Do to the screen what `data` says."""
        self.take(data)
        self.work(lambda: True)

    def take(self, data: bytes) -> None:
        """Take `data`, to `work` on it; only when all that was taken before is done."""
        text = self._unfinished + self._decoder.decode(data)
        self._unfinished = ""
        end = len(text)
        if tail := UNFINISHED.search(text):
            end = tail.start()
            self._unfinished = text[end:] if len(text) - end <= LONGEST_SEQUENCE else ""
        self._tokens = TOKEN.finditer(text, 0, end)
        self.is_idle = False

    def work(self, goes_on: Callable[[], bool]) -> bool:
        """Do what was taken while `goes_on` says so; whether it is done.

        It is asked often, for a short sequence may keep the screen busy for long; not after what never does.
        """
        screen = self._screen
        for token in self._tokens:
            match token.lastgroup:
                case "text":
                    screen.draw(token[0])
                case "newline":
                    self._next_line()
                    continue
                case "control":
                    if control := self._controls.get(token[0]):
                        control()
                    continue
                case "final" if token["final"] == "m" and not token["prefix"] and not token["between"]:
                    screen.select_look(token["parameters"])
                    continue
                case "final":
                    self._sequence(token["prefix"], token["parameters"], token["between"], token["final"])
                case "escape":
                    self._escape(token["escape"])
            if not goes_on():
                return False
        self.is_idle = True
        return True

    def _next_line(self) -> None:
        self._screen.cursor.x = 0
        self._screen.index()

    def _sequence(self, prefix: str, parameters: str, between: str, final: str) -> None:
        screen = self._screen
        if between:
            if (prefix, parameters, between, final) == ("", "", "!", "p"):
                screen.soft_reset()
        elif prefix:
            if prefix == "?" and final in "hl":
                for mode in _numbers(parameters, 16):
                    screen.set_private_mode(mode, final == "h")
        elif final in "hl":
            if 4 in _numbers(parameters, 16):
                screen.set_insert_mode(final == "h")
        elif final in self._csi:
            do, most = self._csi[final]
            do(*_numbers(parameters, most))

    def _escape(self, escape: str) -> None:
        if len(escape) == 2 and escape[0] in "()":
            self._screen.define_charset("B" if escape[1] == "A" else escape[1], escape[0])
        elif do := self._escapes.get(escape):
            do()


def _numbers(parameters: str, most: int) -> list[int]:
    if not parameters or not most:
        return []
    return [
        min(int(digits), 9999) if digits.isdecimal() else 0 for digits in parameters.split(";", most)[:most]
    ]


def _method(screen: GuestScreen, name: str) -> Callable[..., None]:
    method: Callable[..., None] = getattr(screen, name)
    return method
