"""What a guest prints, and what is on its screen then."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from appliance.tui.console import screen as screens
from appliance.tui.console.interpreter import Interpreter
from appliance.tui.console.looks import PLAIN, Look, changed
from appliance.tui.console.rows import Line, text_of
from appliance.tui.console.screen import GuestScreen


def shown(output: str | bytes, columns: int = 10, lines: int = 4) -> GuestScreen:
    """A screen on which a guest has printed `output`."""
    screen = GuestScreen(columns, lines)
    Interpreter(screen).feed(output if isinstance(output, bytes) else output.encode())
    return screen


def rows(screen: GuestScreen) -> list[str]:
    return [text_of(screen.line(number)) for number in range(screen.top, screen.end)]


def kept(screen: GuestScreen) -> list[str]:
    return [text_of(screen.line(number)) for number in range(screen.first, screen.top)]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("one\r\ntwo", ["one", "two", "", ""]),
        ("0123456789abc", ["0123456789", "abc", "", ""]),
        ("\x1b[?7l0123456789abc", ["012345678c", "", "", ""]),
        ("abc\rX", ["Xbc", "", "", ""]),
        ("abc\x08\x08X", ["aXc", "", "", ""]),
        ("a\tb", ["a       b", "", "", ""]),
        ("a\tb\x1b[Zc", ["a       c", "", "", ""]),
        ("\x1b[3;4Hx\x1b[1;1Hy", ["y", "", "   x", ""]),
        ("abcdef\x1b[3D\x1b[K", ["abc", "", "", ""]),
        ("abcdef\x1b[3D\x1b[1K", ["    ef", "", "", ""]),
        ("abc\x1b[2J\x1b[Hx", ["x", "", "", ""]),
        ("abc\x1b[9J\x1b[9K", ["abc", "", "", ""]),
        ("abcd\x1b[2G\x1b[P", ["acd", "", "", ""]),
        ("abcd\x1b[2G\x1b[2@", ["a  bcd", "", "", ""]),
        ("abcd\x1b[2G\x1b[2X", ["a  d", "", "", ""]),
        ("abcd\x1b[2G\x1b[4hX\x1b[4l", ["aXbcd", "", "", ""]),
        ("a\x1b[3b", ["aaaa", "", "", ""]),
        ("日\x1b[9999b", ["日日日日日"] * 2 + ["日", ""]),
        ("\x1b(0q\x1b(Aq", ["─q", "", "", ""]),
        ("a\r\nb\r\nc\x1b[2;1H\x1b[L", ["a", "", "b", "c"]),
        ("a\r\nb\r\nc\x1b[2;1H\x1b[M", ["a", "c", "", ""]),
        ("a\r\nb\r\nc\r\nd\x1b[2;3r\x1b[3;1H\nX\x1b[r", ["a", "c", "X", "d"]),
        ("a\r\nb\x1b[H\x1bMx", ["x", "a", "b", ""]),
        ("a\r\nb\x1b[T\x1b[S", ["a", "b", "", ""]),
        ("\x1b(0lqk\x1b(Bq", ["┌─┐q", "", "", ""]),
        ("\x1b)0\x0eq\x0fq", ["─q", "", "", ""]),
        ("e\u0301x", ["éx", "", "", ""]),
        ("日本\x1b[1;3HX", ["日X", "", "", ""]),
        ("日本\x1b[1;2HX", [" X本", "", "", ""]),
        ("12345678 日", ["12345678", "日", "", ""]),
        ("a\u200db\ufe0fc", ["abc", "", "", ""]),
        ("\x1b7abc\x1b8X", ["Xbc", "", "", ""]),
        ("a\x1b]0;title\x07b\x1b]52;c;eA==\x1b\\c\x1b[6nd\x1b[ce\x1bPq\x1b\\f", ["abcdef", "", "", ""]),
        ("a\x00\x05\x7fb", ["ab", "", "", ""]),
        (b"a\xffb\xe2\x82", ["a\ufffdb", "", "", ""]),
        ("abc\x1bc", ["", "", "", ""]),
    ],
)
def test_what_is_printed_is_on_the_screen(output: str | bytes, expected: list[str]) -> None:
    assert rows(shown(output)) == expected


def test_what_scrolls_off_is_kept_and_keeps_its_numbers() -> None:
    screen = shown("\r\n".join(f"line {number}" for number in range(10)))
    assert kept(screen) == [f"line {number}" for number in range(6)]
    assert rows(screen) == ["line 6", "line 7", "line 8", "line 9"]
    assert (screen.first, screen.top, screen.end) == (0, 6, 10)
    assert screen.line(-1) == screen.line(10) == ()


def test_a_part_that_scrolls_below_others_is_not_kept() -> None:
    assert kept(shown("a\r\nb\x1b[2;3r\x1b[3;1H\n\n\n\n")) == []


def test_a_guest_cannot_make_anybody_forget_what_has_scrolled_off() -> None:
    assert kept(shown("\r\n".join("abcdef") + "\x1b[3J")) == ["a", "b"]


def test_what_was_taken_is_done_in_parts_of_one_sequence() -> None:
    screen = GuestScreen(10, 4)
    interpreter = Interpreter(screen)
    interpreter.take(b"one\x1b[2;1Htwo\x1b[3")
    asked = 0

    def goes_on() -> bool:
        nonlocal asked
        asked += 1
        return False

    while not interpreter.work(goes_on):
        assert not interpreter.is_idle
    assert interpreter.is_idle
    assert asked == 3
    interpreter.feed(b";1Hthree")
    assert rows(screen) == ["one", "two", "three", ""]


def test_no_tab_stop_is_beyond_the_margin() -> None:
    screen = GuestScreen(30, 2)
    screen.resize(2, 20)
    Interpreter(screen).feed(b"\x1b[1;18Ha\tb")
    assert rows(screen) == [" " * 17 + "a b", ""]
    screen.resize(2, 30)
    Interpreter(screen).feed(b"\r\n\t\t\tc")
    assert rows(screen)[-1] == " " * 24 + "c"


def test_the_other_screen_has_no_scrollback_and_gives_the_first_back() -> None:
    screen = shown("shell\r\n$ vi")
    feed = Interpreter(screen).feed
    feed(b"\x1b[?1049h\x1b[H" + b"~\r\n" * 20)
    assert screen.is_alternate
    assert rows(screen)[0] == "~"
    feed(b"\x1b[?1049l\r\ndone")
    assert rows(screen) == ["shell", "$ vi", "done", ""]
    assert kept(screen) == []


def test_scrollback_is_bounded_by_lines_and_by_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "SCROLLBACK_LINES", 20)
    assert kept(shown("".join(f"{number}\r\n" for number in range(100))))[0] == "77"
    monkeypatch.setattr(screens, "SCROLLBACK_BYTES", 5000)
    costly = "".join(f"\x1b[38;5;{number}mx" for number in range(10)) + "\r\n"
    assert len(kept(shown(costly * 100))) < 5


def test_a_flood_of_saved_cursors_and_modes_keeps_nothing() -> None:
    screen = shown(b"\x1b7\x1b[?25h" * 10_000)
    assert screen.savepoints == []
    assert len(screen._saved) == 1


@pytest.mark.parametrize(
    ("sgr", "look"),
    [
        ("1;31", Look(fg=1, bold=True)),
        ("2;3;4;7;9", Look(dim=True, italic=True, underline=True, reverse=True, strike=True)),
        ("38;5;208;48;5;17", Look(fg=208, bg=17)),
        ("38;2;1;2;300", Look(fg=(1, 2, 255))),
        ("38:2::1:2:3", Look(fg=(1, 2, 3))),
        ("38:2:1:2:3", Look(fg=(1, 2, 3))),
        ("48:5:9", Look(bg=9)),
        ("4:3", Look(underline=True)),
        ("58;5;1;1", Look(bold=True)),
        ("97;100", Look(fg=15, bg=8)),
        ("1;0;3", Look(italic=True)),
        ("1;2;22", PLAIN),
        ("31;39;41;49", PLAIN),
        ("", PLAIN),
        ("38", PLAIN),
        ("38;5", Look(fg=0)),
        ("38;9;1", Look(bold=True)),
    ],
)
def test_looks(sgr: str, look: Look) -> None:
    assert changed(PLAIN, sgr) == look
    assert shown(f"\x1b[{sgr}mx").line(0) == (("x", look),)


def test_what_is_erased_has_the_background_and_nothing_else() -> None:
    screen = shown("\x1b[4;41mx\x1b[K")
    assert screen.line(0) == (("x", Look(bg=1, underline=True)), (" " * 9, Look(bg=1)))


def test_modes_are_known() -> None:
    screen = shown("\x1b[?1h\x1b[?2004h\x1b[?25l\x1b[?5h")
    assert screen.private_modes == {1, 2004, 5}
    assert screen.cursor.hidden
    assert screen.is_reversed
    Interpreter(screen).feed(b"\x1b[!p")
    assert screen.private_modes == set()
    assert not screen.cursor.hidden


def test_only_what_has_changed_is_dirty() -> None:
    screen = shown("a\r\nb")
    screen.dirty.clear()
    Interpreter(screen).feed(b"\x1b[2;5Hx")
    assert screen.dirty == {1}


def test_a_smaller_screen_loses_blank_lines_first_and_keeps_what_it_must_scroll_off() -> None:
    screen = shown("a\r\nb")
    screen.resize(3, 10)
    assert (kept(screen), rows(screen)) == ([], ["a", "b", ""])
    Interpreter(screen).feed(b"\r\nc")
    screen.resize(2, 10)
    assert (kept(screen), rows(screen)) == (["a"], ["b", "c"])
    Interpreter(screen).feed(b"!")
    screen.resize(4, 5)
    assert rows(screen) == ["b", "c!", "", ""]


def test_a_size_that_changes_under_a_full_screen_program_fits_the_shell_too() -> None:
    screen = shown("a\r\nb\r\nc\r\nd")
    feed = Interpreter(screen).feed
    feed(b"\x1b[?1049h\x1b[H~")
    screen.resize(2, 20)
    feed(b"\x1b[?1049l")
    assert (kept(screen), rows(screen)) == (["a", "b"], ["c", "d"])


PIECES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [b"\x1b[", b"\x1b]0;", b"\x1b(0", b"\r\n", b"\n", "日本".encode(), "e\u0301".encode(), b"\x1b[?1049h"]
        + [
            b"\x1b[?1049l",
            b"\x1b[2;3r",
            b"\x1b[r",
            b"\x1b[5;5H",
            b"\x1b[9999B",
            b"\x1b[4h",
            b"\x1b7",
            b"\x1b8",
        ]
        + [
            b"\x1b[%d%c" % (number, final)
            for number in (0, 1, 3, 9999)
            for final in b"@ABCDEFGHIJKLMPSTXZ`abdefgm"
        ]
    ),
)


def state(screen: GuestScreen) -> tuple[list[Line], int, int]:
    return [screen.line(n) for n in range(screen.first, screen.end)], screen.cursor.x, screen.cursor.y


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=30), st.integers(1, 200), st.tuples(st.integers(1, 9), st.integers(1, 12)))
def test_any_bytes_in_any_pieces_are_survived_and_fit(
    pieces: list[bytes], cut: int, size: tuple[int, int]
) -> None:
    output = b"".join(pieces)
    whole = shown(output, columns=7, lines=4)
    cut_up = GuestScreen(7, 4)
    interpreter = Interpreter(cut_up)
    for start in range(0, len(output), cut):
        interpreter.feed(output[start : start + cut])
        for row in cut_up._rows:
            assert isinstance(row.cells, dict)  # rows of cells and rows of pieces look alike
    assert state(whole) == state(cut_up)
    for screen in (whole, cut_up):
        screen.resize(*size)
        Interpreter(screen).feed(output)
        assert len(rows(screen)) == size[0]
        assert all(cell_len(row) <= size[1] for row in rows(screen))
        assert 0 <= screen.cursor.y < size[0]
        assert 0 <= screen.cursor.x <= size[1]
