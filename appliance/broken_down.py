"""Calendar time as the C library counts it: a broken-down local time to seconds since 1970, and back.

at(1) computes with `struct tm` and lets `mktime` mend it: the 31st of February, hour 24, a time that a
clock change skips or repeats. Which instant comes out of those is decided by glibc, and here as there.
Nothing here reads a clock or the environment; the time zone's rules come from `zoneinfo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

_CYCLE_DAYS = 146_097
"""Days in 400 years, after which the calendar and its weekdays repeat."""

_CYCLE_S = _CYCLE_DAYS * 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX_DAY = date(1970, 1, 1).toordinal()
_EARLIEST, _LATEST = -62_135_000_000, 240_000_000_000
"""Where `datetime` ends, in seconds since 1970: the years 1 and 9575, and so a cycle before its last."""

_MAX_YEAR = 2**31 - 1 + 1900
"""The last year that a C library can tell."""

_YEAR_S, _CHANGE_STRIDE_S = 366 * 86_400, 20 * 86_400
_FIRST_TABLE, _LAST_TABLE = -5_364_662_400, 4_102_444_800
"""1800 and 2100: no zone has a change in its table before, nor a single one, not by a yearly rule, after."""

_TABLE_FILLER = 2**31 - 1
"""Tables of zones without a name in letters end here, with a change that changes nothing (zic's -b fat)."""

_PROBES = 6
"""glibc gives up on a local time after so many guesses."""

_DST_STRIDE_S, _DST_REACH_S = 601_200, 268_828_200
"""How far apart, and how far away, glibc looks for the other kind of time (daylight saving or not)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTime:
    """What a clock and a calendar on the wall show; no field need be in its range before `Clockwork.seconds`.

    `dst` says whether it is daylight-saving time; `None` leaves that to the zone's rules.
    `weekday` counts from Sunday, 0, and is as true as its giver made it.
    """

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int = 0
    weekday: int = 0
    dst: bool | None = None


class CalendarOverflowError(Exception):
    """A local time has no number of seconds, as when `mktime` returns -1."""


class Clockwork:
    """The `mktime` and `localtime` of one process.

    It has a memory, as glibc's has: the last offset from UTC is the first guess of the next call. In an
    hour that a clock change repeats, the guess decides which of the two is meant.
    """

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        self._offset_s = 0

    def changes_clocks(self, after: int) -> bool:
        """Whether the zone's table still has a change to come at an instant.

        glibc's variable `daylight` is 0 after a look beyond the last change in the table of a zone that
        has given up daylight-saving time, and at(1) obeys it.
        """
        there = self._shown(after)
        if (there.tzname() or "")[:1] in ("+", "-") and after < _TABLE_FILLER:
            return True
        known = (there.utcoffset(), there.dst())
        begin = max(after, _FIRST_TABLE)
        for probe in range(begin, max(begin + _YEAR_S, _LAST_TABLE), _CHANGE_STRIDE_S):
            then = self._shown(probe)
            if (then.utcoffset(), then.dst()) != known:
                return True
        return False

    def local(self, seconds: int) -> LocalTime:
        """What the zone's clocks show at an instant, in seconds since 1970.

        :raises CalendarOverflowError: the year is beyond what the C library can tell
        """
        shown = self._shown(seconds)
        year = shown.year + 400 * _cycles(seconds)
        if not -(2**31) + 1900 <= year <= _MAX_YEAR:
            raise CalendarOverflowError
        return LocalTime(
            year=year,
            month=shown.month,
            day=shown.day,
            hour=shown.hour,
            minute=shown.minute,
            second=shown.second,
            weekday=shown.isoweekday() % 7,
            dst=bool(shown.dst()),
        )

    def _shown(self, seconds: int) -> datetime:
        """The zone's clocks, in a year that `datetime` can tell."""
        within = timedelta(seconds=seconds - _cycles(seconds) * _CYCLE_S)
        return (_EPOCH + within).astimezone(self.zone)

    def seconds(self, wanted: LocalTime) -> tuple[int, LocalTime]:
        """The instant of a local time, in seconds since 1970, and the time with all its fields in range.

        A time that a clock change skips is moved over the gap. A `dst` that contradicts the zone's
        rules moves the time by their difference.

        :raises CalendarOverflowError: there is no such instant
        """
        target = _wall_seconds(wanted)
        start = target - self._offset_s
        found, shown = self._guess(wanted, target, start)
        if _contradicts(wanted.dst, shown.dst) and _wall_seconds(shown) == target:
            found, shown = self._other_kind(wanted, target, found, shown)
        self._offset_s = _int32(target - found)
        return found, shown

    def _guess(self, wanted: LocalTime, target: int, start: int) -> tuple[int, LocalTime]:
        """Correct a guess by what it misses, until nothing does or two guesses alternate around a gap."""
        guess = before = earlier = start
        before_dst = False
        for _ in range(_PROBES):
            shown = self.local(guess)
            miss = target - _wall_seconds(shown)
            if not miss:
                return guess, shown
            alternates = guess == earlier and guess != before
            if alternates and (
                before_dst <= bool(shown.dst) if wanted.dst is None else wanted.dst != shown.dst
            ):
                return guess, shown
            earlier, before, before_dst = before, guess, bool(shown.dst)
            guess += miss
        raise CalendarOverflowError

    def _other_kind(
        self, wanted: LocalTime, target: int, found: int, shown: LocalTime
    ) -> tuple[int, LocalTime]:
        """The instant by the offset that holds at the nearest time of the wanted kind."""
        for distance in range(_DST_STRIDE_S, _DST_REACH_S, _DST_STRIDE_S):
            for probe in (found - distance, found + distance):
                there = self.local(probe)
                if not _contradicts(wanted.dst, there.dst):
                    moved = probe + target - _wall_seconds(there)
                    return moved, self.local(moved)
        moved = found + 3600 * ((wanted.dst is False) - (shown.dst is False))
        return moved, self.local(moved)


def _cycles(seconds: int) -> int:
    """By how many times 400 years an instant lies outside what `datetime` can tell."""
    return (min(seconds - _EARLIEST, 0) + max(seconds - _LATEST, 0)) // _CYCLE_S


def _contradicts(wanted: bool | None, is_dst: bool | None) -> bool:
    return wanted is not None and wanted != is_dst


def _wall_seconds(time: LocalTime) -> int:
    """Seconds from 1970 to a local time, by the wall's own clock: no zone, fields in range or not."""
    years, month = divmod(time.month - 1, 12)
    cycles, year = divmod(time.year + years - 1, 400)
    first = date(year + 1, month + 1, 1).toordinal() + cycles * _CYCLE_DAYS
    days = first - _UNIX_DAY + time.day - 1
    return ((days * 24 + time.hour) * 60 + time.minute) * 60 + time.second


def _int32(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31
