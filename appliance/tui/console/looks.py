"""How a character on a guest's console looks, and what SGR sequences change about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, TypeAlias

Colour: TypeAlias = int | tuple[int, int, int] | None
"""One of the terminal's 256, or red, green and blue of its own; None is the default."""


class Look(NamedTuple):
    """Colours and attributes of a character. Blinking is not among them: it costs a slow line too much."""

    fg: Colour = None
    bg: Colour = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    strike: bool = False
    reverse: bool = False
    hidden: bool = False


PLAIN = Look()

SWITCHES: dict[int, tuple[tuple[str, bool], ...]] = {
    1: (("bold", True),),
    2: (("dim", True),),
    3: (("italic", True),),
    4: (("underline", True),),
    7: (("reverse", True),),
    8: (("hidden", True),),
    9: (("strike", True),),
    21: (("underline", True),),
    22: (("bold", False), ("dim", False)),
    23: (("italic", False),),
    24: (("underline", False),),
    27: (("reverse", False),),
    28: (("hidden", False),),
    29: (("strike", False),),
}
FOREGROUND, BACKGROUND, UNDERLINE = 38, 48, 58
SIDES = {FOREGROUND: "fg", BACKGROUND: "bg"}


@lru_cache(maxsize=2048)
def changed(look: Look, parameters: str) -> Look:
    """`look` after an SGR sequence with these parameters, such as `1;38;5;208` or `38:2::255:128:0`."""
    values: dict[str, object] = {}
    groups = iter(parameters.split(";"))
    for group in groups:
        code, *inner = (_number(part) for part in group.split(":"))
        if code == 0:
            values = dict(PLAIN._asdict())
        elif code == 4 and inner:  # curly, dotted, or 0 for none
            values["underline"] = inner[0] != 0
        elif code in SWITCHES:
            values.update(SWITCHES[code])
        elif code in {FOREGROUND, BACKGROUND, UNDERLINE}:
            colour = _colon_colour(inner) if inner else _following_colour(groups)
            if colour is not None and code in SIDES:
                values[SIDES[code]] = colour
        elif 30 <= code <= 37 or 90 <= code <= 97:
            values["fg"] = code - 30 if code < 40 else code - 90 + 8
        elif 40 <= code <= 47 or 100 <= code <= 107:
            values["bg"] = code - 40 if code < 50 else code - 100 + 8
        elif code in {39, 49}:
            values["fg" if code == 39 else "bg"] = None
    return look._replace(**values)  # type: ignore[arg-type]  # the names are the fields'


def _number(digits: str) -> int:
    return min(int(digits), 9999) if digits.isdecimal() else 0


def _colon_colour(inner: list[int]) -> Colour:
    """Of `5:n`, `2:r:g:b`, or `2:space:r:g:b`."""
    if inner[0] == 5 and len(inner) > 1:
        return _indexed(inner[1])
    if inner[0] == 2 and len(inner) > 3:
        return _rgb(inner[2:5] if len(inner) > 4 else inner[1:4])
    return None


def _following_colour(groups: Iterator[str]) -> Colour:
    """Of `5;n` or `2;r;g;b`, which are taken from `groups`."""
    kind = _number(next(groups, ""))
    if kind == 5:
        return _indexed(_number(next(groups, "")))
    if kind == 2:
        return _rgb([_number(next(groups, "")) for _ in range(3)])
    return None


def _indexed(number: int) -> Colour:
    return number if number <= 255 else None


def _rgb(parts: list[int]) -> Colour:
    red, green, blue = (min(part, 255) for part in parts)
    return (red, green, blue)
