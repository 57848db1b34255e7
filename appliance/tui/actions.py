"""What an administrator can do, as data: keys, palette, help, confirmation and the `qa` twin come from here.

Every action is a verb of `qa` on the rows that are marked, or on the one at the cursor. Pure: nothing here
acts, asks or draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from appliance.filters import Filter


class Ask(Enum):
    """When an action is confirmed before it is done."""

    NEVER = "never"
    SEVERAL = "for several rows"
    ALWAYS = "always"
    TYPED = "always, by typing"
    """It cannot be undone."""


class How(Enum):
    """What an action opens before it is done."""

    CALL = "nothing but its confirmation"
    FORM = "a form of the verb's arguments"
    TAG = "the form for tags"
    IMPORT = "the form for images, and their progress"
    PROPERTIES = "the editor of properties"
    RESTORE = "the choice of a snapshot"
    CONSOLE = "a console"
    LOG = "what the verb says, to read"
    ALARMS = "the alarms that are open"


def anything(_: Any) -> bool:
    """Any row fits."""
    return True


def _nothing(_: Any) -> bool:
    return False


def _no_costs(_: Sequence[Any]) -> list[str]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do with rows of a pane."""

    name: str
    """Its own name, unique: `vm.stop`."""
    key: str
    title: str
    doc: str
    """What it does, for the help."""
    noun: str
    verb: str
    how: How = How.CALL
    ask: Ask = Ask.NEVER
    final: Callable[[Any], bool] = _nothing
    """With which rows it cannot be undone, though with others it can: with such among them, it is typed."""
    fits: Callable[[Any], bool] = anything
    """With which rows it can be done; the others are left out, and said to be."""
    unfit: str = "cannot be changed like that now"
    """What is told of rows with which it cannot be done."""
    about_rows: bool = True
    """Whether it is about rows at all; else it makes something new."""
    single: bool = False
    """Whether it takes one row only."""
    costs: Callable[[Sequence[Any]], list[str]] = _no_costs
    """What it costs the people concerned, a sentence each."""
    fields: tuple[str, ...] = ()
    """The arguments that its form has; none: all that the verb takes."""
    changes: bool = True
    """Whether it changes anything: such are not for `--readonly`."""

    def asked(self, rows: Sequence[Any]) -> Ask:
        """When it is confirmed, with these rows."""
        return Ask.TYPED if any(self.final(row) for row in rows) else self.ask


def few(names: Sequence[str], most: int = 6) -> str:
    """The names, as far as a line has room for them."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 desktop`, `12 desktops`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


KEYS = {
    "vm": "name",
    "user": "login",
    "di": "id",
    "osf": "name",
    "host": "name",
    "operation": "id",
    "home": "name",
}
"""By which key a filter names the objects of a noun."""


def chosen(noun: str, names: Sequence[object], *, key: str | None = None) -> list[str]:
    """The words of a filter for exactly these objects."""
    key = key or KEYS[noun]
    filter_ = Filter.where(**{key: names[0]}) if len(names) == 1 else Filter.among(key, names)
    return ["-f", str(filter_)]
