"""What an administrator has arranged for themselves, kept in a file of theirs: theme, columns, saved views.

The file is a convenience: one that cannot be read or written is done without, and said to be. Several TUIs
share it, so what another has written meanwhile is kept at each change; so is a file that is damaged, aside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
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
    """The file, read first and at each change; `problem` says what is wrong with it, if anything is."""

    def __init__(self, file: Path | None, values: dict[str, Any]) -> None:
        self._file = file
        self._values = values
        self._is_damaged = False
        self.problem: str | None = None

    @classmethod
    def read(cls, file: Path | None) -> Self:
        """What is in a file; nothing, if it cannot be read or is damaged."""
        remembered = cls(file, {})
        remembered._read()
        return remembered

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
        self._read()
        self._values[name] = value
        return self._write()

    def set_columns(self, pane: str, keys: tuple[str, ...]) -> str | None:
        """Keep the columns of a pane; none: the usual ones again."""
        self._read()
        chosen = self._values.get("columns")
        columns = dict(chosen) if isinstance(chosen, dict) else {}
        columns[pane] = list(keys)
        self._values["columns"] = columns
        return self._write()

    def save_view(self, view: SavedView) -> str | None:
        """Keep a view, in place of one of the same name."""
        self._read()
        kept = [
            one for one in self._all_views() if (one.get("pane"), one.get("name")) != (view.pane, view.name)
        ]
        shown = {name: getattr(view, name) for name in SavedView.__dataclass_fields__}
        self._values["views"] = [*kept, {**shown, "columns": list(view.columns)}]
        return self._write()

    def drop_view(self, pane: str, name: str) -> str | None:
        """Forget a view."""
        self._read()
        kept = [one for one in self._all_views() if (one.get("pane"), one.get("name")) != (pane, name)]
        self._values["views"] = kept
        return self._write()

    def _all_views(self) -> list[dict[str, Any]]:
        saved = self._values.get("views")
        return [one for one in saved if isinstance(one, dict)] if isinstance(saved, list) else []

    def _read(self) -> None:
        """Take in what is there now; what cannot be read changes nothing."""
        self.problem, self._is_damaged = None, False
        if self._file is None:
            return
        try:
            if not self._file.exists():
                return
            if self._file.stat().st_size > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES} bytes")
            values = json.loads(self._file.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it is no object of JSON")
            self._values = values
        except OSError as exc:
            self.problem = f"{self._file} cannot be read: {exc.strerror}"
        except (ValueError, RecursionError) as exc:
            self._is_damaged = True
            self.problem = f"{self._file} is damaged, and is put aside when something is kept: {exc}"

    def _write(self) -> str | None:
        if self._file is None:
            return None
        if self.problem is not None and not self._is_damaged:
            return self.problem
        try:
            text = json.dumps(self._values, indent=2, ensure_ascii=False).encode() + b"\n"
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._is_damaged:
                self._file.replace(self._file.with_name(f"{self._file.name}.bad"))
            self._replace(text)
        except OSError as exc:
            return f"{self._file} cannot be written: {exc.strerror}"
        except ValueError as exc:
            return f"{self._file} cannot be written: {exc}"
        return None

    def _replace(self, text: bytes) -> None:
        import tempfile  # takes as long as the whole first picture may

        assert self._file is not None
        descriptor, draft = tempfile.mkstemp(prefix=f".{self._file.name}.", dir=self._file.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(text)
            Path(draft).replace(self._file)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise


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
