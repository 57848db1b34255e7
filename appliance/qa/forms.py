"""The forms of output for programs, and the wide table; pure. Keys are only ever added.

A record is a mapping of plain JSON values, whose keys are the schema: an object in JSON and YAML, a row
in CSV, a column in the wide table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from appliance.harmless import printable
from appliance.qa.output import ABSENT, Cell, Column, Json, acts, table, yes_no

Record: TypeAlias = Mapping[str, Json]


def as_yaml(value: Record | Sequence[Record]) -> str:
    """The same objects as YAML; in ASCII alone if anything in them would act on a terminal."""
    import yaml  # a large import, wanted by few calls

    plain = _plain(value) if isinstance(value, Mapping) else [_plain(record) for record in value]
    text: str = yaml.safe_dump(plain, allow_unicode=True, sort_keys=False, width=10_000)
    if acts(text):
        text = yaml.safe_dump(plain, allow_unicode=False, sort_keys=False, width=10_000)
    return text


def _plain(record: Record) -> dict[str, Json]:
    """The record without enumerations, which YAML would not take for texts."""
    return {key: str(value) if isinstance(value, str) else value for key, value in record.items()}


def as_csv(value: Record | Sequence[Record], *, headings: bool = True) -> str:
    """Rows of RFC 4180 below the keys; absence is empty, flags are `true` and `false`."""
    records = [value] if isinstance(value, Mapping) else value
    if not records:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if headings:
        writer.writerow(records[0])
    writer.writerows([_csv_cell(cell) for cell in record.values()] for record in records)
    return text.getvalue()


def as_wide_table(records: Sequence[Record], *, headings: bool = True) -> str:
    """A table of all keys; a text of several lines shows how many there are."""
    return table([_column(key) for key in records[0]], records, headings=headings)


def as_paragraph(record: Record) -> str:
    """One object for people: a line for each key, texts of several lines indented below theirs."""
    width = max(map(len, record), default=0)
    return "".join(_entry(key, value, width) for key, value in record.items())


def _column(key: str) -> Column[Record]:
    return Column(key, lambda record: _cell(record[key]))


def _entry(key: str, value: Json, width: int) -> str:
    if isinstance(value, str) and "\n" in value:
        return f"{key}\n" + "".join(f"    {printable(line)}\n" for line in value.splitlines())
    cell = _cell(value)
    return f"{key:<{width}}  {ABSENT if cell in (None, '') else printable(str(cell))}\n"


def _cell(value: Json) -> Cell:
    if isinstance(value, bool):
        return yes_no(value)
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, str) and "\n" in value:
        return f"({len(value.splitlines())} lines)"
    return value


def _csv_cell(value: Json) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, list) else value
