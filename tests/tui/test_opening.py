"""The first picture, where it is broken off: the terminal is given back as it was."""

from __future__ import annotations

import os
import pty
import select
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from appliance.errors import StoreError
from appliance.storage.live import LiveReader
from appliance.tui import opening
from appliance.tui.columns import Scene
from appliance.tui.glyphs import FULL
from appliance.tui.opening import LEAVE_SCREEN, OTHER_SCREEN, Opening
from appliance.tui.remembered import Remembered
from tests.support.tui_office import Office

NOBODY = 65534


class Terminal:
    """A terminal at which the process sits."""

    def __init__(self, master: int, slave: int) -> None:
        self.master, self.slave = master, slave
        self.before = termios.tcgetattr(slave)

    def read(self) -> str:
        """What has come until now."""
        found = b""
        while select.select([self.master], [], [], 0)[0]:
            found += os.read(self.master, 65536)
        return found.decode(errors="replace")

    @property
    def is_as_before(self) -> bool:
        """Whether its modes are those that it had."""
        return termios.tcgetattr(self.slave) == self.before


@contextmanager
def at_a_terminal() -> Iterator[Terminal]:
    """Sit at a terminal that lacks some letters."""
    master, slave = pty.openpty()
    stdin, stdout = os.dup(0), sys.stdout
    os.dup2(slave, 0)
    try:
        with os.fdopen(os.dup(slave), "w", encoding="latin-1") as sys.stdout:
            yield Terminal(master, slave)
    finally:
        sys.stdout = stdout
        os.dup2(stdin, 0)
        for descriptor in (stdin, slave, master):
            os.close(descriptor)


@pytest.fixture
def open_(office: Office) -> Callable[[], Opening]:
    nothing, now = Remembered.read(None), datetime(2026, 1, 2, tzinfo=UTC)
    return lambda: Opening(office.database, nothing, Scene(now, FULL), node="büro→1", read_only=False)


def test_what_the_terminal_has_no_letters_for_does_no_harm(open_: Callable[[], Opening]) -> None:
    with at_a_terminal() as terminal:
        with open_():
            assert not terminal.is_as_before
            assert OTHER_SCREEN in terminal.read()
        assert terminal.is_as_before


def test_a_picture_that_is_interrupted_gives_the_terminal_back(
    open_: Callable[[], Opening], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = opening._write

    def interrupted(text: str) -> None:
        write(text)
        if OTHER_SCREEN in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(opening, "_write", interrupted)
    with at_a_terminal() as terminal:
        with pytest.raises(KeyboardInterrupt), open_():
            raise AssertionError("it has been opened")
        assert terminal.is_as_before
        assert terminal.read().endswith(LEAVE_SCREEN)


def test_an_end_while_textual_is_on_its_way_does_so_too(open_: Callable[[], Opening]) -> None:
    with at_a_terminal() as terminal:
        with pytest.raises(KeyboardInterrupt), open_():
            raise KeyboardInterrupt
        assert terminal.is_as_before
        assert terminal.read().endswith(LEAVE_SCREEN)


def test_a_database_that_may_not_be_read_is_told(office: Office) -> None:
    database = office.database
    database.parent.chmod(0o700)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(StoreError, match=r"cannot be read: Permission denied .*run it as root"):
            LiveReader(database)
    finally:
        os.seteuid(0)
