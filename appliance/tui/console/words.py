"""What the lines around a console say. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from appliance.tui.console.link import Company, Standing

CATCHING_UP = "reading what was shown before"
KEYS_BACK = "Ctrl-] gives the keys back"
COMMANDS = (
    ("enter", "type"),
    ("t", "take over"),
    ("r", "release"),
    ("[ ]", "tabs"),
    ("pgup", "scroll"),
    ("/", "search"),
    ("y", "copy"),
    ("w", "close"),
    ("esc", "leave"),
)
"""Keys while nothing is typed, and what they do."""
READ_ONLY_HIDES = ("enter", "t", "r")
LESS_WANTED = ("pgup", "r", "y", "[ ]", "/", "w", "t")
"""The keys that a narrow line leaves out first; the help has them all."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One character for each state; the words beside them say the same."""

    write: str
    watch: str
    busy: str
    waiting: str
    off: str
    news: str
    more: str
    between: str


PRETTY = Glyphs(write="●", watch="○", busy="◐", waiting="◌", off="■", news="•", more="…", between=" · ")
ASCII = Glyphs(write="*", watch="o", busy="-", waiting="~", off="x", news="+", more=">", between=" - ")


def glyph(glyphs: Glyphs, standing: Standing, company: Company) -> tuple[str, str]:
    """The glyph of a console, and the name of its colour among the theme's variables."""
    if standing in {Standing.NOT_RUNNING, Standing.DELETED}:
        return glyphs.off, "text-muted"
    if standing in {Standing.DAEMON_DOWN, Standing.REFUSED}:
        return glyphs.off, "text-error"
    if standing is Standing.CONNECTING:
        return glyphs.waiting, "text-muted"
    if company.waiting_for:
        return glyphs.waiting, "text-warning"
    if company.you_write:
        return glyphs.write, "text-success"
    return (glyphs.busy, "text-warning") if company.writer else (glyphs.watch, "text-muted")


def who_is_there(standing: Standing, company: Company, between: str = PRETTY.between) -> str:
    """Who writes, who watches, and what the line waits for; if there is no link, why not."""
    if standing is not Standing.OPEN:
        return standing.value
    watching = [_name(other) for other in company.others if other != company.writer]
    parts = []
    if company.you_write:
        parts.append("you write")
    elif company.writer:
        parts.append(f"{_name(company.writer)} writes, you watch")
    else:
        parts.append("nobody writes")
    if watching:
        parts.append(f"{', '.join(watching)} watch{'es' if len(watching) == 1 else ''}")
    if company.waiting_for:
        parts.append(f"waiting: {company.waiting_for}")
    return between.join(parts)


def _name(label: str) -> str:
    """What somebody is called, without the number of the process."""
    return re.sub(r" \(pid \d+\)\Z", "", label)


def trouble(standing: Standing, reason: str, since: datetime) -> str:
    """Why nothing new can come, and since when; empty if all is well. `since` is in the reader's zone."""
    at = f"since {since:%H:%M:%S}"
    match standing:
        case Standing.OPEN | Standing.CONNECTING:
            return ""
        case Standing.DAEMON_DOWN:
            return f"The daemon is down {at}. This is old; the console comes back by itself."
        case Standing.NOT_RUNNING:
            word = "The VM has stopped" if reason == "the VM has stopped" else "The VM does not run"
            return f"{word} ({at}). The console comes back when it runs."
        case Standing.DELETED:
            return f"The VM is deleted ({at}). w closes this console."
        case Standing.REFUSED:
            return f"No console {at}: {reason}. It is tried again."


def place(
    lines_back: int,
    skipped: int,
    guest: tuple[int, int],
    ours: tuple[int, int],
    between: str = PRETTY.between,
) -> str:
    """Where the view is, if it is not where the guest writes, and what is not in it.

    `guest` and `ours` are lines and columns of the guest's terminal and of the view.
    """
    parts = []
    if lines_back:
        parts.append(f"{lines_back:,} lines back")
    if skipped:
        parts.append(f"{skipped:,} bytes skipped")
    if guest[0] > ours[0] or guest[1] > ours[1]:
        parts.append(f"its screen is larger: {guest[1]}x{guest[0]}")
    return between.join(parts)
