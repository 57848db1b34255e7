"""Expressions from at's own grammar, spoilt ones too, at moments when calendars are hard; compared.

The grammar is read from Debian's file, so that "every production" is every one of at's, not of ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random

from appliance import at_language
from appliance.attime import OUTSIDE, local_zone, read_at
from appliance.errors import TimeExpressionError
from tests.support.at_oracle import GRAMMAR, Oracle, Question, Verdict

ZONES = (
    *("Europe/Madrid", "America/New_York", "Australia/Sydney", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"),
    *("Europe/Dublin", "America/Santiago", "America/St_Johns", "Antarctica/Troll", "Pacific/Chatham"),
    *("Africa/Casablanca", "Asia/Tokyo", "America/Sao_Paulo", "Pacific/Apia", "Africa/Cairo", "EST5EDT"),
    *("CET-1CEST,M3.5.0,M10.5.0/3", "<-03>3", "UTC0", ":Europe/London"),
)
FIRST, LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2080, 1, 1, tzinfo=UTC)
"""Between them lie the moments that are pretended; clock changes are looked up until a later year."""

START, END = (int(datetime(year, 1, 2, tzinfo=UTC).timestamp()) for year in (1, 9999))
END += 363 * 86_400
"""The instants that every zone can tell as a `datetime`."""

Production = tuple[str, tuple[str, ...]]


@cache
def grammar() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Every rule of Debian's file with its alternatives."""
    body = GRAMMAR.read_text().split("%%")[1]
    rules = re.findall(r"(\w+)\s*:(.*?)\n\s*;", body, re.DOTALL)
    return {name: tuple(tuple(one.split()) for one in text.split("|")) for name, text in rules}


def productions() -> set[Production]:
    """All of them."""
    return {(rule, one) for rule, alternatives in grammar().items() for one in alternatives}


@cache
def changes(tz: str) -> tuple[int, ...]:
    """When the clocks of a zone change, to the quarter of a day before it."""
    zone = local_zone(tz)
    found = []
    steps = (LAST - FIRST) // timedelta(days=1)
    before = FIRST.astimezone(zone).utcoffset()
    for day in range(1, steps):
        at = FIRST + timedelta(days=day)
        after = at.astimezone(zone).utcoffset()
        if after != before:
            found.append(int(at.timestamp()) - 86_400)
        before = after
    return tuple(found)


def moment(random: Random, tz: str) -> int:
    """A now: by a clock change, at the end of a month or a year, on a leap day, or any."""
    kind = random.randrange(5)
    any_now = random.randrange(int(FIRST.timestamp()), int(LAST.timestamp()))
    year = random.randrange(FIRST.year, LAST.year)
    if kind == 0 and (known := changes(tz)):
        return random.choice(known) + random.randrange(-86_400 * 2, 86_400 * 2)
    if kind == 1:
        first = datetime(year, random.randrange(1, 13), 1, tzinfo=UTC)
        return int(first.timestamp()) + random.randrange(-86_400 * 2, 86_400)
    if kind == 2:
        leap = datetime(year - year % 4, 2, 28, tzinfo=UTC)
        return int(leap.timestamp()) + random.randrange(86_400 * 3)
    if kind == 3:
        return int(datetime(year, 12, 31, tzinfo=UTC).timestamp()) + random.randrange(86_400 * 2)
    return any_now


@dataclass
class Writer:
    """Writes one expression from the grammar, about times near `now` where it can."""

    random: Random
    now: datetime
    near: datetime
    met: set[Production] = field(default_factory=set)

    def derive(self, symbol: str) -> list[str]:
        """The words of a symbol."""
        if symbol in grammar():
            chosen = self.random.choice(grammar()[symbol])
            self.met.add((symbol, chosen))
            return [word for part in chosen for word in self.derive(part)]
        if symbol.startswith("'"):
            return [symbol.strip("'")]
        return [self.cased(TERMINALS[symbol](self) if symbol in TERMINALS else self.name(symbol))]

    def name(self, symbol: str) -> str:
        """A keyword: months and days also in full, units also in the plural."""
        whole = NAMES.get(symbol, symbol)
        return self.random.choice([symbol, whole])

    def cased(self, word: str) -> str:
        return self.random.choice([word.lower(), word.upper(), word.capitalize(), word.lower()])

    def time(self) -> tuple[int, int]:
        """An hour and a minute: odd, near now, in the night when clocks change, or any."""
        odd = (self.random.choice([0, 12, 13, 23, 24, 25]), self.random.choice([0, 59, 60, 61]))
        then = self.now + timedelta(minutes=self.random.randrange(-3, 4))
        night = (self.random.randrange(4), self.random.choice([0, 15, 29, 30, 59]))
        free = (self.random.randrange(24), self.random.randrange(60))
        return self.random.choice([odd, (then.hour, then.minute), night, night, free, free])

    def day(self) -> tuple[int, int, int]:
        """A year, a month and a day: near now, at a clock change, at a month's end, or any."""
        then = self.random.choice([self.now + timedelta(days=self.random.randrange(-2, 40)), self.near])
        year = self.now.year + self.random.choice([0, 0, 1, 2, 4, 30, -1])
        end = (year, self.random.randrange(1, 13), self.random.choice([1, 28, 29, 30, 31]))
        odd = (
            self.random.choice([0, 69, 70, 99, 100, 1900, 1901, 1970, 2400]),
            0,
            self.random.choice([0, 32]),
        )
        free = (year, self.random.randrange(1, 13), self.random.randrange(1, 29))
        near = (then.year, then.month, then.day)
        return self.random.choice([near, near, near, end, end, free, free, odd])

    def short(self, year: int) -> str:
        return f"{year % 100:02d}" if self.random.random() < 0.4 else f"{year:04d}"

    def dotted(self) -> str:
        year, month, day = self.day()
        padded = self.random.choice(["", "02"])
        return f"{day:{padded}}.{month:{padded}}.{self.short(year)}"

    def hyphened(self) -> str:
        year, month, day = self.day()
        padded = self.random.choice(["", "02"])
        return f"{self.short(year)}-{month:{padded}}-{day:{padded}}"

    def joined(self) -> str:
        year, month, day = self.day()
        return f"{month:{self.random.choice(['', '02'])}}{day:02d}{self.short(year)}"

    def hour_minute(self) -> str:
        hour, minute = self.time()
        return f"{hour:{self.random.choice(['', '02'])}}{self.random.choice(':::h,.')}{minute:02d}"

    def one_digit(self) -> str:
        return str(self.random.choice([self.random.randrange(10), self.now.month % 10, self.now.day % 10]))

    def two_digits(self) -> str:
        year, month, day = self.day()
        return f"{self.random.choice([day, day, month, self.time()[0], year]) % 100:02d}"

    def four_digits(self) -> str:
        hour, minute = self.time()
        return self.random.choice([f"{hour:02d}{minute:02d}", f"{self.day()[0]:04d}"])

    def any_integer(self) -> str:
        return self.random.choice(
            ["007", "120", "000000000", "4294967297", "99999999999999999999", "2147483648"]
        )


TERMINALS: dict[str, Callable[[Writer], str]] = {
    "DOTTEDDATE": Writer.dotted,
    "HYPHENDATE": Writer.hyphened,
    "HOURMIN": Writer.hour_minute,
    "INT1DIGIT": Writer.one_digit,
    "INT2DIGIT": Writer.two_digits,
    "INT4DIGIT": Writer.four_digits,
    "INT5_8DIGIT": Writer.joined,
    "INT": Writer.any_integer,
}
NAMES = {
    **{name[:3].upper(): name for name in at_language.WEEKDAYS + at_language.MONTHS},
    **{name.upper(): name + "s" for name in at_language.PERIODS},
}
SPOILT = (
    "é",
    "x",
    "mins",
    "am",
    "next",
    "+",
    "-",
    ",",
    "/",
    "now",
    "32",
    "utc",
    "1.1.1",
    "12:60",
    "sec",
    "\t",
    "",
)


def spoil(random: Random, words: list[str]) -> list[str]:
    """Drop, double, swap or add a word: most of these are no times, and `at` must say which are."""
    words = list(words)
    place = random.randrange(len(words))
    match random.randrange(5):
        case 0:
            del words[place]
        case 1:
            words.insert(place, words[place])
        case 2:
            other = random.randrange(len(words))
            words[place], words[other] = words[other], words[place]
        case 3:
            words.insert(random.randrange(len(words) + 1), random.choice(SPOILT))
        case _:
            words[place] = random.choice(SPOILT)
    return words or [""]


def spaced(random: Random, words: list[str]) -> tuple[str, ...]:
    """The words as arguments: each one, all in one, or run together as far as letters and figures allow."""
    kind = random.randrange(4)
    if kind == 0:
        return (" ".join(words),)
    if kind == 1:
        joined = ""
        for word in words:
            apart = joined[-1:].isdigit() and word[:1].isdigit()
            joined += f" {word}" if apart else word
        return (joined,)
    return tuple(words)


@dataclass(frozen=True, slots=True)
class Case:
    """One question, and the productions that its expression was made of; none if it was spoilt."""

    question: Question
    met: frozenset[Production]


def cases(random: Random, count: int) -> list[Case]:
    """So many, a quarter of them spoilt."""
    made = []
    for _ in range(count):
        tz = random.choice(ZONES)
        zone = local_zone(tz)
        seconds = moment(random, tz)
        now = datetime.fromtimestamp(seconds, zone)
        later = [one for one in changes(tz) if one > seconds]
        near = datetime.fromtimestamp(later[0] if later else seconds, zone) + timedelta(
            days=random.randrange(2)
        )
        writer = Writer(random, now, near)
        words = writer.derive("timespec")
        if random.random() < 0.25:
            made.append(Case(Question(seconds, tz, spaced(random, spoil(random, words))), frozenset()))
        else:
            made.append(Case(Question(seconds, tz, spaced(random, words)), frozenset(writer.met)))
    return made


def ours(question: Question) -> Verdict:
    """What the appliance makes of a question."""
    now = datetime.fromtimestamp(question.now, UTC)
    try:
        found = read_at(" ".join(question.words), now, local_zone(question.tz))
    except TimeExpressionError as exc:
        return Verdict("beyond" if exc.reason == OUTSIDE else "garbled")
    return comparable(Verdict("past" if found.is_past else "at", int(found.instant.timestamp())))


def comparable(verdict: Verdict) -> Verdict:
    """A verdict without what no one sees, or no one can tell.

    `at` makes jobs for years that have no `datetime`; the appliance refuses them, and says so. A job
    refused as past shows no instant: it is compared as far back as 1970 all the same.
    """
    if verdict.seconds is None:
        return verdict
    if not START <= verdict.seconds < END:
        return Verdict("beyond")
    return verdict if verdict.word == "at" or verdict.seconds >= 0 else Verdict("past")


@dataclass
class Report:
    """How a comparison went."""

    verdicts: Counter[str] = field(default_factory=Counter)
    met: set[Production] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)

    @property
    def missed(self) -> set[Production]:
        """Productions that no expression which `at` understood was made of."""
        return productions() - self.met

    def __str__(self) -> str:
        counted = ", ".join(f"{count} {word}" for word, count in sorted(self.verdicts.items()))
        met = f"{len(self.met)} of {len(productions())} productions of at's grammar met"
        return f"{sum(self.verdicts.values())} expressions ({counted}); {len(self.differences)} differ; {met}"


def compare(oracle: Oracle, asked: Sequence[Case]) -> Report:
    """Ask both, and note what differs."""
    report = Report()
    answers = oracle.ask([case.question for case in asked])
    for case, theirs in zip(asked, map(comparable, answers), strict=True):
        report.verdicts[theirs.word] += 1
        if theirs.word != "garbled":
            report.met |= case.met
        if (found := ours(case.question)) != theirs:
            report.differences.append(f"{case.question}: at says {theirs}, we say {found}")
    return report
