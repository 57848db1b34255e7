"""What the TUI is measured against: a plain DataTable that is told of changes, and an app that does nothing.

Run as `python -m benchmarks.tui_peers table PLAN` or `… idle` in a terminal. The table reads the same
columns of the same rows from the same database, and is told of the same changes without asking anybody.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from textual.app import App, ComposeResult
from textual.widgets import DataTable, Static


class Table(App[None]):
    """Rows in a DataTable, as its manual would have it."""

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__()
        self._plan = plan
        self._next = 0
        self._begun = 0.0

    def compose(self) -> ComposeResult:
        yield DataTable(cursor_type="row")

    def on_mount(self) -> None:
        """Read the rows; changes come at their times."""
        table: DataTable[str] = self.query_one(DataTable)
        for key, title, _ in self._plan["columns"]:
            table.add_column(title, key=key)
        places = [place for _, _, place in self._plan["columns"]]
        with sqlite3.connect(f"file:{self._plan['database']}?mode=ro", uri=True) as database:
            for row in database.execute(self._plan["sql"]):
                table.add_row(*[str(row[place] or "") for place in places], key=str(row[0]))
        self._begun = time.monotonic()
        self.set_timer(0.01, self._tell)

    def _tell(self) -> None:
        table = self.query_one(DataTable)
        changes, now = self._plan["changes"], time.monotonic() - self._begun
        while self._next < len(changes) and changes[self._next][0] <= now:
            _, row, cells = changes[self._next]
            for column, text in cells:
                table.update_cell(row, column, text)
            self._next += 1
        if self._next < len(changes):
            self.set_timer(max(0.001, changes[self._next][0] - (time.monotonic() - self._begun)), self._tell)


class Idle(App[None]):
    """One number, which a key makes greater."""

    BINDINGS = [("j", "count", "Count")]  # noqa: RUF012 - as in Textual's manual
    number = 0

    def compose(self) -> ComposeResult:
        yield Static("ready 0", id="number")

    def action_count(self) -> None:
        self.number += 1
        self.query_one("#number", Static).update(f"counted {self.number:06}")


if __name__ == "__main__":
    if sys.argv[1] == "table":
        Table(json.loads(Path(sys.argv[2]).read_text())).run()
    else:
        Idle().run()
