"""Reads the times that people write: at(1)'s language, then ISO 8601, then any other wording.

The first two mean what they mean. Any other wording ("in three days", "mañana a las 8") is guessed by
dateparser; such a reading says in `understood_as` what was understood, and its caller has it confirmed.
Nothing here reads a clock or the environment; `local_zone` reads a file of the C library's, if it must.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from appliance import at_language
from appliance.broken_down import CalendarOverflowError, Clockwork, LocalTime
from appliance.errors import ConfigError, TimeExpressionError

HINT = "write it as for at(1), like 'NEXT SAT' or '18:00 tomorrow', or as 2030-01-31T18:00"

OUTSIDE = "lies outside the years 1 to 9999"

LANGUAGES = (
    *("en", "es", "ca", "gl", "eu", "pt", "fr", "de", "it", "nl", "da", "nb", "sv", "fi", "pl", "cs", "sk"),
    *("hu", "ro", "el", "uk", "ru", "tr", "he", "ar", "hi", "zh", "ja", "ko"),
)
"""Whose wordings are guessed: dateparser knows 200, and takes six seconds to find that none of them fits."""

_LONGEST_GUESS = 100
"""Letters of a wording: whatever is longer names no time, and would keep dateparser busy."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(?:-?\d)?)"
    r"(?:[Tt ](?P<time>[\d:]+(?:[.,]\d+)?)\s?(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an expression means: an instant, in the zone of its reader.

    `is_past`: it lies before the minute in which it was read. `understood_as`: the words for a reading
    that is a guess and must be confirmed, else `None`.
    """

    instant: datetime
    is_past: bool
    understood_as: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """When something is to happen; `understood_as` as in `Reading`."""

    instant: datetime
    understood_as: str | None = None


def limit(text: str, now: datetime, zone: tzinfo) -> Limit:
    """Read a limit: any expression that does not mean the past. `now` is the minute that is under way.

    :raises TimeExpressionError: it cannot be understood, or means the past
    """
    found = read(text, now, zone)
    if found.is_past:
        when = found.instant.isoformat(sep=" ", timespec="minutes")
        raise TimeExpressionError(text, 0, f"means {when}, which is past", hint="write a coming time or now")
    return Limit(found.instant, found.understood_as)


def read(text: str, now: datetime, zone: tzinfo) -> Reading:
    """Read an expression by the first reader that knows it.

    :raises TimeExpressionError: none does; the place is where at's language ends
    """
    try:
        found = read_at(text, now, zone)
    except TimeExpressionError as exc:
        if (iso := _iso(text, now, zone)) is not None:
            return iso
        if (guess := _guess(text, now, zone)) is not None:
            return guess
        raise TimeExpressionError(exc.expression, exc.place, exc.reason, hint=HINT) from None
    if not text.isascii():
        # at stops at the first letter that it does not know as one: "12:00 übermorgen" is today for it.
        return _iso(text, now, zone) or _guess(text, now, zone) or found
    return found


def read_at(text: str, now: datetime, zone: tzinfo) -> Reading:
    """Read an expression as at(1) does, and only so; what `at` refuses as past is a reading.

    :raises TimeExpressionError: `at` calls it garbled, or it lies beyond the year 9999
    """
    seconds = at_language.instant(text, _seconds(now), zone)
    try:
        instant = (_EPOCH + timedelta(seconds=seconds)).astimezone(zone)
    except OverflowError:
        raise TimeExpressionError(text, 0, OUTSIDE) from None
    return _reading(instant, now)


def read_instant(text: str, now: datetime, zone: tzinfo) -> datetime:
    """Read a time in ISO 8601, and only so.

    :raises TimeExpressionError: it is none
    """
    if (found := _iso(text, now, zone)) is None:
        raise TimeExpressionError(text, 0, "is no ISO 8601", hint="write it as 2030-01-31T18:00")
    return found.instant


def local_zone(tz: str | None, localtime: Path = Path("/etc/localtime")) -> tzinfo:
    """The time zone that $TZ names as the C library understands it, or without one the host's.

    :raises ConfigError: it names none
    """
    if tz is None:
        return _zone_in(localtime) if localtime.exists() else UTC
    name = tz.removeprefix(":")
    if not name:
        return UTC
    if name.startswith("/"):
        return _zone_in(Path(name))
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return _zone_of_rule(name)


def _zone_in(file: Path) -> tzinfo:
    try:
        with file.open("rb") as data:
            return ZoneInfo.from_file(data, key=str(file))
    except (ValueError, OSError) as exc:
        raise ConfigError(f"the time zone of {file} cannot be read: {exc}") from exc


def _zone_of_rule(rule: str) -> tzinfo:
    """The zone of a POSIX rule (`CET-1CEST,M3.5.0,M10.5.0/3`): a time zone file that holds nothing else."""
    header = struct.pack(">4sc15x6l", b"TZif", b"2", 0, 0, 0, 0, 1, 4)
    kind = struct.pack(">lbb4s", 0, 0, 0, b"UTC\0")
    try:
        return ZoneInfo.from_file(io.BytesIO((header + kind) * 2 + f"\n{rule}\n".encode()), key=rule)
    except ValueError as exc:
        raise ConfigError(
            f"the time zone {rule!r} in TZ is unknown", hint="write one like Europe/Madrid, or unset TZ"
        ) from exc


def _seconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(seconds=1)


def _reading(instant: datetime, now: datetime, understood_as: str | None = None) -> Reading:
    return Reading(instant, instant < now.replace(second=0, microsecond=0), understood_as)


def _iso(text: str, now: datetime, zone: tzinfo) -> Reading | None:
    match = _ISO.fullmatch(text.strip())
    if not match:
        return None
    offset = (match["zone"] or "").upper()
    try:
        found = datetime.fromisoformat(f"{match['date']}T{match['time'] or '00:00'}{offset}")
    except ValueError:
        return None
    return _placed(found, now, zone)


def _guess(text: str, now: datetime, zone: tzinfo) -> Reading | None:
    """What dateparser makes of it, if that is to come: it is no reader for the past."""
    if len(text) > _LONGEST_GUESS:
        return None
    import dateparser  # takes a quarter of a second, and few need it

    try:
        found = dateparser.parse(
            text,
            languages=list(LANGUAGES),
            settings={
                "RELATIVE_BASE": now.astimezone(zone).replace(tzinfo=None),
                "PREFER_DATES_FROM": "future",
            },
        )
    except (ValueError, OverflowError):
        return None
    reading = _placed(found, now, zone) if found else None
    if reading is None or reading.is_past:
        return None
    shown = reading.instant.strftime("%a %Y-%m-%d %H:%M:%S %Z")
    return Reading(reading.instant, False, shown)


def _placed(found: datetime, now: datetime, zone: tzinfo) -> Reading | None:
    """A time without a zone is local, and as `mktime` takes it where a clock change leaves a doubt."""
    try:
        if found.tzinfo is None:
            seconds, _ = Clockwork(zone).seconds(
                LocalTime(
                    year=found.year,
                    month=found.month,
                    day=found.day,
                    hour=found.hour,
                    minute=found.minute,
                    second=found.second,
                )
            )
            found = _EPOCH + timedelta(seconds=seconds, microseconds=found.microsecond)
        return _reading(found.astimezone(zone), now)
    except (CalendarOverflowError, OverflowError):
        return None
