"""Output: tables for people and JSON for programs; pure. Other forms are in `forms.py`.

Every list is a tuple of `Column`s and a function to plain JSON values; keys are only ever added.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeAlias, TypeVar

from appliance.harmless import printable

T = TypeVar("T")

Json: TypeAlias = str | int | float | bool | list[str] | None
Cell: TypeAlias = str | int | float | None

ABSENT = "-"
MIB = 1024 * 1024
ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters by which a text may act on a terminal, or be shown as another one."""
_OTHER = re.compile(r"[^ -~\n]")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column of a table: its heading, and what it shows of a record."""

    heading: str
    show: Callable[[T], Cell]


def table(columns: Sequence[Column[T]], records: Sequence[T], *, headings: bool) -> str:
    """Columns separated by one blank, texts to the left, numbers on their decimal point (protocol.md 8)."""
    cells = [[column.show(record) for column in columns] for record in records]
    shown = [_aligned([row[place] for row in cells]) for place in range(len(columns))]
    names = [column.heading for column in columns]
    if headings:
        widths = [max(map(_width, [name, *texts])) for name, texts in zip(names, shown, strict=True)]
    else:
        widths = [max(map(_width, texts), default=0) for texts in shown]
    lines = [_line(names, widths), "-" * (sum(widths) + len(widths) - 1)] if headings else []
    lines += [_line([texts[row] for texts in shown], widths) for row in range(len(records))]
    return "".join(f"{line}\n" for line in lines)


def as_json(value: Mapping[str, Json] | Sequence[Mapping[str, Json]]) -> str:
    """One object, or an array of them, as text; what would act on a terminal is written by its number."""
    return _OTHER.sub(_escaped, json.dumps(value, ensure_ascii=False, indent=2)) + "\n"


def acts(text: str) -> bool:
    """Whether there is something in a text, besides its ends of lines, that would act on a terminal."""
    return any(unicodedata.category(found[0]) in ACTING for found in _OTHER.finditer(text))


def instant(at: datetime | None) -> str | None:
    """An instant for programs: ISO 8601, UTC, with Z."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def local_time(at: datetime | None) -> str | None:
    """An instant for people: local time."""
    return None if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float | None) -> str | None:
    """A time span for people, by its two largest units: `3d4h`, `2h10m`, `45s`; what is over has a minus."""
    if seconds is None:
        return None
    rest = abs(int(seconds))
    shown: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        number, rest = divmod(rest, length)
        if number or (shown and len(shown) < 2):
            shown.append(f"{number}{unit}")
    shown = [part for part in shown[:2] if not part.startswith("0")] or ["0s"]
    return ("-" if seconds <= -1 else "") + "".join(shown)


def yes_no(value: bool) -> str:
    """A flag for people."""
    return "yes" if value else "no"


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if unicodedata.category(found[0]) in ACTING else found[0]


def _aligned(cells: Sequence[Cell]) -> list[str]:
    numbers = [cell for cell in cells if isinstance(cell, (int, float)) and not isinstance(cell, bool)]
    if not numbers:
        return [_text(cell) for cell in cells]
    places = max(len(_text(number).partition(".")[0]) for number in numbers)
    shown = []
    for cell in cells:
        text = _text(cell)
        before = text.partition(".")[0]
        shown.append(" " * (places - len(before)) + text if isinstance(cell, (int, float)) else text)
    return shown


def _text(cell: Cell) -> str:
    if cell is None or cell == "":
        return ABSENT
    return printable(str(cell))


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    padded = (text + " " * (width - _width(text)) for text, width in zip(texts, widths, strict=True))
    return " ".join(padded).rstrip()


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
