"""Pictures of the TUI: the same at every place, in every zone, and kept as text."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode


class TextPicture(SingleFileSnapshotExtension):
    """One picture as a text file."""

    _file_extension = "txt"
    _write_mode = WriteMode.TEXT


@pytest.fixture
def looks(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """What screens look like, one file each."""
    return snapshot.use_extension(TextPicture)


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are told as in Greenwich, whatever the machine thinks."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that knows all colours."""
    for name in ("NO_COLOR", "TEXTUAL_THEME", "TEXTUAL_FILTERS", "TEXTUAL", "QVD_TUI_ASCII"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def own_folder(tmp_path: Path) -> Iterator[Path]:
    """A current directory of one's own."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)
