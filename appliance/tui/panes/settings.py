"""The settings: what is in force, and who says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import BindingType

from appliance.tui.columns import Cell, Column
from appliance.tui.offers.installation import SETTING_ACTIONS
from appliance.tui.panes.base import bindings
from appliance.tui.panes.fetched import FetchedPane
from appliance.tui.widgets.details import Section

if TYPE_CHECKING:
    from appliance.ops.explain import Explanation

COLUMNS: tuple[Column[Any], ...] = (
    Column(
        key="name",
        title="Key",
        cell=lambda row, scene: (row.key, "plain" if row.source in {None, "default"} else "strong"),
        sort=lambda row: row.key,
        least=24,
        most=44,
    ),
    Column(
        key="value",
        title="Value",
        cell=lambda row, scene: (row.value or "", "plain" if row.value is not None else "dim"),
        sort=lambda row: row.value or "",
        least=16,
        most=60,
    ),
    Column(
        key="source",
        title="From",
        cell=lambda row, scene: (row.source or "", "dim" if row.source == "default" else "info"),
        sort=lambda row: row.source or "",
        least=9,
        most=28,
    ),
    Column(
        key="doc", title="What for", cell=lambda row, scene: (row.doc or "", "dim"), least=20, most=90, rank=1
    ),
)


class SettingsPane(FetchedPane["Explanation"]):
    """Every setting that is declared or set."""

    name_ = "settings"
    title = "Settings"
    short = "Set"
    help_ = "Every setting, its value in force, and whether the database, the file or the default says so."
    nouns = frozenset({"setting"})
    columns: ClassVar[tuple[Column[Any], ...]] = COLUMNS
    actions = SETTING_ACTIONS
    BINDINGS: ClassVar[list[BindingType]] = bindings(SETTING_ACTIONS)

    async def fetch(self) -> dict[str, Explanation]:
        """All settings."""
        return {one.key: one for one in await self.site.database.explained_settings()}

    def name_of(self, row: Any) -> object:
        """A key."""
        return row.key

    def noun_of(self, row: Any) -> str:
        """Settings all."""
        return "config"

    def sections(self, record: Explanation) -> list[Section]:
        """All there is to say about it."""
        lines: list[tuple[str, Cell]] = [
            ("Value", (record.value or "not set", "plain")),
            ("From", (record.source or "nobody", "info")),
            ("Default", (record.default or "none", "dim")),
            ("", (record.doc or "", "plain")),
        ]
        return [Section("Setting", lines)]
