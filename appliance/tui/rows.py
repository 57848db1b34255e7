"""How the rows of a table read on the screen, as pieces of text with the names of their styles. Pure.

The table draws them with Textual, the first picture without it; both look the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from rich.cells import cell_len, set_cell_size

from appliance.tui.columns import Cell, Column, Placed, Scene
from appliance.tui.glyphs import Glyphs

R = TypeVar("R")
Piece: TypeAlias = tuple[str, str]
"""A text, and the name of its style: one of columns.STYLES, or `header`, `sorted`, `marked`."""


def cells_of(record: R, placed: Sequence[Placed[R]], scene: Scene) -> tuple[Cell, ...]:
    """What the columns that are shown tell of a record."""
    return tuple([one.column.cell(record, scene) for one in placed])


def row(
    cells: Sequence[Cell], placed: Sequence[Placed[Any]], glyphs: Glyphs, *, here: bool, marked: bool
) -> list[Piece]:
    """One row, in as few pieces as it has looks; `here`: the cursor is on it."""
    sign = glyphs.mark if marked else glyphs.cursor if here else " "
    texts, styles = [f"{sign} "], ["marked" if marked else "plain"]
    for one, (text, style) in zip(placed, cells, strict=True):
        if marked and one is placed[0]:
            style = "marked"
        text = f"{fit(text, one.width, glyphs, right=one.column.right, ends=one.column.ends)} "
        if style == styles[-1] or text.isspace():
            texts[-1] += text
        else:
            texts.append(text)
            styles.append(style)
    return list(zip(texts, styles, strict=True))


def header(
    placed: Sequence[Placed[Any]], sort_key: str | None, glyphs: Glyphs, *, reverse: bool
) -> list[Piece]:
    """The titles of the columns, with a sign at the one that sorts."""
    pieces: list[Piece] = [("  ", "header")]
    for one in placed:
        title, ours = one.column.title, one.column.key == sort_key
        if ours:
            title = f"{title}{glyphs.down if reverse else glyphs.up}"
        text = fit(title, one.width, glyphs, right=one.column.right)
        pieces += [(text, "sorted" if ours else "header"), (" ", "header")]
    return pieces


def wanted(columns: Sequence[Column[R]], records: Iterable[R], scene: Scene) -> dict[str, int]:
    """How wide the contents of each column are that may grow."""
    sample, widths = list(records), dict[str, int]()
    for column in columns:
        if column.least == column.most:
            continue
        texts = {column.cell(record, scene)[0] for record in sample}
        widest = max((len(text) if text.isascii() else cell_len(text) for text in texts), default=0)
        widths[column.key] = max(widest, len(column.title) + 1)
    return widths


def fit(text: str, width: int, glyphs: Glyphs, *, right: bool = False, ends: bool = False) -> str:
    """A text that is exactly so wide; of one that is too long, the beginning, or with `ends` the end."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    length = len(text) if text.isascii() else cell_len(text)
    if length > width and ends:
        return glyphs.ellipsis + set_cell_size(text[::-1], width - 1)[::-1]
    if length > width:
        return set_cell_size(text, width - 1) + glyphs.ellipsis
    blank = " " * (width - length)
    return blank + text if right else text + blank
