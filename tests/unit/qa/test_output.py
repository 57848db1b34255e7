"""Tables line up, and nothing in them can talk to the terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from appliance.qa.output import Cell, Column, instant, table

COLUMNS: tuple[Column[tuple[Cell, Cell, Cell]], ...] = (
    Column("Id", lambda row: row[0]),
    Column("Name", lambda row: row[1]),
    Column("Size", lambda row: row[2]),
)


def test_numbers_stand_on_their_decimal_point_and_absence_shows() -> None:
    rows: list[tuple[Cell, Cell, Cell]] = [(1, "ä", 1.5), (10, None, 200), (100, "日本", None)]
    assert table(COLUMNS, rows, headings=True) == (
        "Id  Name Size\n--------------\n  1 ä      1.5\n 10 -    200\n100 日本 -\n"
    )


def test_without_headings_only_rows() -> None:
    assert table(COLUMNS, [(1, "a", 2)], headings=False) == "1 a 2\n"


def test_nothing_reaches_the_terminal_as_a_command() -> None:
    shown = table(COLUMNS, [(1, "a\x1b[2Jb\nc", 2)], headings=False)
    assert shown == "1 a [2Jb c 2\n"


def test_instants_are_utc() -> None:
    assert instant(datetime(2030, 1, 31, 18, 0, tzinfo=UTC)) == "2030-01-31T18:00:00Z"
