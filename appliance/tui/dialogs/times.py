"""What a time in a form means, told while it is written: pure, except for what dateparser loads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import Enum

from appliance import attime
from appliance.errors import TimeExpressionError


class Kind(Enum):
    """How sure it is."""

    GOOD = "good"
    GUESS = "guess"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What was understood, or where it cannot be."""

    kind: Kind
    instant: datetime | None = None
    """When it is, unless it is wrong."""
    reason: str = ""
    place: int | None = None
    """At which letter it is wrong, if it is so at one."""

    def sentence(self, now: datetime) -> str:
        """For people: the time here, and how far away it is."""
        if self.instant is None:
            return self.reason
        sign = "understood as" if self.kind is Kind.GUESS else "="
        return f"{sign} {shown(self.instant, now)}, {distance(self.instant - now)}"


def soon(text: str, now: datetime, zone: tzinfo) -> Meaning | None:
    """What it means in at's language or in ISO 8601; None if only guessing could tell (`later`)."""
    if not text.isascii():
        return None
    here = now.astimezone(zone)
    try:
        found = attime.read_at(text, here, zone)
        if not found.is_past:
            return Meaning(Kind.GOOD, found.instant)
        return _past(found.instant)
    except TimeExpressionError:
        pass
    try:
        instant = attime.read_instant(text, here, zone)
    except TimeExpressionError:
        return None
    if instant < here.replace(second=0, microsecond=0):
        return _past(instant)
    return Meaning(Kind.GOOD, instant)


def later(text: str, now: datetime, zone: tzinfo) -> Meaning:
    """What it means by any reader: takes up to a second, so not in the event loop."""
    try:
        found = attime.limit(text, now.astimezone(zone), zone)
    except TimeExpressionError as exc:
        is_at_place = "past" not in exc.reason
        return Meaning(Kind.WRONG, reason=exc.reason, place=exc.place if is_at_place else None)
    return Meaning(Kind.GUESS if found.understood_as else Kind.GOOD, found.instant)


def shown(instant: datetime, now: datetime) -> str:
    """An instant of these days: `Sat 28 Nov 10:00`; with its year if that is another one."""
    year = "" if instant.year == now.astimezone(instant.tzinfo).year else f" {instant.year}"
    return f"{instant:%a} {instant.day} {instant:%b}{year} {instant:%H:%M}"


def distance(away: timedelta) -> str:
    """How far away it is, by its two largest units."""
    minutes, seconds = divmod(max(0, int(away.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((place for place, (number, _) in enumerate(parts) if number), None)
    if first is None:
        return "now"
    return "in " + " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def _past(instant: datetime) -> Meaning:
    return Meaning(Kind.WRONG, reason=f"means {instant:%a %-d %b %Y %H:%M}, which is past")
