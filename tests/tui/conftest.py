"""An office to work in; and pictures of the TUI: the same at every place, in every zone, and kept as text."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from tests.support import tui_rows
from tests.support.tui_office import Office
from tests.support.tui_scenes import Scene

FILLS = {fill.__name__: fill for fill in (tui_rows.nothing, tui_rows.company, tui_rows.crowd)}
FILLS |= {fill.__name__: fill for fill in (tui_rows.long_names, tui_rows.ill)}


@pytest.fixture
def office(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Office:
    """An office of one's own."""
    return Office(tmp_path / "here", capsys)


@pytest.fixture
def copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Office:
    """The same office again, where `qa` does what the TUI does in the first."""
    return Office(tmp_path / "there", capsys)


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


@pytest.fixture(scope="module")
def garbage() -> Iterator[Iterator[int]]:
    """Garbage is collected now and then: the thousands of parts of a screen live for as long as it does."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield count(1)
    gc.enable()
    gc.unfreeze()


@pytest.fixture
def garbage_later(garbage: Iterator[int]) -> None:
    """Collect what some tests before this one have left."""
    if next(garbage) % 10 == 0:
        gc.collect()


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The databases by name, each made when it is wanted first."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            database = tmp_path_factory.mktemp(name) / "qvd.db"
            tui_rows.build(database, FILLS[name])
            made[name] = database
        return made[name]

    return of


@pytest.fixture
def installation(scene: Scene, databases: Callable[[str], Path], own_folder: Path) -> None:
    """The installation of a scene, below the current directory."""
    (own_folder / "storage").mkdir()
    shutil.copyfile(databases(scene.fixture), own_folder / "storage" / "qvd.db")
