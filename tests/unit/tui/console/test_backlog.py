from __future__ import annotations

from appliance.tui.console.backlog import KEPT_BYTES, MOST_BYTES, Backlog, Skipped


def drained(backlog: Backlog) -> list[bytes | Skipped]:
    taken = []
    while backlog:
        taken.append(backlog.take(2_000_000))
    return taken


def test_what_is_drawn_in_time_comes_whole() -> None:
    backlog = Backlog()
    backlog.add(b"abc")
    assert backlog.take(2) == b"ab"
    backlog.add(b"d" * (MOST_BYTES - 10))
    assert backlog.take(10**6) == b"c" + b"d" * (MOST_BYTES - 10)
    assert not backlog


def test_of_too_much_the_newest_lines_stay_and_the_rest_is_counted() -> None:
    backlog = Backlog()
    said = b"".join(b"line %06d\n" % number for number in range(100_000))
    for start in range(0, len(said), 4096):
        backlog.add(said[start : start + 4096])
        assert len(backlog) <= MOST_BYTES
    skipped, rest = drained(backlog)
    assert isinstance(skipped, Skipped)
    assert isinstance(rest, bytes)
    assert rest.startswith(b"line ")
    assert rest.endswith(b"line 099999\n")
    assert KEPT_BYTES - 20 < len(rest) <= MOST_BYTES
    assert skipped.count + len(rest) == len(said)


def test_modes_in_what_is_skipped_still_count_and_do_not_pile_up() -> None:
    backlog = Backlog()
    backlog.add(
        b"\x1b[?1049h\x1b[2;20r\x1b(0\x0e\x1b[?25l\x1b[?1;2004h\x1b[?9999h" + b"\x1b[?25h\x1b[?25l" * 50_000
    )
    backlog.add(b"\x1b[31mx" * 30_000)
    skipped, _ = drained(backlog)
    assert isinstance(skipped, Skipped)
    assert sorted(skipped.lasting.replace(b"\x1b", b" \x1b").split()) == sorted(
        [b"\x1b[?1049h", b"\x1b[2;20r", b"\x1b(0\x0e", b"\x1b[?25l", b"\x1b[?1h", b"\x1b[?2004h", b"\x1b[m"]
    )


def test_a_reset_in_what_is_skipped_undoes_the_modes_before_it() -> None:
    backlog = Backlog()
    backlog.add(b"\x1b[?1049h\x1b[?25l\x1b(0\x1b[!p\x1b[?1h" + b"x" * MOST_BYTES)
    skipped, _ = drained(backlog)
    assert isinstance(skipped, Skipped)
    assert skipped.lasting == b"\x1b[?1049h\x1b[!p\x1b[?1h\x1b[m"


def test_history_is_never_left_out_while_nothing_floods() -> None:
    backlog = Backlog()
    history = b"x" * 1_000_000
    backlog.add(history, whole=True)
    backlog.add(b"live")
    assert drained(backlog) == [history + b"live"]


def test_history_that_never_ends_is_bounded_too() -> None:
    backlog = Backlog(500_000)
    for _ in range(100):
        backlog.add(b"x" * 60_000 + b"\n", whole=True)
        assert len(backlog) <= 500_000 + MOST_BYTES
    assert isinstance(backlog.take(1), Skipped)


def test_without_lines_the_rest_begins_with_a_sequence_or_a_character() -> None:
    backlog = Backlog()
    backlog.add(b"\x1b[5;5Hxyz" * 30_000)
    rest = drained(backlog)[1]
    assert isinstance(rest, bytes)
    assert rest.startswith(b"\x1b[5;5H")
    backlog.add("é".encode() * 100_000 + b"x")
    rest = drained(backlog)[1]
    assert isinstance(rest, bytes)
    rest.decode()


def test_of_a_long_history_only_the_lines_that_can_be_looked_at_are_drawn() -> None:
    backlog = Backlog()
    backlog.add(b"\x1b[?25l" + b"".join(b"%06d\n" % number for number in range(100_000)) + b"$ ", whole=True)
    backlog.keep_lines(3)
    assert drained(backlog) == [b"\x1b[?25l\x1b[m099997\n099998\n099999\n$ "]
    backlog.add(b"a\nb", whole=True)
    backlog.keep_lines(3)
    assert drained(backlog) == [b"a\nb"]
