from __future__ import annotations

import pytest

from appliance.tui.console.interpreter import Interpreter
from appliance.tui.console.reading import Reading
from appliance.tui.console.screen import GuestScreen


def reading_of(output: str, columns: int = 20, lines: int = 4, height: int | None = None) -> Reading:
    screen = GuestScreen(columns, lines)
    Interpreter(screen).feed(output.encode())
    return Reading(screen, height=height or lines)


TEN = "\r\n".join(f"line {number}" for number in range(10))


def test_the_view_follows_live_until_it_is_scrolled_and_then_stands_still() -> None:
    reading = reading_of(TEN)
    assert (reading.first_in_view, reading.lines_back) == (6, 0)
    reading.scroll(-3)
    Interpreter(reading.screen).feed(b"\r\nmore\r\nand more")
    assert (reading.first_in_view, reading.lines_back) == (3, 5)
    reading.scroll(-100)
    assert reading.first_in_view == 0
    reading.scroll(100)
    assert (reading.top, reading.lines_back) == (None, 0)


def test_a_guest_with_a_larger_screen_than_ours_is_seen_where_its_cursor_is() -> None:
    reading = reading_of(TEN, lines=10, height=3)
    assert reading.first_in_view == 7
    Interpreter(reading.screen).feed(b"\x1b[H")
    assert reading.first_in_view == 0


def test_search_goes_up_and_down_and_around() -> None:
    reading = reading_of(TEN)
    assert reading.search("LINE 3") is False
    assert reading.search("line 3")
    assert reading.found == (3, 0)
    assert reading.first_in_view <= 3 < reading.first_in_view + 4
    assert reading.search("line")
    assert reading.search_on(older=False)
    reading.found = (0, 0)
    assert reading.search_on(older=True)
    assert reading.found == (9, 0)
    assert reading.search_on(older=False)
    assert reading.found == (0, 0)
    assert not reading.search("nothing of this kind")
    assert not reading.search("")


def test_a_search_looks_no_further_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = reading_of("\r\n".join("many words" for _ in range(1000)))
    looked_at: list[int] = []
    occurrences = Reading.occurrences

    def counted(self: Reading, number: int) -> list[tuple[int, int]]:
        looked_at.append(number)
        return occurrences(self, number)

    monkeypatch.setattr(Reading, "occurrences", counted)
    assert reading.search("words")
    for older in (True, True, False):
        assert reading.search_on(older=older)
    assert reading.found == (998, 5)
    assert len(looked_at) < 20


def test_search_finds_every_place_of_a_line_in_both_directions() -> None:
    reading = reading_of("x x\r\n\r\nx x")
    found = []
    assert reading.search("x")
    for older in (True, True, True, True, False, False, False):
        found.append(reading.found)
        reading.search_on(older=older)
    assert found == [(2, 2), (2, 0), (0, 2), (0, 0), (2, 2), (0, 0), (0, 2)]
    assert reading.found == (2, 0)


def test_capitals_that_are_longer_in_small_letters_move_nothing() -> None:
    reading = reading_of("\u0130\u0130 x Abc")
    reading.search("abc")
    assert reading.occurrences(0) == [(5, 8)]


def test_occurrences_are_columns_also_behind_wide_characters() -> None:
    reading = reading_of("日本 x 日本 X")
    reading.search("x")
    assert reading.occurrences(0) == [(5, 6), (12, 13)]
    reading.search("X")
    assert reading.occurrences(0) == [(12, 13)]
    reading.search("本")
    assert reading.occurrences(0) == [(2, 4), (9, 11)]


def test_what_is_selected_is_copied_and_otherwise_what_is_in_view() -> None:
    reading = reading_of(TEN)
    assert reading.text() == "line 6\nline 7\nline 8\nline 9"
    reading.select((7, 3), begin=True)
    reading.select((5, 2), begin=False)
    assert reading.text() == "ne 5\nline 6\nline"
    assert reading.selected(6) == (0, 20)
    assert reading.selected(4) is None
    reading.select_nothing()
    assert reading.selected(6) is None


def test_wide_characters_are_selected_whole() -> None:
    reading = reading_of("ab日本cd")
    reading.select((0, 1), begin=True)
    reading.select((0, 4), begin=False)
    assert reading.text() == "b日本"
