"""The audit log: what was changed, by whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.binding import BindingType

from appliance.storage.live import Delta, EventLine
from appliance.tui import facts
from appliance.tui.columns import Column
from appliance.tui.listing import Key
from appliance.tui.offers.installation import ALARM_ACTIONS
from appliance.tui.panes.base import bindings
from appliance.tui.panes.fetched import FetchedPane
from appliance.tui.tally import Tally
from appliance.tui.view import instant
from appliance.tui.widgets.details import Section


def change(event: EventLine) -> str:
    """What was before, and is now."""
    was, now = event.was, event.now
    if was and now:
        return f"{was} -> {now}"
    return now or (f"was {was}" if was else "")


def named(event: EventLine, tally: Tally) -> EventLine:
    """The line with the name of the desktop that it is about, if it is about one that is there."""
    noun, _, number = event.object.partition(" ")
    vm = tally.vms.get(int(number)) if noun == "vm" and number.isdecimal() else None
    return event if vm is None else event._replace(object=f"{event.object} {vm.name}")


COLUMNS: tuple[Column[EventLine], ...] = (
    Column(
        key="at",
        title="When",
        cell=lambda event, scene: (_time(event), "dim"),
        sort=lambda event: event.id,
        least=19,
        most=19,
    ),
    Column(
        key="what",
        title="What",
        cell=lambda event, scene: (event.what, "strong"),
        sort=lambda event: event.what,
        least=12,
        most=24,
    ),
    Column(
        key="object",
        title="Object",
        cell=lambda event, scene: (event.object, "plain"),
        sort=lambda event: event.object,
        least=10,
        most=28,
    ),
    Column(
        key="change",
        title="Change",
        cell=lambda event, scene: (change(event), "plain"),
        least=10,
        most=120,
        rank=1,
    ),
    Column(
        key="by",
        title="By",
        cell=lambda event, scene: (event.by, "info"),
        sort=lambda event: event.by,
        least=10,
        most=20,
    ),
)


def _time(event: EventLine) -> str:
    at = instant(event.at)
    return "" if at is None else at.astimezone().strftime("%d %b %H:%M:%S")


class EventsPane(FetchedPane[EventLine]):
    """The latest lines of the audit log."""

    name_ = "events"
    title = "Events"
    short = "Events"
    help_ = "What was changed, by whom: the latest lines of the audit log (qa events)."
    noun = "event"
    columns: ClassVar[tuple[Column[Any], ...]] = COLUMNS
    sort = "at"
    actions = ALARM_ACTIONS
    BINDINGS: ClassVar[list[BindingType]] = bindings(ALARM_ACTIONS)
    empty = "Nothing has happened yet."

    def on_mount(self) -> None:
        """The newest first."""
        self.table.sort_by("at", reverse=True)

    def take(self, delta: Delta) -> None:
        """Whatever was committed may have left a line."""
        self.read_anew()

    async def fetch(self) -> dict[int, EventLine]:
        """The latest lines."""
        events = await self.site.read(lambda reader: reader.events())
        return {event.id: named(event, self.site.tally) for event in events}

    def apply(self, changed: Mapping[Key, EventLine], gone: frozenset[Key] = frozenset()) -> None:
        """Whoever looks at the newest line goes on to newer ones."""
        table = self.table
        follows = table.cursor is not None and table.listing.index_of(table.cursor) == 0 and not table.marks
        super().apply(changed, gone)
        if follows:
            table.action_first()

    def name_of(self, row: Any) -> object:
        """What and on what."""
        return f"{row.what} {row.object}"

    def noun_of(self, row: Any) -> str:
        """Nothing can be done with what has happened."""
        return "event"

    def sections(self, record: EventLine) -> list[Section]:
        """All of the line."""
        return [
            Section(
                "Event",
                [
                    ("When", (facts.local(instant(record.at)), "plain")),
                    ("By", (record.by, "info")),
                    ("What", (record.what, "strong")),
                    ("Object", (record.object, "plain")),
                    ("Was", (record.was or "", "plain")),
                    ("Now", (record.now or "", "plain")),
                ],
            )
        ]
