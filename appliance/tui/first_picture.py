"""The first picture: desktops in a terminal before Textual, which draws all the others, is imported. Pure.

It shows what Textual's first picture shows: the same rows in the same columns, with the same colours, so that
nothing moves when that takes its place. Tabs and keys are missing, as there is nothing yet that obeys them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size

from appliance.storage.live import VmLine
from appliance.tui.columns import Column, Scene, place
from appliance.tui.listing import Listing
from appliance.tui.rows import Piece, cells_of, header, row, wanted
from appliance.tui.summary import summary
from appliance.tui.tally import Tally
from appliance.tui.view import VM_COLUMNS

SCROLLBAR = 1
BARS = 3
"""Lines around the table: how things are, the tabs, the keys."""
SAMPLED = 2000
SORT = "name"
OPENING = " opening"
LEAST_SIZE = (40, 8)
"""Columns and lines of a terminal in which something can be shown."""


@dataclass(frozen=True, slots=True)
class Look:
    """The colours of a theme, as `RRGGBB`; none: those of the terminal."""

    ground: str = ""
    panel: str = ""
    bar: str = ""
    bar_text: str = ""
    cursor: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Of the styles of cells."""


def _look(ground: str, panel: str, bar: str, bar_text: str, cursor: str, *texts: str) -> Look:
    names = ("plain", "dim", "good", "busy", "warn", "bad", "info")
    return Look(ground, panel, bar, bar_text, cursor, dict(zip(names, texts, strict=True)))


LOOKS = {
    "qvd-dark": _look(
        *("12171e", "222c38", "1f4e6e", "e1e7ec", "294254"),
        *("dce3ea", "8a97a6", "a7d8aa", "f6d088", "f5c088", "ef989c", "95c5e1"),
    ),
    "qvd-light": _look(
        *("fbfcfd", "e2e8ee", "bbd9ea", "181c1e", "b8d0de"),
        *("1b232c", "5a6773", "1e5221", "653c00", "753e00", "761913", "134563"),
    ),
    "qvd-contrast": _look(
        *("000000", "202020", "003c5a", "dde5e9", "004c4c"),
        *("ffffff", "d0d0d0", "56ff56", "ffff56", "ffff56", "ff9696", "56ffff"),
    ),
    "qvd-colourblind": _look(
        *("14181d", "252c35", "124a6e", "e0e7ec", "27465a"),
        *("e6e9ec", "93a0ad", "8fcdf0", "f5ed82", "eebf56", "ffaa8b", "8fcdf0"),
    ),
}
"""What Textual makes of our themes. A test holds the two together."""
COLOURLESS = Look()
STRONG = frozenset({"strong", "bad", "header", "sorted"})
OF_STYLE = {"strong": "plain", "header": "dim", "sorted": "info"}
"""The colours of styles that are others in bold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What is shown, and where."""

    tally: Tally
    node: str
    read_only: bool
    scene: Scene
    columns: Sequence[str]
    """The columns that somebody has chosen; none: the usual ones."""
    look: Look
    width: int
    height: int


def picture(office: Office) -> str:
    """The whole screen, from its upper left corner, in escape sequences; empty if there is no room for it."""
    width, height, look = office.width, office.height, office.look
    if width < LEAST_SIZE[0] or height < LEAST_SIZE[1]:
        return ""
    lines = [_bar(office), _line([(OPENING, "dim")], width, look, look.panel)]
    lines += _table(office, height - BARS)
    lines.append(_line([], width, look, look.panel))
    return "\x1b[H" + "\r\n".join(lines) + "\x1b[m"


def _bar(office: Office) -> str:
    look, signs = office.look, office.scene.glyphs
    told, room = [], office.width - 2
    parts = summary(office.node, None, office.tally, signs, read_only=office.read_only, room=room)
    too_long = sum(len(text) for text, _ in parts) > room
    room -= too_long
    for text, style in [*parts, (" " * office.width, "")]:
        told.append(_painted(text[:room], look.bar_text, look.bar, strong=bool(style)))
        room -= len(text[:room])
        if too_long and not room:
            told.append(_painted(signs.ellipsis, look.bar_text, look.bar, strong=bool(style)))
            break
    blank = _painted(" ", look.bar_text, look.bar)
    return f"{blank}{''.join(told)}{blank}"


def _table(office: Office, height: int) -> list[str]:
    look, scene, signs = office.look, office.scene, office.scene.glyphs
    columns: list[Column[VmLine]] = [
        column
        for column in VM_COLUMNS
        if (column.key in office.columns if office.columns else not column.optional)
    ]
    sort = next(column.sort for column in VM_COLUMNS if column.key == SORT)
    assert sort is not None
    listing: Listing[VmLine] = Listing(sort)
    listing.replace(office.tally.vms)
    width = office.width - SCROLLBAR
    sample = list(office.tally.vms.values())[:SAMPLED]
    placed = place(columns, wanted(columns, sample, scene), width)
    blank = _painted(" " * SCROLLBAR, look.texts.get("plain", ""), look.ground)
    lines = [_line(header(placed, SORT, signs, reverse=False), width, look, look.panel) + blank]
    for index in range(height - 1):
        pieces: list[Piece] = []
        if index < len(listing):
            cells = cells_of(listing.records[listing.key_at(index)], placed, scene)
            pieces = row(cells, placed, signs, here=index == 0, marked=False)
        ground = look.cursor if pieces and index == 0 else look.ground
        lines.append(_line(pieces, width, look, ground) + blank)
    return lines


def _line(pieces: Sequence[Piece], width: int, look: Look, ground: str) -> str:
    told, room = [], width
    for text, style in pieces:
        cut = text if text.isascii() and len(text) <= room else set_cell_size(text, min(room, cell_len(text)))
        colour = look.texts.get(OF_STYLE.get(style, style), "")
        told.append(_painted(cut, colour, ground, strong=style in STRONG))
        room -= len(cut) if cut.isascii() else cell_len(cut)
    return "".join(told) + _painted(" " * room, look.texts.get("plain", ""), ground)


def _painted(text: str, colour: str, ground: str, *, strong: bool = False) -> str:
    codes = ["0", *(["1"] if strong else [])]
    for number, hexed in ((38, colour), (48, ground)):
        if hexed:
            codes.append(f"{number};2;{int(hexed[:2], 16)};{int(hexed[2:4], 16)};{int(hexed[4:], 16)}")
    return f"\x1b[{';'.join(codes)}m{text}" if text else ""
