"""`qa when`: tells which time an expression means, before it is given to anything that acts on it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from appliance import attime
from appliance.clock import SystemClock
from appliance.qa.context import Context
from appliance.qa.output import Json, instant

HELP = """\
qa when [--at] [--now INSTANT] [-o json] [--] WORDS…

  Tells which time an expression means: as at(1) reads it, else as ISO 8601, else as its words are understood.

Options:
  --at            at's language only
  --now INSTANT   as if this was the present, written as 2030-01-31T18:00, with a zone or without
  The time zone is that of $TZ, else the host's. Words with a hyphen may need -- before them.

Examples:
  qa when NEXT SAT
  qa when 18:00 tomorrow
  qa when --now 2030-01-31T18:00 -- now + 1 month
"""


def run(context: Context) -> None:
    """Print what the words of the call mean.

    :raises TimeExpressionError: they mean no time, or the words of --now do not
    """
    zone = attime.local_zone(os.environ.get("TZ"))
    now = SystemClock().now().astimezone(zone)
    if context.invocation.now is not None:
        now = attime.read_instant(context.invocation.now, now, zone)
    expression = " ".join((*context.invocation.words[1:], *context.invocation.more))
    found = (attime.read_at if context.invocation.at else attime.read)(expression, now, zone)
    if context.for_programs:
        context.data(plain(expression, found, now))
    else:
        print(sentence(found, now), file=context.output)


def plain(expression: str, found: attime.Reading, now: datetime) -> dict[str, Json]:
    """What was understood, for programs."""
    return {
        "expression": expression,
        "local": found.instant.isoformat(timespec="seconds"),
        "utc": instant(found.instant),
        "in_s": (found.instant - now) // timedelta(seconds=1),
        "past": found.is_past,
        "understood_as": found.understood_as,
    }


def sentence(found: attime.Reading, now: datetime) -> str:
    """What was understood, for people: the time here, the time in UTC, and how far away it is."""
    local = found.instant.strftime("%a %Y-%m-%d %H:%M:%S %Z")
    utc = found.instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    away = _length(abs(found.instant - now))
    distance = f"past, {away} ago" if found.is_past else f"in {away}" if found.instant > now else "now"
    guessed = "understood as " if found.understood_as else ""
    return f"{guessed}{local} ({utc}), {distance}"


def _length(time: timedelta) -> str:
    """The two largest units of a length of time."""
    minutes, seconds = divmod(int(time.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number) or "0 s"
