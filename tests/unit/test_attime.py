"""Times that people write: which reader knows them, what they mean, and where they fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from appliance.attime import limit, local_zone, read, read_at
from appliance.errors import ConfigError, TimeExpressionError

MADRID = ZoneInfo("Europe/Madrid")
NOW = datetime(2026, 11, 27, 15, 40, 13, tzinfo=UTC)
"""A Friday, 16:40 in Madrid."""


def local(text: str, now: datetime = NOW) -> str:
    return read(text, now, MADRID).instant.strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", "2026-11-27 16:40"),
        ("NEXT SAT", "2026-11-28 16:40"),
        ("next friday", "2026-12-04 16:40"),
        ("teatime", "2026-11-28 16:00"),
        ("now + 3 days", "2026-11-30 16:40"),
        ("noon tomorrow", "2026-11-28 12:00"),
        ("4pm + 3 days", "2026-11-30 16:00"),
        ("10am Jul 31", "2027-07-31 10:00"),
        ("12:00 UTC 31.12.26", "2026-12-31 13:00"),
        ("2026-12-24", "2026-12-24 16:40"),
    ],
)
def test_at_language(text: str, meant: str) -> None:
    assert local(text) == meant
    assert read_at(text, NOW, MADRID) == read(text, NOW, MADRID)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2030-01-31T18:00", "2030-01-31 18:00"),
        ("2030-01-31 18:00:59", "2030-01-31 18:00"),
        ("2030-01-31T18:00Z", "2030-01-31 19:00"),
        ("2030-07-31t18:00 -0300", "2030-07-31 23:00"),
        ("20300131T1800", "2030-01-31 18:00"),
        ("20300131", "2030-01-31 00:00"),
        ("2026-10-25T02:30", "2026-10-25 02:30"),
    ],
)
def test_iso_comes_after_at(text: str, meant: str) -> None:
    with pytest.raises(TimeExpressionError):
        read_at(text, NOW, MADRID)
    found = read(text, NOW, MADRID)
    assert found.instant.strftime("%Y-%m-%d %H:%M") == meant
    assert found.understood_as is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("in three days", "Mon 2026-11-30 16:40:13 CET"),
        ("dans 3 jours", "Mon 2026-11-30 16:40:13 CET"),
        ("12:00 übermorgen", "Sun 2026-11-29 12:00:00 CET"),
    ],
)
def test_another_wording_is_a_guess(text: str, meant: str) -> None:
    assert limit(text, NOW, MADRID).understood_as == meant


@pytest.mark.parametrize(
    ("text", "place"),
    [("", 0), ("foo", 0), ("3 days ago", 2), ("10:00 + 3 furlongs", 10), ("1.1.12345", 8), ("now +", 5)],
)
def test_an_error_shows_its_place(text: str, place: int) -> None:
    with pytest.raises(TimeExpressionError) as caught:
        read_at(text, NOW, MADRID)
    assert caught.value.pointer() == f"{text}\n{' ' * place}^"


def test_what_no_reader_knows_fails_where_at_does() -> None:
    with pytest.raises(TimeExpressionError, match=r"2030-01-31T18:00") as caught:
        read("10:00 + 3 furlongs", NOW, MADRID)
    assert caught.value.place == 10


def test_the_past_is_told_but_is_no_limit() -> None:
    past = "2020-01-01T10:00"
    assert read(past, NOW, MADRID).is_past
    assert read("1.1.2020", NOW, MADRID).is_past
    with pytest.raises(TimeExpressionError, match="which is past"):
        limit(past, NOW, MADRID)


def test_now_is_the_minute_under_way() -> None:
    assert limit("now", NOW, MADRID).instant == NOW - timedelta(seconds=13)


@pytest.mark.timeout(20)
def test_a_subtraction_of_ages_is_told_at_once() -> None:
    with pytest.raises(TimeExpressionError, match="outside the years 1 to 9999"):
        read_at("jul 4 - 99999999 weeks", NOW, ZoneInfo("Africa/Cairo"))


def test_years_that_no_calendar_here_has_are_refused() -> None:
    with pytest.raises(TimeExpressionError, match="outside the years 1 to 9999"):
        read_at("now + 9999 years", NOW, MADRID)


@pytest.mark.parametrize(
    ("tz", "hour"),
    [
        ("Europe/Madrid", 2),
        (":Asia/Tokyo", 9),
        ("/usr/share/zoneinfo/Asia/Tokyo", 9),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 2),
        ("EST5EDT", 20),
        ("JST-9", 9),
        ("", 0),
        (None, 9),
    ],
)
def test_the_zone_is_that_of_tz_else_the_hosts(tz: str | None, hour: int, tmp_path: Path) -> None:
    localtime = tmp_path / "localtime"
    localtime.symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    zone = local_zone(tz, localtime)
    assert datetime(2026, 7, 1, tzinfo=UTC).astimezone(zone).hour == hour


def test_a_zone_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'Europe/Nowhere' in TZ"):
        local_zone("Europe/Nowhere")
