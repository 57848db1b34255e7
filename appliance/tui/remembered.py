"""What an administrator has arranged for themselves, kept in a file of theirs: theme, columns, saved views.

The file is a convenience: one that cannot be read or written is done without, and said to be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedView:
    """One way to look at a pane's table."""

    pane: str
    name: str
    filter: str = ""
    sort: str | None = None
    reverse: bool = False
    columns: tuple[str, ...] = ()


def usual_file(environment: Mapping[str, str]) -> Path:
    """Where it is kept: below `$XDG_CONFIG_HOME`, else `~/.config`."""
    base = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME") or "/root") / ".config")
    return Path(base) / "qvd-tui.json"


class Remembered:
    """The file, read once and written at each change."""

    def __init__(self, file: Path | None, values: dict[str, Any]) -> None:
        self._file = file
        self._values = values

    @classmethod
    def read(cls, file: Path | None) -> Self:
        """What is in a file; nothing, if it cannot be read or is damaged."""
        values: Any = {}
        if file is not None:
            with suppress(OSError, ValueError, RecursionError):
                if file.stat().st_size <= MOST_BYTES:
                    values = json.loads(file.read_text(encoding="utf-8"))
        return cls(file, values if isinstance(values, dict) else {})

    def text(self, name: str) -> str | None:
        """One value, if it is there and a text."""
        value = self._values.get(name)
        return value if isinstance(value, str) else None

    def columns(self, pane: str) -> tuple[str, ...]:
        """The columns chosen for a pane; none: the usual ones."""
        chosen = self._values.get("columns")
        keys = chosen.get(pane) if isinstance(chosen, dict) else None
        return tuple(key for key in keys if isinstance(key, str)) if isinstance(keys, list) else ()

    def views(self, pane: str) -> list[SavedView]:
        """The views saved for a pane."""
        found = [_view(one) for one in self._all_views()]
        return [view for view in found if view is not None and view.pane == pane]

    def set_text(self, name: str, value: str) -> str | None:
        """Keep one value; why it could not be written, if so."""
        self._values[name] = value
        return self._write()

    def set_columns(self, pane: str, keys: tuple[str, ...]) -> str | None:
        """Keep the columns of a pane; none: the usual ones again."""
        chosen = self._values.get("columns")
        columns = dict(chosen) if isinstance(chosen, dict) else {}
        columns[pane] = list(keys)
        self._values["columns"] = columns
        return self._write()

    def save_view(self, view: SavedView) -> str | None:
        """Keep a view, in place of one of the same name."""
        kept = [
            one for one in self._all_views() if (one.get("pane"), one.get("name")) != (view.pane, view.name)
        ]
        shown = {name: getattr(view, name) for name in SavedView.__dataclass_fields__}
        self._values["views"] = [*kept, {**shown, "columns": list(view.columns)}]
        return self._write()

    def drop_view(self, pane: str, name: str) -> str | None:
        """Forget a view."""
        kept = [one for one in self._all_views() if (one.get("pane"), one.get("name")) != (pane, name)]
        self._values["views"] = kept
        return self._write()

    def _all_views(self) -> list[dict[str, Any]]:
        saved = self._values.get("views")
        return [one for one in saved if isinstance(one, dict)] if isinstance(saved, list) else []

    def _write(self) -> str | None:
        if self._file is None:
            return None
        draft = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(json.dumps(self._values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            draft.replace(self._file)
        except OSError as exc:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            return f"{self._file} cannot be written: {exc.strerror}"
        return None


def _view(saved: Mapping[str, Any]) -> SavedView | None:
    """A view, if the file holds one: people edit files, and versions differ."""
    texts = {name: saved.get(name, "") for name in ("pane", "name", "filter")}
    columns, sort = saved.get("columns", []), saved.get("sort")
    if not all(isinstance(text, str) for text in texts.values()) or not (texts["pane"] and texts["name"]):
        return None
    if not isinstance(columns, list) or not all(isinstance(key, str) for key in columns):
        return None
    if not isinstance(sort, str | None):
        return None
    return SavedView(**texts, sort=sort, reverse=saved.get("reverse") is True, columns=tuple(columns))
