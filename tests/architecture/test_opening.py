"""A TUI at a real terminal, from first byte to last: desktops before Textual, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import tui_site
from benchmarks.terminals import Terminal, terminal

OTHER_SCREEN, FIRST_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
TEXTUAL = b"\x1b[?1003h"
"""What Textual sends when it takes the terminal."""
PROGRAM = [sys.executable, "-m", "appliance.tui.main", "--config"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tui_site.Site:
    return tui_site.make(tmp_path_factory.mktemp("opening") / "site", 100)


@pytest.fixture
def tui(site: tui_site.Site) -> Iterator[Terminal]:
    with terminal([*PROGRAM, str(site.config)], site.environment) as made:
        yield made


def sent(program: Terminal) -> bytes:
    """All that was sent so far."""
    return b"".join(chunk.data for chunk in program.chunks)


def attributes(program: Terminal) -> list[object]:
    """How the terminal is set."""
    return list(termios.tcgetattr(program._master)[:4])


def ends(program: Terminal) -> None:
    """Wait for the end of the program, without taking its status away."""
    over = time.monotonic() + 20
    while Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < over
        time.sleep(0.01)


def test_desktops_are_there_before_textual_and_stay(tui: Terminal) -> None:
    before = attributes(tui)
    tui.shows_many(tui_site.NAME, 30)
    tui.send(b"j")
    tui.shows(TEXTUAL, after=tui.begun, limit_s=20)
    first = sent(tui).partition(TEXTUAL)[0]
    assert first.startswith(OTHER_SCREEN)
    assert len(set(tui_site.NAME.findall(first))) >= 30
    moved = re.compile(b"\xe2\x96\xb8 (\x1b\\[[0-9;]*m)*desk-00002")
    tui.reaches(lambda data: bool(moved.search(data)), after=tui.begun, limit_s=20, what="the cursor")
    tui.send(b"q")
    ends(tui)
    everything = sent(tui)
    assert everything.count(OTHER_SCREEN) == 1
    assert everything.count(FIRST_SCREEN) == 1
    assert everything.rindex(b"\x1b[?25h") > everything.rindex(b"\x1b[?25l")
    assert attributes(tui) == before


def test_an_interrupt_before_textual_leaves_the_terminal_as_it_was(tui: Terminal) -> None:
    before = attributes(tui)
    tui.shows_many(tui_site.NAME, 30)
    os.kill(tui.pid, signal.SIGINT)
    ends(tui)
    everything = sent(tui)
    assert attributes(tui) == before
    assert b"Traceback" not in everything
    assert everything.rindex(FIRST_SCREEN) > everything.rindex(OTHER_SCREEN)


def test_without_a_database_nothing_is_drawn(tmp_path: Path) -> None:
    site = tui_site.make(tmp_path / "site", 1)
    site.database.unlink()
    with terminal([*PROGRAM, str(site.config)], site.environment) as program:
        ends(program)
        assert OTHER_SCREEN not in sent(program)
        assert b"Error: there is no database" in sent(program)
