"""Any text is a time, or a fault at a place in it; and an instant is read as itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.attime import Reading, read, read_at, read_instant
from appliance.errors import TimeExpressionError

ZONE = ZoneInfo("Europe/Madrid")
NOW = datetime(2026, 11, 27, 15, 40, 13, tzinfo=UTC)
WORDS = (
    *("now", "next", "sat", "noon", "utc", "am", "+", "-", "/", ",", "3", "12", "2030", "010131", "weeks"),
    *("10:30", "1.2.2030", "2030-02-30", "T18:00", "Z", "in", "día", "9" * 5000, "\0", "\ud800", " ", "\n"),
)
texts = st.text(max_size=30) | st.lists(st.sampled_from(WORDS), max_size=6).map("".join)


Read = Callable[[str, datetime, ZoneInfo], Reading]


def judged(reader: Read, text: str) -> Reading | TimeExpressionError:
    """What a reader says; nothing else may come out of it."""
    try:
        return reader(text, NOW, ZONE)
    except TimeExpressionError as exc:
        return exc


def is_told_well(found: Reading | TimeExpressionError, text: str) -> bool:
    if isinstance(found, Reading):
        return not (found.understood_as and found.is_past)
    return 0 <= found.place <= len(text) and found.pointer().endswith("^")


@given(texts)
def test_at_reads_or_tells_where_it_fails(text: str) -> None:
    assert is_told_well(judged(read_at, text), text)


@given(texts)
@settings(max_examples=60, deadline=None)
def test_so_do_all_readers_together(text: str) -> None:
    assert is_told_well(judged(read, text), text)


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9990, 1, 1), timezones=st.just(UTC)))
def test_an_instant_is_read_as_itself(instant: datetime) -> None:
    assert read_instant(instant.astimezone(ZONE).isoformat(), NOW, ZONE) == instant
