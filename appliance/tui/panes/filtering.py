"""Which rows of a table are shown: by words in them, or by a filter of `qa -f` that the database judges.

The database is asked in a worker, one question at a time, so that no row is judged by an older state than the
one that is shown. What changed meanwhile waits for its turn; only what changed is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Generic, Protocol, TypeVar

from textual.widget import Widget

from appliance.errors import ApplianceError
from appliance.filters import Filter
from appliance.tui.listing import Key
from appliance.tui.widgets.filter_bar import FilterBar, is_grammar
from appliance.tui.widgets.record_table import RecordTable
from appliance.tui.workers import start

R = TypeVar("R")


class Judge(Protocol):
    """Asks the database which of its objects pass a filter; with `among`, of these at least."""

    async def __call__(self, filter_: Filter, among: Collection[int] | None) -> set[int]: ...


class Filtering(Generic[R]):
    """The filter of one table."""

    def __init__(
        self,
        owner: Widget,
        table: RecordTable[R],
        bar: FilterBar,
        *,
        judge: Judge | None,
        id_of: Callable[[R], int],
        searched: Callable[[R], str],
        admits: Callable[[R, set[int]], bool],
        changed: Callable[[], None],
    ) -> None:
        """`searched` gives what words are looked for in; `changed` is called when other rows are shown.

        Without a `judge` there are only words. `admits` says whether a row is shown if these ids pass.
        """
        self._owner = owner
        self._table = table
        self._bar = bar
        self._judge = judge
        self._id_of = id_of
        self._searched = searched
        self._admits = admits
        self._changed = changed
        self._wanted: Filter | None = None
        """The filter that is written, which the database may refuse."""
        self._is_new = False
        """Whether it has not been tried yet."""
        self._is_judged = True
        self._filter: Filter | None = None
        """The filter in force, to which `_passing` belongs."""
        self._words: list[str] = []
        self._passing: set[int] = set()
        self._replacement: Mapping[Key, R] | None = None
        self._waiting: dict[Key, R] = {}
        self._gone: set[Key] = set()
        self._refusal: str | None = None
        self._trouble: str | None = None
        self._busy = False
        self.is_leaving = False
        """Whether keys shall go to the table as soon as it is known what the filter leaves there."""

    def by(self, text: str) -> None:
        """Show only rows that pass; a text that is no filter yet changes nothing, and is told to be none."""
        self._refusal = None
        if self._judge is not None and is_grammar(text):
            try:
                self._wanted, self._is_new, self._is_judged = Filter.parse(text), True, False
            except ApplianceError as exc:
                self._wanted, self._is_new, self._is_judged = None, False, True
                self._refuse(exc.message)
                return
            self._begin()
            return
        self._wanted, self._is_new, self._is_judged = None, False, True
        self._filter, self._trouble = None, None
        self._words = text.casefold().split()
        self._bar.tell("")
        self._show()

    def leave(self) -> None:
        """Let keys go to the table when the filter is judged; not with one that is refused."""
        self.is_leaving = True
        if self._is_judged:
            self._left()

    def abandon(self) -> None:
        """Keys go elsewhere, whatever is written: a filter that was refused lets no row through."""
        if self._refusal is not None:
            self._table.show(lambda _: False)
            self._changed()

    def replace(self, records: Mapping[Key, R]) -> None:
        """These are all the records."""
        if self._filter is None and not self._busy:
            self._table.replace(records)
            self._tell()
            return
        self._replacement = records
        self._waiting.clear()
        self._gone.clear()
        self._begin()

    def apply(self, changed: Mapping[Key, R], gone: Collection[Key]) -> None:
        """These records are other ones now."""
        if self._filter is None and not self._busy:
            self._table.apply(changed, gone)
            self._tell()
            return
        self._waiting.update(changed)
        self._gone = (self._gone - changed.keys()) | set(gone)
        for key in gone:
            self._waiting.pop(key, None)
        self._begin()

    def _begin(self) -> None:
        if not self._busy:
            self._busy = True
            start(self._owner, self._work, group="filter")

    async def _work(self) -> None:
        try:
            while self._is_new or self._waiting or self._gone or self._replacement is not None:
                if self._is_new:
                    await self._try()
                await self._take_in()
                self._changed()
        finally:
            self._busy = False

    async def _try(self) -> None:
        """Put the filter in force that is wanted; one that is refused leaves all as it was."""
        wanted, self._is_new = self._wanted, False
        if wanted is None or self._judge is None:
            return
        try:
            passing = await self._judge(wanted, None)
        except ApplianceError as exc:
            if wanted is self._wanted:
                self._refuse(str(exc))
        else:
            if wanted is self._wanted:
                self._filter, self._words, self._passing, self._trouble = wanted, [], passing, None
                self._table.show(self._is_shown)
        if wanted is self._wanted:
            self._is_judged = True
            if self.is_leaving:
                self._left()

    def _refuse(self, why: str) -> None:
        """Say what is wrong; what was shown before stays as long as somebody is writing."""
        self._refusal = why
        self._tell()
        if not self._bar.is_written_in:
            self.abandon()

    def _left(self) -> None:
        self.is_leaving = False
        is_elsewhere = self._owner.screen.focused is not None and not self._bar.is_written_in
        if self._refusal is None and not is_elsewhere:
            self._table.focus()

    async def _take_in(self) -> None:
        """Take in what waits, each with the judgement on it."""
        replacement, self._replacement = self._replacement, None
        waiting, self._waiting = self._waiting, {}
        gone, self._gone = self._gone, set()
        filter_, ids = self._filter, {self._id_of(record) for record in waiting.values()}
        if filter_ is not None and self._judge is not None and (ids or replacement is not None):
            try:
                passing = await self._judge(filter_, ids if replacement is None else None)
            except ApplianceError as exc:
                self._trouble = str(exc)
            else:
                self._trouble = None
                if filter_ is self._filter:
                    self._passing = passing if replacement is not None else (self._passing - ids) | passing
        if replacement is not None:
            self._table.replace(replacement)
        if waiting or gone:
            self._table.apply(waiting, gone)
        self._tell()

    def _show(self) -> None:
        self._table.show(self._is_shown if self._words or self._filter is not None else None)
        self._tell()
        self._changed()

    def _is_shown(self, record: R) -> bool:
        if self._filter is not None:
            return self._admits(record, self._passing)
        text = self._searched(record)
        return all(word in text for word in self._words)

    def _tell(self) -> None:
        if (wrong := self._refusal or self._trouble) is not None:
            self._bar.tell(wrong, wrong=True)
        elif self._filter is not None or self._words:
            listing = self._table.listing
            self._bar.tell(f"{len(listing):,} of {len(listing.records):,}")
