"""Columns of tables as data: what a cell shows, how rows sort by it, and which columns fit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar

from appliance.tui.glyphs import FULL, Glyphs

R = TypeVar("R")

Cell: TypeAlias = tuple[str, str]
"""A text, and the name of its style: one of STYLES."""

STYLES = ("plain", "strong", "dim", "good", "busy", "warn", "bad", "info")

GAP = 1
"""Between two columns."""
MARGIN = 2
"""Before the first column: the mark of the row."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What cells depend on besides their row."""

    now: datetime
    glyphs: Glyphs = FULL
    usage: Mapping[int, tuple[float | None, int]] = field(default_factory=dict)
    """Cores and bytes of memory that guests use, by VM."""
    silent_node: str | None = None
    """This node, if its daemon is down or hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[R]):
    """One column."""

    key: str
    title: str
    cell: Callable[[R, Scene], Cell]
    sort: Callable[[R], Any] | None = None
    """By what rows are put in order; None: the column cannot be sorted by."""
    least: int
    """The width without which the column is not shown."""
    most: int
    """The width beyond which it does not grow."""
    rank: int = 0
    """Columns of a higher rank go first where there is not room for all."""
    right: bool = False
    """Whether cells stand at its right edge."""
    ends: bool = False
    """Whether what is too long is told apart by its end, as versions are."""
    optional: bool = False
    """Whether it is shown only when somebody chooses it."""


@dataclass(frozen=True, slots=True)
class Placed(Generic[R]):
    """A column on the screen."""

    column: Column[R]
    x: int
    width: int


def place(columns: Sequence[Column[R]], wanted: Mapping[str, int], width: int) -> list[Placed[R]]:
    """Which columns fit into a width, where, and how wide; the least important ones are left out.

    `wanted` tells how wide the contents of a column are; columns grow to that as far as there is room.
    """
    shown = list(columns)
    while len(shown) > 1 and _needed(shown) > width:
        rank = max(column.rank for column in shown)
        worst = [column for column in shown if column.rank == rank]
        shown.remove(worst[-1])
    widths = {column.key: column.least for column in shown}
    spare = width - _needed(shown)
    for column in sorted(shown, key=lambda one: one.rank):
        more = max(0, min(spare, min(column.most, wanted.get(column.key, 0)) - column.least))
        widths[column.key] += more
        spare -= more
    placed, x = [], MARGIN
    for column in shown:
        fits = max(1, min(widths[column.key], width - x))
        placed.append(Placed(column, x, fits))
        x += fits + GAP
    return placed


def _needed(columns: Sequence[Column[Any]]) -> int:
    return MARGIN + sum(column.least for column in columns) + GAP * (len(columns) - 1)
