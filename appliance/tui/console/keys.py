"""From keys, as Textual names them, to the bytes that a terminal would send to the guest. Pure."""

from __future__ import annotations

import unicodedata

from textual.keys import KEY_TO_UNICODE_NAME

LEAVE = "ctrl+right_square_bracket"
"""Ctrl-]: the one key that the guest never gets."""

CURSOR = {"up": "A", "down": "B", "right": "C", "left": "D", "end": "F", "home": "H"}
TILDE = {"insert": 2, "delete": 3, "pageup": 5, "pagedown": 6} | {
    "f5": 15, "f6": 17, "f7": 18, "f8": 19, "f9": 20, "f10": 21, "f11": 23, "f12": 24,
    "f13": 25, "f14": 26, "f15": 28, "f16": 29, "f17": 31, "f18": 32, "f19": 33, "f20": 34,
}  # fmt: skip
LETTER = {"f1": "P", "f2": "Q", "f3": "R", "f4": "S"}
SIMPLE = {"enter": "\r", "tab": "\t", "backspace": "\x7f", "escape": "\x1b", "space": " ", "newline": "\n"}
CONTROL = {
    "at": 0, "space": 0, "2": 0, "left_square_bracket": 27, "3": 27, "backslash": 28, "4": 28,
    "right_square_bracket": 29, "5": 29, "circumflex_accent": 30, "6": 30, "underscore": 31, "slash": 31,
    "minus": 31, "7": 31, "8": 127, "question_mark": 127, "backspace": 8, "enter": 13, "tab": 9, "escape": 27,
}  # fmt: skip
"""What ctrl makes of keys that are no letters."""
SHIFT, ALT, CTRL = 1, 2, 4
MODIFIERS = {"shift": SHIFT, "alt": ALT, "meta": ALT, "ctrl": CTRL}

PASTE = ("\x1b[200~", "\x1b[201~")


def guest_bytes(key: str, character: str | None, *, cursor_keys: bool = False) -> bytes:
    """What the guest gets for a key; nothing for one that no terminal knows.

    `cursor_keys` says whether the guest has asked for the application's cursor keys.
    """
    *held, name = key.split("+")
    if not name:  # the key "+" itself
        held, name = held[:-1], "plus"
    if any(modifier not in MODIFIERS for modifier in held):
        return b""
    modifiers = sum({MODIFIERS[modifier] for modifier in held})
    return _sent(name, modifiers, character, cursor_keys).encode()


def pasted(text: str, *, bracketed: bool) -> bytes:
    """What the guest gets for pasted text, which cannot end its own brackets."""
    plain = "".join(
        letter
        for letter in text.replace("\r\n", "\r").replace("\n", "\r")
        if letter in "\r\t" or _types(letter)
    )
    return (PASTE[0] + plain + PASTE[1] if bracketed else plain).encode(errors="replace")


def _sent(name: str, modifiers: int, character: str | None, cursor_keys: bool) -> str:
    if name in CURSOR:
        if modifiers:
            return f"\x1b[1;{modifiers + 1}{CURSOR[name]}"
        return ("\x1bO" if cursor_keys else "\x1b[") + CURSOR[name]
    if name in TILDE:
        return f"\x1b[{TILDE[name]};{modifiers + 1}~" if modifiers else f"\x1b[{TILDE[name]}~"
    if name in LETTER:
        return f"\x1b[1;{modifiers + 1}{LETTER[name]}" if modifiers else f"\x1bO{LETTER[name]}"
    if name == "tab" and modifiers & SHIFT:
        return "\x1b[Z"
    plain = _plain(name, modifiers, character)
    return "\x1b" + plain if plain and modifiers & ALT else plain


def _plain(name: str, modifiers: int, character: str | None) -> str:
    """A key that stands for a character, without what alt adds."""
    if modifiers & CTRL:
        if len(name) == 1 and "@" <= name.upper() <= "_":
            return chr(ord(name.upper()) - 64)
        return chr(CONTROL[name]) if name in CONTROL else _letter(name)
    if character is not None and len(character) == 1 and (_types(character) or name in SIMPLE):
        return character
    if character is not None and len(character) > 1 and all(map(_types, character)):
        return character
    if name in SIMPLE:
        return SIMPLE[name]
    letter = _letter(name)
    return letter.upper() if modifiers & SHIFT else letter


def _letter(name: str) -> str:
    """The character of a key that is called by it or by its name in Unicode; else nothing."""
    if len(name) == 1:
        return name
    try:
        return unicodedata.lookup(KEY_TO_UNICODE_NAME.get(name, name.replace("_", " ")))
    except KeyError:
        return ""


def _types(letter: str) -> bool:
    """Whether it is text: no control, and no half of a character."""
    return unicodedata.category(letter) not in {"Cc", "Cs"}
