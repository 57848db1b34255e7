"""A table that shows the rows of a listing which are on the screen, and repaints the cells that changed.

It holds no rows of its own: a listing of ten thousand costs it as much as one of fifty. Cursor and marks are
kept by key, so rows may come, go and move beneath them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from appliance.tui.columns import MARGIN, STYLES, Cell, Column, Placed, Scene, place
from appliance.tui.glyphs import Glyphs
from appliance.tui.listing import Key, Listing
from appliance.tui.rows import cells_of, header, row, wanted

R = TypeVar("R")
HEADER = 1
SAMPLED = 2000
"""How many rows are measured for the width of a column."""
KEPT_SCREENS = 2
"""How many screens of rows are kept as they were drawn, to be drawn quickly when they scroll."""
NO_RECORD = None


class Drawn(NamedTuple):
    """A line as it is on the screen."""

    key: Key
    """Of its record; NO_RECORD for the header and for lines below the last row."""
    cells: tuple[Cell, ...]
    manner: tuple[bool, bool, bool]
    """Whether the cursor is there, whether it is marked, whether keys go to the table."""
    strip: Strip


class RecordTable(ScrollView, Generic[R], can_focus=True):
    """Rows of records beneath a header that stays."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"table--{style}" for style in STYLES),
        *("table--header", "table--sorted", "table--cursor", "table--cursor-away", "table--marked"),
    }
    DEFAULT_CSS = """
    RecordTable {
        height: 1fr;
        scrollbar-size-vertical: 1;
        scrollbar-size-horizontal: 0;
        overflow-x: hidden;
        overflow-y: scroll;
        background: $background;
        & > .table--strong { text-style: bold; }
        & > .table--dim { color: $text-muted; }
        & > .table--good { color: $text-success; }
        & > .table--busy { color: $text-accent; }
        & > .table--warn { color: $text-warning; }
        & > .table--bad { color: $text-error; text-style: bold; }
        & > .table--info { color: $text-primary; }
        & > .table--header { color: $text-muted; background: $panel; text-style: bold; }
        & > .table--sorted { color: $text-primary; }
        & > .table--cursor { background: $primary-muted; }
        & > .table--cursor-away { background: $panel; }
        & > .table--marked { color: $text-accent; text-style: bold; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("home,g", "first", "First", show=False),
        Binding("end,G", "last", "Last", show=False),
        Binding("space", "mark", "Mark", show=False),
        Binding("ctrl+@,ctrl+space,V", "mark_range", "Mark range", show=False),
        Binding("shift+up", "mark_move(-1)", "Mark upwards", show=False),
        Binding("shift+down", "mark_move(1)", "Mark downwards", show=False),
        Binding("asterisk,ctrl+a", "mark_all", "Mark all shown", show=False),
        Binding("enter", "choose", "Details", show=False),
    ]

    class Moved(Message):
        """The cursor stands on another record."""

        def __init__(self, table: RecordTable[Any], key: Key | None) -> None:
            self.table, self.key = table, key
            super().__init__()

        @property
        def control(self) -> RecordTable[Any]:
            return self.table

    class Marked(Moved):
        """The marks have changed."""

    class Chosen(Moved):
        """Somebody wants to see more of the record at the cursor."""

    def __init__(
        self,
        columns: Sequence[Column[R]],
        glyphs: Glyphs,
        scene: Callable[[], Scene],
        *,
        id: str | None = None,  # noqa: A002 - Textual's name
        empty: str = "There is nothing yet.",
        sort: str | None = None,
        hidden: Sequence[Column[R]] = (),
    ) -> None:
        """`scene` tells what cells depend on, each time they are drawn; `sort` is the first order.

        By `hidden` columns, too, rows can be in order.
        """
        super().__init__(id=id)
        self.columns: tuple[Column[R], ...] = tuple(columns)
        self.sort_key = sort
        self.reverse = False
        self._orders = {column.key: column.sort for column in (*hidden, *columns) if column.sort is not None}
        self.listing: Listing[R] = Listing(self._orders[sort]) if sort in self._orders else Listing()
        self.marks: set[Key] = set()
        self.lost_marks = False
        """Whether all marks are gone because their rows are, and nobody has chosen anew since."""
        self.cursor: Key | None = None
        self.empty = empty
        self._glyphs = glyphs
        self._scene = scene
        self._at = 0
        self._rows = 0
        self._anchor: Key | None = None
        self._placed: list[Placed[R]] = []
        self._placed_in = -1
        """The width for which columns have their places."""
        self._drawn: dict[int, Drawn] = {}
        """What is on the screen, by line; lines that must be drawn anew are missing."""
        self._kept: dict[Key, Drawn] = {}
        """Rows as they were drawn last, wherever that was."""
        self._looks: dict[str, Style] = {}
        self._wanted: dict[str, int] = {}
        self._now: Scene = scene()

    @property
    def current(self) -> R | None:
        """The record at the cursor."""
        return None if self.cursor is None else self.listing.records.get(self.cursor)

    @property
    def chosen(self) -> list[R]:
        """What an action is about: the marked records that are rows, else the one at the cursor."""
        keys = self.marks or ({self.cursor} if self.cursor is not None else set())
        return [self.listing.records[key] for key in self.listing.ordered() if key in keys]

    def replace(self, records: Mapping[Key, R]) -> None:
        """Show these and no others."""
        line = self._line_of_cursor()
        self.listing.replace(records)
        self._unmark_unseen()
        self._measure(list(records.values())[:SAMPLED])
        self._rows_changed(line)

    def apply(self, changed: Mapping[Key, R], gone: Iterable[Key] = ()) -> None:
        """Take in what changed; cursor, marks and what is on the screen stay where they are."""
        line = self._line_of_cursor()
        gone = set(gone)
        if self.listing.apply(changed, gone):
            self._unmark_unseen()
            self._measure(list(changed.values())[:SAMPLED], grow=True)
            self._rows_changed(line)
        else:
            self._repaint(changed)

    def show(self, passes: Callable[[R], bool] | None) -> None:
        """Let only records that pass be rows; marks on others are taken away, so that nobody acts unseen."""
        line = self._line_of_cursor()
        self.listing.show(passes)
        self._unmark_unseen()
        self._rows_changed(line)

    def sort_by(self, key: str, *, reverse: bool = False) -> None:
        """Put the rows in the order of a column, shown or hidden."""
        if (order := self._orders.get(key)) is None:
            return
        self.sort_key, self.reverse = key, reverse
        line = self._line_of_cursor()
        self.listing.sort_by(order, reverse=reverse)
        self._rows_changed(line)

    def choose_columns(self, columns: Sequence[Column[R]]) -> None:
        """Show other columns."""
        self.columns = tuple(columns)
        self._measure(list(self.listing.records.values())[:SAMPLED])
        self._layout_columns()

    def set_cursor(self, key: Key) -> None:
        """Put the cursor on a record, if it is a row."""
        if (index := self.listing.index_of(key)) is not None:
            self._go(index)

    def repaint(self) -> None:
        """Draw anew the cells whose contents differ from what is on the screen."""
        self._repaint(self.listing.records)

    def _repaint(self, records: Mapping[Key, R]) -> None:
        """Do so for these records alone, as far as they are on the screen."""
        self._now = self._scene()
        for line, drawn in list(self._drawn.items()):
            record = records.get(drawn.key)
            if record is None:
                continue
            fresh = self._cells(record)
            if fresh == drawn.cells:
                continue
            differing = [
                place for place, old, new in zip(self._placed, drawn.cells, fresh, strict=True) if old != new
            ]
            first, last = differing[0], differing[-1]
            self._draw_anew(line, first.x, last.x + last.width)

    def clear_marks(self, keys: Iterable[Key] | None = None) -> bool:
        """Take marks away, all or these; whether there were any."""
        self.lost_marks = False
        gone = set(self.marks) if keys is None else self.marks.intersection(keys)
        if not gone:
            return False
        self.marks -= gone
        self._marks_changed()
        return True

    def render_lines(self, crop: Region) -> list[Strip]:
        """Lines of the screen: as they were, if nothing about them has changed.

        This goes past Textual's cache of styled lines: there is no border and no padding to add, and a strip
        that stays the same object need not be turned into escape sequences again.
        """
        if self.opacity < 1:
            return super().render_lines(crop)
        filters, background = self.get_line_filters(), self.background_colors[1]
        strips = self._lines(crop.line_range)
        for filter_ in filters:
            strips = [strip.apply_filter(filter_, background) for strip in strips]
        if crop.column_span != (0, self._placed_in):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        return self._lines((y,))[0]

    def _lines(self, numbers: Sequence[int]) -> list[Strip]:
        if self._placed_in != self.scrollable_size.width:  # nobody has told us of the new size yet
            self._place_columns()
        for y in numbers:
            if y not in self._drawn:
                self._drawn[y] = self._draw(y)
        return [self._drawn[y].strip for y in numbers]

    def _draw(self, y: int) -> Drawn:
        width = self._placed_in
        index = self.scroll_offset.y + y - HEADER
        if y < HEADER:
            return Drawn(NO_RECORD, (), (False,) * 3, self._header(width))
        if index >= len(self.listing):
            words = f"  {self._nothing()}" if y == HEADER and not len(self.listing) else ""
            look = self._look("dim" if words else "plain")
            strip = Strip([Segment(words.ljust(width)[:width], look)], width)
            return Drawn(NO_RECORD, (), (False,) * 3, strip)
        key = self.listing.key_at(index)
        cells = self._cells(self.listing.records[key])
        manner = (key == self.cursor, key in self.marks, self.has_focus)
        kept = self._kept.get(key)
        if kept is None or kept.cells != cells or kept.manner != manner:
            if len(self._kept) >= KEPT_SCREENS * self.size.height:
                self._kept.clear()
            kept = self._kept[key] = Drawn(key, cells, manner, self._row(cells, manner, width))
        return kept

    def _draw_anew(self, line: int, start: int, end: int) -> None:
        """Let a line be drawn again; only from one column to another does it differ."""
        self._drawn.pop(line, None)
        self.refresh(Region(start, line, end - start, 1))

    def _draw_what_differs(self) -> None:
        """Let those lines be drawn again that would look different."""
        for y in range(self.size.height):
            before = self._drawn.get(y)
            now = self._drawn[y] = self._draw(y)
            if before is None or (before.strip is not now.strip and before.strip != now.strip):
                self.refresh(Region(0, y, self.size.width, 1))

    def _draw_all_anew(self) -> None:
        self._drawn.clear()
        self.refresh()

    def watch_has_focus(self, value: bool) -> None:
        """The cursor looks different where keys go elsewhere."""
        super().watch_has_focus(value)
        self._draw_all_anew()

    def notify_style_update(self) -> None:
        """Another theme: other colours."""
        super().notify_style_update()
        self._looks.clear()
        self._kept.clear()
        self._drawn.clear()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Records stand on other lines, unless rows came or went above them at the same time."""
        if self.show_vertical_scrollbar and round(old_value) != round(new_value):
            self.vertical_scrollbar.position = new_value
            self._draw_what_differs()

    def on_resize(self, event: events.Resize) -> None:
        """Other columns fit; who saw the cursor sees it still."""
        rows = max(1, event.size.height - HEADER)
        line = self._at - self.scroll_offset.y
        was_seen = self.cursor is not None and 0 <= line < self._rows
        self._rows = rows
        self._layout_columns()
        self._rows_changed(min(line, rows - 1) if was_seen else self._line_of_cursor())

    def action_move(self, by: int) -> None:
        """Put the cursor on a neighbour."""
        self._go(self._at + by)

    def action_page(self, by: int) -> None:
        """Move by a screen."""
        self._go(self._at + by * max(1, self.size.height - HEADER - 1))

    def action_first(self) -> None:
        """Go to the top."""
        self._go(0)

    def action_last(self) -> None:
        """Go to the bottom."""
        self._go(len(self.listing) - 1)

    def action_mark(self) -> None:
        """Mark the row at the cursor or take its mark away, and go on to the next."""
        if self.cursor is None:
            return
        self.marks ^= {self.cursor}
        self._anchor = self.cursor
        self._marks_changed()
        self._go(self._at + 1)

    def action_mark_range(self) -> None:
        """Mark all rows from the one that was marked last to the cursor."""
        start = self.listing.index_of(self._anchor) if self._anchor in self.marks else None
        if self.cursor is None:
            return
        low, high = sorted((self._at if start is None else start, self._at))
        self.marks |= {self.listing.key_at(index) for index in range(low, high + 1)}
        self._anchor = self.cursor
        self._marks_changed()

    def action_mark_move(self, by: int) -> None:
        """Mark the row at the cursor and its neighbour, and go there."""
        if self.cursor is None:
            return
        self.marks.add(self.cursor)
        self._go(self._at + by)
        self.marks.add(self.cursor)
        self._anchor = self.cursor
        self._marks_changed()

    def action_mark_all(self) -> None:
        """Mark all rows, or none if all are."""
        keys = set(self.listing.ordered())
        self.marks = set() if self.marks == keys else keys
        self._marks_changed()

    def action_choose(self) -> None:
        """Show more of the record at the cursor."""
        if self.cursor is not None:
            self.post_message(self.Chosen(self, self.cursor))

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor; on the header, it sorts; a second one on a row shows more."""
        if event.y < HEADER:
            for place_ in self._placed:
                if place_.x <= event.x < place_.x + place_.width:
                    self.sort_by(
                        place_.column.key,
                        reverse=place_.column.key == self.sort_key and not self.reverse,
                    )
            return
        index = self.scroll_offset.y + event.y - HEADER
        if index >= len(self.listing):
            return
        again = index == self._at
        self._go(index)
        if event.x < MARGIN or event.ctrl:
            self.action_mark()
        elif again and event.chain == 2:
            self.action_choose()

    def _nothing(self) -> str:
        return "Nothing matches." if self.listing.records else self.empty

    def _cells(self, record: R) -> tuple[Cell, ...]:
        return cells_of(record, self._placed, self._now)

    def _header(self, width: int) -> Strip:
        look = self._look("header")
        pieces = header(self._placed, self.sort_key, self._glyphs, reverse=self.reverse)
        looks = {"header": look, "sorted": look + self._look("sorted")}
        return Strip([Segment(text, looks[style]) for text, style in pieces]).adjust_cell_length(width, look)

    def _row(self, cells: Sequence[Cell], manner: tuple[bool, bool, bool], width: int) -> Strip:
        here, marked, focused = manner
        base = Style()
        if here:
            base = self._look("cursor" if focused else "cursor-away")
        plain = self._look("plain") + base
        segments = []
        for text, style in row(cells, self._placed, self._glyphs, here=here, marked=marked):
            look = plain + self._look(style) if style == "marked" else self._look(style) + base
            segments.append(Segment(text, look))
        return Strip(segments).adjust_cell_length(width, plain)

    def _look(self, name: str) -> Style:
        """The style of this name: its colours on the table's ground."""
        found = self._looks.get(name)
        if found is None:
            partial = name in {"cursor", "cursor-away", "sorted", "marked"}
            found = self.get_component_rich_style(f"table--{name}", partial=partial)
            self._looks[name] = found
        return found

    def _measure(self, records: Sequence[R], *, grow: bool = False) -> None:
        """How wide contents are; columns never become narrower while rows only change."""
        self._now = self._scene()
        widths = wanted(self.columns, records, self._now)
        if grow:
            widths = {key: max(width, self._wanted.get(key, 0)) for key, width in widths.items()}
        if widths != self._wanted:
            self._wanted = widths
            self._layout_columns()

    def _layout_columns(self) -> None:
        self._place_columns()
        self._draw_all_anew()

    def _place_columns(self) -> None:
        self._placed_in = self.scrollable_size.width
        self._placed = place(self.columns, self._wanted, self._placed_in)
        self._kept.clear()
        self._drawn.clear()

    def _unmark_unseen(self) -> None:
        """Take the marks of records away that are no rows any more."""
        seen = {key for key in self.marks if self.listing.index_of(key) is not None}
        if seen != self.marks:
            self.marks, self.lost_marks = seen, not seen
            self.post_message(self.Marked(self, self.cursor))

    def _line_of_cursor(self) -> int | None:
        """On which line of the screen the cursor is, if it is."""
        if self.cursor is None:
            return None
        line = self._at - self.scroll_offset.y
        return line if 0 <= line < max(1, self.size.height - HEADER) else None

    def _rows_changed(self, line: int | None) -> None:
        """Show rows that came, went or moved, with the cursor's record on the same line of the screen."""
        count = len(self.listing)
        before = self.cursor
        index = None if self.cursor is None else self.listing.index_of(self.cursor)
        self._at = max(0, min(self._at, count - 1)) if index is None else index
        self.cursor = self.listing.key_at(self._at) if count else None
        self._make_room(Size(self.size.width, count + HEADER))
        if line is not None:
            self._scroll(self._at - line)
        self._draw_what_differs()
        if self.cursor != before:
            self.post_message(self.Moved(self, self.cursor))

    def _go(self, index: int) -> None:
        count = len(self.listing)
        if not count:
            return
        self.lost_marks = False
        old, self._at = self._at, max(0, min(index, count - 1))
        before, self.cursor = self.cursor, self.listing.key_at(self._at)
        rows = max(1, self.size.height - HEADER)
        top = self.scroll_offset.y
        if self._at < top:
            self._scroll(self._at)
        elif self._at >= top + rows:
            self._scroll(self._at - rows + 1)
        for index_ in (old, self._at):
            line = index_ - self.scroll_offset.y + HEADER
            if HEADER <= line < self.size.height:
                self._draw_anew(line, 0, self.size.width)
        if self.cursor != before:
            self.post_message(self.Moved(self, self.cursor))

    def _make_room(self, size: Size) -> None:
        """Have room for all rows; that concerns the scrollbar, and not the layout of the screen."""
        if size == self.virtual_size:
            return
        if self.size:
            self.set_reactive(RecordTable.virtual_size, size)
            self._scroll_update(size)
        else:
            self.virtual_size = size

    def _scroll(self, top: int) -> None:
        self.scroll_to(y=max(0, top), animate=False, force=True, immediate=True)

    def _marks_changed(self) -> None:
        self.lost_marks = False
        self._draw_all_anew()
        self.post_message(self.Marked(self, self.cursor))
