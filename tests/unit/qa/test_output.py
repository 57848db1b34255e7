"""Tables line up, and nothing in them can talk to the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import yaml

from appliance.qa.context import Context, Streams
from appliance.qa.forms import Record, as_csv, as_paragraph, as_wide_table, as_yaml
from appliance.qa.grammar import Invocation, parse
from appliance.qa.output import Cell, Column, Json, as_json, instant, span, table

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


RECORD: dict[str, Json] = {
    "id": 1,
    "name": 'a "b", c',
    "on": True,
    "tags": ["x", "y"],
    "cpus": None,
    "tail": "one\ntwo\x1b[2J",
}


def test_csv_is_read_back() -> None:
    header, row = csv.reader(io.StringIO(as_csv([RECORD])))
    assert header == list(RECORD)
    assert row == ["1", 'a "b", c', "true", "x,y", "", "one\ntwo\x1b[2J"]
    assert as_csv([RECORD], headings=False) == as_csv([RECORD]).partition("\n")[2]
    assert as_csv([]) == ""


def test_yaml_is_read_back_in_order() -> None:
    read = yaml.safe_load(as_yaml([RECORD, {"name": "no", "text": "é"}]))
    assert read == [RECORD, {"name": "no", "text": "é"}]
    assert list(read[0]) == list(RECORD)
    assert "é" in as_yaml({"name": "é"})


def test_the_wide_table_has_all_keys_on_one_line_each() -> None:
    assert as_wide_table([RECORD]) == (
        "id name     on  tags cpus tail\n"
        "-----------------------------------\n"
        '1  a "b", c yes x, y -    (2 lines)\n'
    )


def test_one_object_has_a_line_for_each_key() -> None:
    assert as_paragraph(RECORD) == (
        'id    1\nname  a "b", c\non    yes\ntags  x, y\ncpus  -\ntail\n    one\n    two [2J\n'
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, None),
        (0, "0s"),
        (45, "45s"),
        (60, "1m"),
        (7800, "2h10m"),
        (3 * 86400 + 59, "3d"),
        (86400 + 3600, "1d1h"),
        (-300, "-5m"),
        (-0.5, "0s"),
    ],
)
def test_spans_show_their_two_largest_units(seconds: float | None, shown: str | None) -> None:
    assert span(seconds) == shown


ACTING = "\x00\x1b\x7f\x85\x9b\xad\u061c\u200e\u2028\u202e\u2066\ufeff\U000e0001"


@pytest.mark.parametrize(("form", "read"), [(as_json, json.loads), (as_yaml, yaml.safe_load)])
def test_what_acts_is_written_by_its_number(
    form: Callable[[Record], str], read: Callable[[str], object]
) -> None:
    text = f"é日本\t{ACTING}"
    written = form({"name": text})
    assert all(char.isprintable() or char == "\n" for char in written)
    assert read(written) == {"name": text}
    assert "é日本" in form({"name": "é日本"})


def test_half_characters_are_written_by_their_numbers() -> None:
    written = as_json({"name": "\udc9b"})
    assert written.isascii()
    assert json.loads(written) == {"name": "\udc9b"}
    assert as_yaml({"name": "\udc9b"}).isascii()


class Terminal(io.StringIO):
    """What shows what is written."""

    def isatty(self) -> bool:
        return True


def invocation(*words: str) -> Invocation:
    return parse([*words, "vm", "list"])


def test_csv_is_harmless_on_a_terminal_and_as_it_is_elsewhere() -> None:
    for stream, shown in ((Terminal(), "a\n [2Jb\tc "), (io.StringIO(), "a\n\x1b[2Jb\tc\x9b")):
        Context(invocation("-o", "csv"), streams=Streams(output=stream)).data(
            {"id": 1, "text": "a\n\x1b[2Jb\tc\x9b"}
        )
        assert list(csv.reader(io.StringIO(stream.getvalue()))) == [["id", "text"], ["1", shown]]


def test_words_for_people_do_nothing_at_their_terminal() -> None:
    output, words = io.StringIO(), io.StringIO()
    context = Context(invocation(), streams=Streams(output, words))
    context.note("Warning: \x1b]52;c;eA==\x07\nand more\r")
    context.say("Done: \x9b2J")
    assert words.getvalue() == "Warning:  ]52;c;eA== \nand more \n"
    assert output.getvalue() == "Done:  2J\n"
