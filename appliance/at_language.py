"""The language of at(1), Debian 12's, with its odd verdicts: an expression to an instant, and nothing else.

The grammar is in /usr/share/doc/at/timespec. What it leaves open was found out by asking `at` itself, and
tests/support/at_oracle.py asks it again: 10:60 and 24:00 are times, 31 Feb is a day, a year below 70 is
in this century, a byte that is no ASCII ends the text, and an addition that crosses a clock change keeps
the hour on the wall, even an addition of minutes.

What `at` computes step by step is computed here in the same steps, because each leaves its trace: once a
step has settled whether it is daylight-saving time, a later one takes that as given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from enum import StrEnum

from appliance.broken_down import CalendarOverflowError, Clockwork
from appliance.errors import TimeExpressionError


class Word(StrEnum):
    """What a token of the language is, in the names of its grammar."""

    DOTTED = "DOTTEDDATE"
    HYPHENED = "HYPHENDATE"
    HOUR_MINUTE = "HOURMIN"
    INT1 = "INT1DIGIT"
    INT2 = "INT2DIGIT"
    INT4 = "INT4DIGIT"
    INT5_8 = "INT5_8DIGIT"
    INT = "INT"
    NOW = "NOW"
    AM_PM = "am_pm"
    HOUR_NAME = "NOON MIDNIGHT TEATIME"
    WEEKDAY = "day_of_week"
    TODAY = "TODAY"
    TOMORROW = "TOMORROW"
    NEXT = "NEXT"
    PERIOD = "inc_dec_period"
    MONTH = "month_name"
    UTC = "UTC"
    SIGN = "+ -"
    SLASH = "/"
    COMMA = ","
    OTHER = "something else"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Token:
    """A word of an expression: what it is, as it was written, its value in `number`, and where it begins."""

    kind: Word
    text: str
    place: int
    number: int = 0

    def __str__(self) -> str:
        return repr(self.text) if self.text else str(self.kind)


_HOURS = {"noon": 12, "midnight": 0, "teatime": 16}
WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
PERIODS = ("minute", "hour", "day", "week", "month", "year")
_MINUTE, _HOUR, _DAY, _WEEK, _MONTH, _YEAR = range(6)
_PERIOD_S = {_MINUTE: 60, _HOUR: 3600, _DAY: 86_400, _WEEK: 604_800}


def _vocabulary() -> dict[str, tuple[Word, int]]:
    words = {
        "now": (Word.NOW, 0),
        "today": (Word.TODAY, 0),
        "tomorrow": (Word.TOMORROW, 0),
        "next": (Word.NEXT, 0),
        "utc": (Word.UTC, 0),
        "am": (Word.AM_PM, 0),
        "pm": (Word.AM_PM, 12),
        "min": (Word.PERIOD, _MINUTE),
        "+": (Word.SIGN, 1),
        "-": (Word.SIGN, -1),
        "/": (Word.SLASH, 0),
        ",": (Word.COMMA, 0),
    }
    words |= {name: (Word.HOUR_NAME, hour) for name, hour in _HOURS.items()}
    for number, name in enumerate(WEEKDAYS):
        words[name] = words[name[:3]] = (Word.WEEKDAY, number)
    for number, name in enumerate(MONTHS, 1):
        words[name] = words[name[:3]] = (Word.MONTH, number)
    for number, name in enumerate(PERIODS):
        words[name] = words[name + "s"] = (Word.PERIOD, number)
    return words


_VOCABULARY = _vocabulary()

_FIGURES = (
    (Word.DOTTED, re.compile(r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{2}(?:[0-9]{2})?")),
    (Word.HYPHENED, re.compile(r"(?:[0-9]{4}|[0-9]{2})-[0-9]{1,2}-[0-9]{1,2}")),
    (Word.HOUR_MINUTE, re.compile(r"[012]?[0-9][:'hH,.][0-9]{2}")),
    (Word.INT, re.compile(r"[0-9]+")),
)
_LENGTHS = {1: Word.INT1, 2: Word.INT2, 4: Word.INT4} | dict.fromkeys(range(5, 9), Word.INT5_8)
_BLANK = " \t\n"


def tokens(text: str) -> Iterator[Token]:
    """The words of an expression, each the longest that fits; the last is `Word.END`."""
    place = 0
    while place < len(text) and text[place].isascii():
        if text[place] in _BLANK:
            place += 1
            continue
        token = _figures(text, place) if text[place].isdigit() else _letters(text, place)
        yield token
        place += len(token.text)
    yield Token(Word.END, "", min(place, len(text.rstrip())))


def _figures(text: str, place: int) -> Token:
    found = [(kind, match[0]) for kind, form in _FIGURES if (match := form.match(text, place))]
    kind, written = max(found, key=lambda one: len(one[1]))
    if kind is not Word.INT:
        return Token(kind, written, place)
    return Token(_LENGTHS.get(len(written), Word.INT), written, place, _scanned(written))


_LONGEST = max(map(len, _VOCABULARY))


def _letters(text: str, place: int) -> Token:
    for length in range(_LONGEST, 0, -1):
        written = text[place : place + length]
        if found := _VOCABULARY.get(written.lower() if written.isascii() else ""):
            return Token(found[0], written, place, found[1])
    return Token(Word.OTHER, text[place], place)


def _scanned(digits: str) -> int:
    """A number as C's `%d` reads it: cut to 64 bits, then to 32."""
    return _int32(min(int(digits.lstrip("0")[:20] or "0"), 2**63 - 1))


def _int32(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def instant(text: str, now: int, zone: tzinfo) -> int:
    """The instant that an expression means at `now`; both in seconds since 1970. The past is not refused.

    :raises TimeExpressionError: `at` calls this a garbled time
    """
    return _Reader(text, now, zone).instant()


class _Reader:
    """One reading: the words still to come, and the time as far as it is known."""

    def __init__(self, text: str, now: int, zone: tzinfo) -> None:
        self.text = text
        self.words = list(tokens(text))
        self.clockwork = Clockwork(zone)
        self.present = replace(self.clockwork.local(now), second=0, dst=None)
        self.time = self.present
        self.has_only_time = False
        self.has_year = False

    # --- words

    def error(self, reason: str, token: Token) -> TimeExpressionError:
        return TimeExpressionError(self.text, token.place, reason)

    def sees(self, *kinds: Word) -> bool:
        return self.words[0].kind in kinds

    def next(self) -> Token:
        return self.words[0] if self.sees(Word.END) else self.words.pop(0)

    def need(self, what: str, *kinds: Word) -> Token:
        token = self.next()
        if token.kind in kinds:
            return token
        seen = "ends" if token.kind is Word.END else f"has {token}"
        raise self.error(f"{seen} where it needs {what}", token)

    # --- the grammar

    def instant(self) -> int:
        try:
            self._base()
            if self.sees(Word.SIGN):
                self._addition()
            self.need("+ or - or its end", Word.END)
            return self._mended()
        except CalendarOverflowError:
            raise self.error("means no instant that can be counted", self.words[0]) from None

    def _base(self) -> None:
        token = self.words[0]
        if self.sees(Word.NOW):
            self.next()
            self.has_year = True
        elif self._begins_time():
            self._time()
            if self.sees(Word.SIGN, Word.END):
                self.has_only_time = True
            else:
                self._date()
        elif token.kind is Word.END:
            foreign = self.text.strip()
            raise self.error("begins with a letter that is not at's" if foreign else "is empty", token)
        else:
            self._date()

    def _begins_time(self) -> bool:
        if self.sees(Word.INT4, Word.HOUR_MINUTE, Word.HOUR_NAME):
            return True
        return self.sees(Word.INT1, Word.INT2) and self.words[1].kind is Word.AM_PM

    def _time(self) -> None:
        token = self.next()
        if token.kind is Word.INT4:
            self._set_time(token, int(token.text[:2]), int(token.text[2:]))
        elif token.kind is Word.HOUR_MINUTE:
            self._set_time(token, int(token.text[:-3]), int(token.text[-2:]))
        else:
            self._set_time(token, token.number, 0)
        if token.kind in (Word.INT1, Word.INT2, Word.HOUR_MINUTE) and self.sees(Word.AM_PM):
            self._half_of_day(token, self.next())
        if self.sees(Word.UTC):
            self.next()
            self.clockwork.zone = UTC

    def _set_time(self, token: Token, hour: int, minute: int) -> None:
        if minute > 60:
            raise self.error(f"has no minute {minute}", token)
        if hour > 24:
            raise self.error(f"has no hour {hour}", token)
        self.time = replace(self.time, hour=hour, minute=minute)

    def _half_of_day(self, hour: Token, half: Token) -> None:
        if self.time.hour > 12:
            raise self.error(f"has hour {self.time.hour}, too large for {half.text}", hour)
        self.time = replace(self.time, hour=self.time.hour % 12 + half.number)

    def _date(self) -> None:
        token = self.need("a time or a date", *_DATES)
        _DATES[token.kind](self, token)

    def _month_first(self, month: Token) -> None:
        self.time = replace(self.time, month=month.number)
        self._day(self.need("a day of the month", Word.INT1, Word.INT2))
        if self.sees(Word.COMMA):
            self.next()
            self._year()
        elif self.sees(Word.INT2, Word.INT4):
            self._year()

    def _number_first(self, number: Token) -> None:
        after = self.need("a month, / or am or pm", Word.MONTH, Word.SLASH)
        if after.kind is Word.MONTH:
            self._day(number)
            self.time = replace(self.time, month=after.number)
            if self.sees(Word.INT2, Word.INT4):
                self._year()
            return
        self._month_number(number, number.number)
        self._day(self.need("a day of the month", Word.INT1, Word.INT2))
        self.need("/ and a year", Word.SLASH)
        self._year()

    def _day(self, token: Token) -> None:
        if not 1 <= token.number <= 31:
            raise self.error(f"has no day {token.number}", token)
        self.time = replace(self.time, day=token.number)

    def _month_number(self, token: Token, number: int) -> None:
        if not 1 <= number <= 12:
            raise self.error(f"has no month {number}", token)
        self.time = replace(self.time, month=number)

    def _year(self) -> None:
        self._year_number(self.need("a year of two or four digits", Word.INT2, Word.INT4).number)

    def _year_number(self, number: int) -> None:
        """Below 70 it counts from 2000; up to 1900 from 1900, so that 1900 is the year 3800."""
        self.has_year = True
        self.time = replace(self.time, year=number + (2000 if number < 70 else 0 if number > 1900 else 1900))

    def _hyphened(self, token: Token) -> None:
        year, month, day = map(int, token.text.split("-"))
        self._full_date(token, year, month, day)

    def _dotted(self, token: Token) -> None:
        day, month, year = map(int, token.text.split("."))
        self._full_date(token, year, month, day)

    def _full_date(self, token: Token, year: int, month: int, day: int) -> None:
        self._month_number(token, month)
        self._year_number(year)
        if not 1 <= day <= _days(self.time.year, month):
            raise self.error(f"has no day {day}", token)
        self.time = replace(self.time, day=day)

    def _joined(self, token: Token) -> None:
        """MMDDYY, MMDDYYYY, or without the month's first zero: this day may even be 0."""
        split = 2 - len(token.text) % 2
        month, day, year = token.text[:split], token.text[split : split + 2], token.text[split + 2 :]
        self._month_number(token, int(month))
        if int(day) > 31:
            raise self.error(f"has no day {int(day)}", token)
        self.time = replace(self.time, day=int(day))
        self._year_number(int(year))

    def _weekday(self, token: Token) -> None:
        self._add((6 + token.number - self.time.weekday) % 7 + 1, _DAY)

    def _today(self, token: Token) -> None:
        """The date is the present one already."""

    def _tomorrow(self, token: Token) -> None:
        self._add(1, _DAY)

    def _next(self, token: Token) -> None:
        after = self.need("a day of the week or a unit of time", Word.WEEKDAY, Word.PERIOD)
        if after.kind is Word.WEEKDAY:
            self._weekday(after)
        else:
            self._add(1, after.number)

    def _addition(self) -> None:
        sign = self.next()
        number = self.need("a number", Word.INT, Word.INT1, Word.INT2, Word.INT4, Word.INT5_8)
        period = self.need("a unit of time", Word.PERIOD)
        if period.number >= _DAY:
            self.has_only_time = False
        self._add(_int32(sign.number * number.number), period.number)

    # --- arithmetic

    def _add(self, number: int, period: int) -> None:
        if period in _PERIOD_S:
            self._add_seconds(number * _PERIOD_S[period])
            return
        years = number
        if period == _MONTH:
            years, month = divmod(_int32(self.time.month - 1 + number), 12)
            self.time = replace(self.time, month=month + 1)
            self._normalize()
        if period == _YEAR or years:
            self.time = replace(self.time, year=_int32(self.time.year - 1900 + years) + 1900)
            self._normalize()

    def _normalize(self) -> None:
        self.time = replace(self.time, dst=None)
        try:
            self.time = self.clockwork.seconds(self.time)[1]
        except CalendarOverflowError:
            return

    def _add_seconds(self, number: int) -> None:
        try:
            began, _ = self.clockwork.seconds(self.time)
            _, base = self.clockwork.seconds(self.time)
        except CalendarOverflowError:
            began, base = 0, self.time
        moved = began + number
        self.time = self.clockwork.local(moved)
        changes_clocks = bool(base.dst) != self.time.dst and self.clockwork.changes_clocks(moved)
        self.clockwork.seconds(self.time)
        if changes_clocks:
            # Keeps the hour on the wall: by one hour, whatever the zone's own difference is.
            self.time = self.clockwork.local(moved + (3600 if base.dst else -3600))

    def _mended(self) -> int:
        """The instant, moved on by a day or a year if nothing named it and it would have passed."""
        time, present = self.time, self.present
        if self.has_only_time:
            if time.day == present.day and (time.hour, time.minute) <= (present.hour, present.minute):
                self.time = replace(time, day=time.day + 1)
        elif (
            not self.has_year
            and time.year == present.year
            and (time.month, time.day) < (present.month, present.day)
        ):
            self.time = replace(time, year=time.year + 1)
        return self.clockwork.seconds(self.time)[0]


_DATES: dict[Word, Callable[[_Reader, Token], None]] = {
    Word.MONTH: _Reader._month_first,
    Word.INT1: _Reader._number_first,
    Word.INT2: _Reader._number_first,
    Word.HYPHENED: _Reader._hyphened,
    Word.DOTTED: _Reader._dotted,
    Word.INT5_8: _Reader._joined,
    Word.WEEKDAY: _Reader._weekday,
    Word.TODAY: _Reader._today,
    Word.TOMORROW: _Reader._tomorrow,
    Word.NEXT: _Reader._next,
}


def _days(year: int, month: int) -> int:
    if month == 2:
        is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return 29 if is_leap else 28
    return 30 if month in (4, 6, 9, 11) else 31
