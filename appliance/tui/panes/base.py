"""What every pane with a table has alike: rows, filter, details, marks, and the actions on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Generic, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical

from appliance.errors import ApplianceError
from appliance.filters import Filter
from appliance.storage.live import Delta
from appliance.tui.actions import Action
from appliance.tui.columns import Column
from appliance.tui.listing import Key
from appliance.tui.panes.filtering import Filtering
from appliance.tui.remembered import SavedView
from appliance.tui.site import Site
from appliance.tui.widgets.details import Details, Section
from appliance.tui.widgets.filter_bar import FilterBar
from appliance.tui.widgets.record_table import RecordTable
from appliance.tui.workers import start

R = TypeVar("R")
WIDE = 150
"""From so many columns on, details stand beside the table."""
SETTLE_S = 0.15
"""How long the cursor must rest before more is read about its record."""


def bindings(actions: Sequence[Action]) -> list[BindingType]:
    """The keys of actions."""
    return [Binding(one.key, f"app.act('{one.name}')", one.title, show=False) for one in actions]


class Pane(Vertical):
    """One of the things that the keys 1 to 9 show."""

    name_: ClassVar[str]
    title: ClassVar[str]
    short: ClassVar[str]
    """Its title where there is little room."""
    help_: ClassVar[str] = ""
    """What the pane is for, for `?`."""
    actions: ClassVar[tuple[Action, ...]] = ()

    def __init__(self, site: Site) -> None:
        super().__init__(id=f"pane-{self.name_}")
        self.site = site

    @property
    def is_shown(self) -> bool:
        """Whether somebody can see it."""
        return bool(self.display) and self.is_mounted

    @property
    def awaits_rows(self) -> bool:
        """Whether its first rows are still to come."""
        return False

    def take(self, delta: Delta) -> None:
        """Something was committed; called while the pane is shown, and when it comes to be shown."""

    def tick(self) -> None:
        """A second has passed, or what guests use is known anew; called while it is shown."""

    def enter(self) -> None:
        """The pane is shown: let keys go to it."""

    def chosen(self) -> list[Any]:
        """The rows that an action is about."""
        return []

    def chosen_keys(self) -> list[Key]:
        """Their keys, in the same order."""
        return []

    def records(self, keys: Collection[Key]) -> dict[Key, Any]:
        """The rows of these keys as they are now; those that are gone are missing."""
        return {}

    @property
    def lost_marks(self) -> bool:
        """Whether all marked rows went away by themselves, so that nobody knows what is chosen now."""
        return False

    def unmark(self, keys: Collection[Key] = ()) -> None:
        """Take the marks of these rows away, if they have any; others stay."""

    def name_of(self, row: Any) -> object:
        """The name by which people know a row of this pane."""
        return row.name

    def called(self, row: Any) -> str:
        """What a question calls a row: as much as tells it from all others."""
        return str(self.name_of(row))

    def noun_of(self, row: Any) -> str:
        """Of which noun a row is."""
        raise NotImplementedError


class TablePane(Pane, Generic[R]):
    """A pane whose heart is a table."""

    DEFAULT_CSS = """
    TablePane > #body { height: 1fr; layout: vertical; }
    TablePane > #body > Details { height: 40%; max-height: 16; display: none; }
    TablePane > #body > Details { border-top: solid $foreground 20%; }
    TablePane > #body.-details > Details { display: block; }
    TablePane > #body.-wide { layout: horizontal; }
    TablePane > #body.-wide > Details { width: 48; height: 1fr; max-height: 100%; }
    TablePane > #body.-wide > Details { border-top: none; border-left: solid $foreground 20%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", show=False),
        Binding("less_than_sign,comma", "sort(-1)", "Sort by the column before", show=False),
        Binding("greater_than_sign,full_stop", "sort(1)", "Sort by the next column", show=False),
        Binding("equals_sign", "reverse", "Other way round", show=False),
        Binding("escape", "back", "Back", show=False),
        Binding("tab", "other", "Details and back", show=False),
    ]
    noun: ClassVar[str] = ""
    """The noun whose filters are understood here; empty: only plain search."""
    nouns: ClassVar[frozenset[str]] = frozenset()
    """The nouns whose changes concern the rows."""
    columns: ClassVar[tuple[Column[Any], ...]] = ()
    sort: ClassVar[str] = "name"
    empty: ClassVar[str] = "There is nothing yet."

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._chosen_details: bool | None = None
        self._more: list[Section] = []
        self._more_of: tuple[Key, R] | None = None
        """Of which record there was a closer look last."""
        self.first_columns: tuple[str, ...] = ()
        """The columns to begin with; none: the usual ones."""

    def compose(self) -> ComposeResult:
        """The table, what there is to know of a row, and the filter."""
        with Container(id="body"):
            yield RecordTable(
                self._chosen_columns(self.first_columns),
                self.site.glyphs,
                self.site.scene,
                empty=self.empty,
                sort=self.sort,
                hidden=self.columns,
            )
            yield Details()
        yield FilterBar()

    @property
    def table(self) -> RecordTable[R]:
        """The table."""
        return self.query_one(RecordTable)

    @property
    def filter_bar(self) -> FilterBar:
        """The line with the filter."""
        return self.query_one(FilterBar)

    @cached_property
    def filtering(self) -> Filtering[R]:
        """Which rows are shown."""
        return Filtering(
            self,
            self.table,
            self.filter_bar,
            judge=self._judge if self.noun else None,
            id_of=self.id_of,
            searched=self.searched,
            admits=self.admits,
            changed=self.show_details,
        )

    def enter(self) -> None:
        """Keys go to the table."""
        self.table.focus()

    def chosen(self) -> list[R]:
        """The marked rows, else the one at the cursor."""
        return self.table.chosen

    def chosen_keys(self) -> list[Key]:
        """Their keys, in the same order."""
        table = self.table
        keys = table.marks or {table.cursor}
        return [key for key in table.listing.ordered() if key in keys]

    def records(self, keys: Collection[Key]) -> dict[Key, R]:
        """The rows of these keys as they are now; those that are gone are missing."""
        records = self.all_records()
        return {key: records[key] for key in keys if key in records}

    @property
    def lost_marks(self) -> bool:
        """Whether all marked rows went away by themselves, so that nobody knows what is chosen now."""
        return self.table.lost_marks

    def unmark(self, keys: Collection[Key] = ()) -> None:
        """Take the marks of these rows away, if they have any; others stay."""
        self.table.clear_marks(keys)

    def tick(self) -> None:
        """Countdowns and ages move."""
        self.table.repaint()
        self.show_details()

    def searched(self, record: R) -> str:
        """What plain search looks through, in lower case."""
        cells = (column.cell(record, self.site.scene())[0] for column in self.columns)
        return "\0".join(cells).casefold()

    def sections(self, record: R) -> list[Section]:
        """What there is to know of a row at once."""
        return []

    async def more(self, record: R) -> list[Section]:
        """What takes a look at the database or a file."""
        return []

    def id_of(self, record: R) -> int:
        """The number by which a filter's result names the record."""
        return int(record.id)  # type: ignore[attr-defined]

    def admits(self, record: R, passing: set[int]) -> bool:
        """Whether a row is shown when the objects with these numbers pass a filter."""
        return self.id_of(record) in passing

    def replace(self, records: Mapping[Key, R]) -> None:
        """These are all the rows there are."""
        self.filtering.replace(records)
        self.show_details()

    def apply(self, changed: Mapping[Key, R], gone: frozenset[Key] = frozenset()) -> None:
        """These rows are other ones now."""
        self.filtering.apply(changed, gone)
        if self.table.cursor in changed or gone:
            self.show_details()

    # Filtering

    def action_filter(self) -> None:
        """Let somebody write a filter."""
        self.filter_bar.open()

    @on(FilterBar.Left)
    def _filter_left(self, event: FilterBar.Left) -> None:
        event.stop()
        self.filtering.leave()

    @on(FilterBar.Abandoned)
    def _filter_abandoned(self, event: FilterBar.Abandoned) -> None:
        event.stop()
        self.filtering.abandon()

    @property
    def awaits_rows(self) -> bool:
        """Whether the rows that keys would go to are still to come."""
        return self.filtering.is_leaving

    @on(FilterBar.Changed)
    def _filter_changed(self, event: FilterBar.Changed) -> None:
        event.stop()
        self.filter_by(event.text)

    def filter_by(self, text: str) -> None:
        """Show only rows that pass a filter of `qa -f`, or hold the words of a text."""
        self.filtering.by(text)

    async def _judge(self, filter_: Filter, among: Collection[int] | None) -> set[int]:
        return await self.site.database.passing(self.noun, filter_, among)

    def all_records(self) -> Mapping[Key, R]:
        """All rows there are now."""
        return self.table.listing.records

    # Looks

    def _chosen_columns(self, keys: Sequence[str]) -> list[Column[Any]]:
        usual = [column for column in self.columns if not column.optional]
        return [column for column in self.columns if column.key in keys] or usual

    def choose_columns(self, keys: Sequence[str]) -> None:
        """Show these columns; none: the usual ones."""
        self.table.choose_columns(self._chosen_columns(keys))

    def view(self, name: str) -> SavedView:
        """How the table looks now."""
        return SavedView(
            pane=self.name_,
            name=name,
            filter=self.filter_bar.text,
            sort=self.table.sort_key,
            reverse=self.table.reverse,
            columns=tuple(column.key for column in self.table.columns),
        )

    def look_as(self, view: SavedView) -> None:
        """Let the table look as it was saved."""
        self.choose_columns(view.columns)
        if view.sort is not None:
            self.table.sort_by(view.sort, reverse=view.reverse)
        if view.filter:
            self.filter_bar.open(view.filter)
            self.table.focus()
        elif self.filter_bar.text:
            self.filter_bar.action_drop()

    # Sorting

    def action_sort(self, by: int) -> None:
        """Sort by a neighbour of the column that sorts now."""
        keys = [column.key for column in self.table.columns if column.sort is not None]
        if not keys:
            return
        at = keys.index(self.table.sort_key) if self.table.sort_key in keys else 0
        self.table.sort_by(keys[(at + by) % len(keys)])

    def action_reverse(self) -> None:
        """Sort the other way round."""
        if self.table.sort_key is not None:
            self.table.sort_by(self.table.sort_key, reverse=not self.table.reverse)

    # Details

    @property
    def details_shown(self) -> bool:
        """Whether there is more to see of the row at the cursor."""
        return self.query_one("#body").has_class("-details")

    def on_resize(self, event: events.Resize) -> None:
        """Details stand beside the table where there is room, and are shown there unless hidden."""
        body = self.query_one("#body")
        wide = event.size.width >= WIDE
        body.set_class(wide, "-wide")
        body.set_class(wide if self._chosen_details is None else self._chosen_details, "-details")
        self.call_after_refresh(self.show_details)

    @on(RecordTable.Chosen)
    def _toggle(self, event: RecordTable.Chosen) -> None:
        event.stop()
        self.toggle_details()

    def toggle_details(self) -> None:
        """Show or hide what there is to know of the row at the cursor."""
        self._chosen_details = not self.details_shown
        self.query_one("#body").set_class(self._chosen_details, "-details")
        self.show_details()

    @on(RecordTable.Moved)
    def _moved(self, event: RecordTable.Moved) -> None:
        event.stop()
        self._more = []
        self.show_details(anew=True)

    def show_details(self, *, anew: bool = False) -> None:
        """Show what there is to know of the row at the cursor; `anew`: it is another row."""
        if not self.details_shown or not self.is_shown:
            return
        record = self.table.current
        if record is None:
            self.query_one(Details).show("Nothing chosen", [])
            return
        self.query_one(Details).show(str(self.name_of(record)), [*self.sections(record), *self._more])
        key, known = self._more_of or (None, None)
        if anew or key != self.table.cursor or known is not record:
            self._more_of = (self.table.cursor, record)
            start(self, partial(self._look_closer, record), group="details", exclusive=True)

    async def _look_closer(self, record: R) -> None:
        from appliance.clock import SystemClock

        await SystemClock().sleep(SETTLE_S)
        try:
            self._more = await self.more(record)
        except ApplianceError as exc:
            self._more = [Section("More", [("", (str(exc), "bad"))])]
        if not self.app.is_running:
            return
        current = self.table.current
        if current is not None and self.details_shown:
            self.query_one(Details).show(str(self.name_of(current)), [*self.sections(current), *self._more])

    def action_other(self) -> None:
        """Let keys go to the details, or to the table again."""
        details = self.query_one(Details)
        (self.table if details.has_focus or not self.details_shown else details).focus()

    def action_back(self) -> None:
        """Undo the last thing that narrows the view: marks, then details' focus, then the filter."""
        if not self.table.has_focus:
            self.table.focus()
        elif not self.table.clear_marks() and self.filter_bar.text:
            self.filter_bar.action_drop()
