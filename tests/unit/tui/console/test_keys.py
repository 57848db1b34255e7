from __future__ import annotations

import pytest
from textual import events
from textual._xterm_parser import XTermParser

from appliance.tui.console.keys import LEAVE, guest_bytes, pasted


@pytest.mark.parametrize(
    ("key", "character", "sent"),
    [
        ("a", "a", b"a"),
        ("A", "A", b"A"),
        ("full_stop", ".", b"."),
        ("é", "é", "é".encode()),
        ("space", " ", b" "),
        ("enter", "\r", b"\r"),
        ("enter", None, b"\r"),
        ("tab", "\t", b"\t"),
        ("shift+tab", None, b"\x1b[Z"),
        ("backspace", "\x7f", b"\x7f"),
        ("backspace", "\x08", b"\x08"),
        ("backspace", None, b"\x7f"),
        ("escape", "\x1b", b"\x1b"),
        ("ctrl+c", "\x03", b"\x03"),
        ("ctrl+c", None, b"\x03"),
        ("ctrl+at", "\x00", b"\x00"),
        ("ctrl+backslash", "\x1c", b"\x1c"),
        ("ctrl+underscore", "\x1f", b"\x1f"),
        ("ctrl+left_square_bracket", None, b"\x1b"),
        ("alt+f", "f", b"\x1bf"),
        ("alt+shift+f", "F", b"\x1bF"),
        ("alt+f", None, b"\x1bf"),
        ("alt+ctrl+a", None, b"\x1b\x01"),
        ("up", None, b"\x1b[A"),
        ("ctrl+left", None, b"\x1b[1;5D"),
        ("ctrl+shift+right", None, b"\x1b[1;6C"),
        ("delete", None, b"\x1b[3~"),
        ("shift+delete", None, b"\x1b[3;2~"),
        ("f1", None, b"\x1bOP"),
        ("f5", None, b"\x1b[15~"),
        ("ctrl+f5", None, b"\x1b[15;5~"),
        ("f12", None, b"\x1b[24~"),
        ("plus", "+", b"+"),
        ("+", "+", b"+"),
        ("super+a", None, b""),
        ("left_shift", None, b""),
        ("<ignore>", "x", b"x"),
    ],
)
def test_keys(key: str, character: str | None, sent: bytes) -> None:
    assert guest_bytes(key, character) == sent


def test_cursor_keys_as_the_application_wants_them() -> None:
    assert guest_bytes("up", None, cursor_keys=True) == b"\x1bOA"
    assert guest_bytes("shift+up", None, cursor_keys=True) == b"\x1b[1;2A"


ROUND_TRIPS = [
    *(bytes([code]) for code in range(32) if code not in {0x1B, 0x1D}),
    *(b"\x1b[" + final for final in (b"A", b"B", b"C", b"D", b"H", b"F", b"2~", b"3~", b"5~", b"6~", b"Z")),
    *(b"\x1bO" + final for final in (b"P", b"Q", b"R", b"S")),
    *(b"\x1b[%d~" % number for number in (15, 17, 18, 19, 20, 21, 23, 24)),
    *(b"\x1b[1;%d%c" % (modifiers, final) for modifiers in (2, 5) for final in b"ABCDHF"),
    b"\x7f",
    "ü€日".encode(),
    b"~!@#$%^&*()_+{}|:\"<>?-=[]\\;',./`",
]


@pytest.mark.parametrize("typed", ROUND_TRIPS)
def test_what_a_terminal_sends_reaches_the_guest_as_it_was(typed: bytes) -> None:
    parser = XTermParser()
    keys = [event for event in parser.feed(typed.decode()) if isinstance(event, events.Key)]
    assert b"".join(guest_bytes(event.key, event.character) for event in keys) == typed


def test_the_key_that_gives_the_keys_back_is_called_so_by_textual() -> None:
    [event] = XTermParser().feed("\x1d")
    assert isinstance(event, events.Key)
    assert event.key == LEAVE


@pytest.mark.parametrize(
    ("text", "bracketed", "sent"),
    [
        ("ls\nid\r\n", False, b"ls\rid\r"),
        ("é\t", True, "\x1b[200~é\t\x1b[201~".encode()),
        ("a\u00a0b\u3000c\u200dd\u2028e", False, "a\u00a0b\u3000c\u200dd\u2028e".encode()),
        ("x\x9b201~rm\x7f", True, b"\x1b[200~x201~rm\x1b[201~"),
        ("x\x1b[201~rm\x03\ud800", True, b"\x1b[200~x[201~rm\x1b[201~"),
    ],
)
def test_pasted_text_cannot_leave_its_brackets(text: str, bracketed: bool, sent: bytes) -> None:
    assert pasted(text, bracketed=bracketed) == sent
