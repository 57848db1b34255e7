"""What somebody means to do: an action, and the rows of a pane that it is about, as they were at that time.

Whatever is shown by the time it is done: an intent knows its pane and its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Self

from appliance.filters import Filter
from appliance.tui.actions import KEYS, Action, Ask, chosen, count
from appliance.tui.listing import Key
from appliance.tui.panes.base import Pane

WORDS_OF_NOUNS = {
    "vm": "desktop",
    "home": "desktop",
    "user": "user",
    "di": "image",
    "osf": "OSF",
    "host": "host",
    "config": "setting",
    "operation": "import",
    "alarm": "alarm",
}
"""What people call the objects of a noun."""
IMPORTS = ("di add", "di duplicate")
"""The operations of which the rows of images tell: a number alone may be that of another object."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Intent:
    """An action with the rows that were chosen for it."""

    action: Action
    pane: Pane
    keys: Sequence[Key] = ()
    """Of all rows that were chosen."""
    fit: Mapping[Key, Any] = field(default_factory=dict)
    """The rows with which it can be done."""
    left: int = 0
    """How many of the chosen ones are left out."""

    @classmethod
    def now(cls, action: Action, pane: Pane) -> Self:
        """With the rows that are chosen now."""
        if not action.about_rows:
            return cls(action=action, pane=pane)
        rows = pane.chosen()
        keys = pane.chosen_keys()
        fit = {key: row for key, row in zip(keys, rows, strict=True) if action.fits(row)}
        return cls(action=action, pane=pane, keys=keys, fit=fit, left=len(keys) - len(fit))

    def again(self) -> Self:
        """The same with the same rows as they are by now: without those that are gone, or fit no more."""
        rows = self.pane.records(list(self.fit))
        fit = {key: row for key, row in rows.items() if self.action.fits(row)}
        return replace(self, fit=fit, left=self.left + len(self.fit) - len(fit))

    def only(self, noun: str) -> Self:
        """The same with the rows of one noun."""
        fit = {key: row for key, row in self.fit.items() if self.noun(row) == noun}
        return replace(self, fit=fit, left=self.left + len(self.fit) - len(fit))

    @property
    def rows(self) -> list[Any]:
        """The rows with which it can be done."""
        return list(self.fit.values())

    @property
    def names(self) -> list[str]:
        """What people call them."""
        return [self.pane.called(row) for row in self.rows]

    @property
    def what(self) -> str:
        """`3 desktops`; nothing if it is about no rows."""
        if not self.fit:
            return ""
        nouns = {self.noun(row) for row in self.rows}
        return count(len(self.fit), WORDS_OF_NOUNS[nouns.pop()] if len(nouns) == 1 else "row")

    @property
    def left_out(self) -> str | None:
        """A sentence about the chosen rows that are left out, if there are any."""
        return f"{count(self.left, 'chosen row')} left out: {self.action.unfit}." if self.left else None

    @property
    def ask(self) -> Ask:
        """When it is confirmed."""
        return self.action.asked(self.rows)

    @property
    def is_asked(self) -> bool:
        """Whether it is confirmed."""
        return self.ask in {Ask.ALWAYS, Ask.TYPED} or (self.ask is Ask.SEVERAL and len(self.fit) > 1)

    @property
    def stakes(self) -> tuple[object, ...]:
        """All that who confirms it relies on."""
        return self.names, self.action.costs(self.rows), self.calls()

    def noun(self, row: Any) -> str:
        """Of which noun a row is for the action; images and OSFs share some."""
        return self.pane.noun_of(row) if self.action.name.startswith("image.") else self.action.noun

    def calls(self) -> list[list[str]]:
        """The calls of an action that needs no more to be known; none, if it lacks the rows it is about."""
        noun, verb, rows = self.action.noun, self.action.verb.split(), self.rows
        if not rows:
            return [] if self.action.about_rows else [[noun, *verb]]
        if noun == "config":
            return [["config", *verb, *(row.key for row in rows)]]
        by_id = self.ask is Ask.TYPED
        return [
            [noun, *verb, *filter_of(noun, list(group), by_id=by_id)]
            for noun, group in groupby(sorted(rows, key=self.noun), self.noun)
        ]


def filter_of(noun: str, rows: Sequence[Any], *, by_id: bool = False) -> list[str]:
    """The words of a filter for exactly these rows."""
    if noun == "operation":
        ids = [row.id for row in rows]
        some = Filter.where(object_id=ids[0]) if len(ids) == 1 else Filter.among("object_id", ids)
        return ["-f", str(Filter((*some.conditions, *Filter.among("kind", IMPORTS).conditions)))]
    key = "id" if by_id else KEYS[noun]
    return chosen(noun, [getattr(row, key) for row in rows], key=key)
