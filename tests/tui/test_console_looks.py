"""The looks of the consoles: what a guest has drawn, and the lines around it, at three sizes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from appliance.clock import ManualClock
from appliance.tui.console.keyboard import GuestKeyboard
from appliance.tui.console.link import Company, Standing
from appliance.tui.console.pane import ConsolesPane
from appliance.tui.console.terminal import Terminal

SIZES = ((80, 24), (120, 40), (200, 60))
AT = datetime(2026, 11, 28, 10, 42, 7, tzinfo=UTC)
BOB = "bob on pts/2 (pid 4711)"


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are shown in the zone of whoever looks."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Compares(Protocol):
    """The fixture `snap_compare`."""

    def __call__(
        self,
        app: App[None],
        *,
        terminal_size: tuple[int, int],
        run_before: Callable[[Pilot[None]], Awaitable[None]],
    ) -> bool: ...


class StillCalendar(ManualClock):
    """The day does not change, and nothing that sleeps wakes, but time goes on."""

    def monotonic(self) -> float:
        return time.monotonic()


class Looks(GuestKeyboard):
    """Consoles without a daemon: what comes over their links is made up."""

    def __init__(self, *, ascii_only: bool = False, read_only: bool = False) -> None:
        super().__init__()
        self._ascii_only = ascii_only
        self._read_only = read_only

    def compose(self) -> ComposeResult:
        yield ConsolesPane(
            Path("/nonexistent/control"),
            "tester",
            self._read_only,
            clock=StillCalendar(AT),
            ascii_only=self._ascii_only,
        )

    @property
    def pane(self) -> ConsolesPane:
        return self.query_one(ConsolesPane)


def says(terminal: Terminal, output: bytes, company: Company) -> None:
    """What the hub would send to a terminal that has just attached."""
    terminal.attached()
    terminal.stands(Standing.OPEN, "")
    terminal.shown(output, history=True)
    terminal.joined(company)


SHELL = (
    b"Debian GNU/Linux 12 alice-desktop tty1\r\n\r\nalice-desktop login: alice\r\n"
    b"\x1b[01;32malice@desktop\x1b[m:\x1b[01;34m~\x1b[m$ ls --color\r\n"
    b"\x1b[34mDocuments\x1b[m  \x1b[32mrun.sh\x1b[m  \x1b[1;31marchive.tgz\x1b[m  \x1b[2mdim\x1b[m"
    b" \x1b[3mitalic\x1b[m \x1b[4munderlined\x1b[m \x1b[9mstruck\x1b[m \x1b[7mreversed\x1b[m\r\n"
    + b"".join(b"\x1b[48;5;%dm  " % number for number in range(16, 52))
    + b"\x1b[m\r\n"
    + b"".join(b"\x1b[48;2;%d;%d;200m " % (number * 3, 255 - number * 3) for number in range(72))
    + "\x1b[m\r\n日本語 한국어 e\u0301\r\n".encode()
    + b"\x1b(0lqqqqqqqk\r\nx\x1b(B a box \x1b(0x\r\nmqqqqqqqj\x1b(B\r\n"
    + b"\x1b[01;32malice@desktop\x1b[m:\x1b[01;34m~\x1b[m$ "
)


async def opened(pilot: Pilot[None], *, me: bool = True) -> Terminal:
    """Three consoles, of which the last is in view."""
    app = pilot.app
    assert isinstance(app, Looks)
    app.pane.open(8, "carol-desktop")
    app.pane.open(9, "名前の長いデスクトップ-0001-abcdefgh")
    app.pane.open(7, "alice-desktop")
    await pilot.pause(0.1)
    carol, long_name, alice = app.pane.terminals
    says(long_name, b"waits", Company(waiting_for="the line is being opened"))
    says(alice, SHELL, Company(writer="me" if me else BOB, you_write=me, others=(BOB,)))
    carol.stands(Standing.NOT_RUNNING, "the VM has stopped")
    await pilot.pause(0.2)
    return alice


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_typing(snap_compare: Compares, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await opened(pilot)

    assert snap_compare(Looks(), terminal_size=size, run_before=look)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_watching_and_searching(snap_compare: Compares, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await opened(pilot, me=False)
        await pilot.press("ctrl+right_square_bracket", "slash", *"alice", "enter")
        await pilot.pause(0.2)

    assert snap_compare(Looks(), terminal_size=size, run_before=look)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_daemon_is_down(snap_compare: Compares, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        alice = await opened(pilot)
        alice.stands(Standing.DAEMON_DOWN, "the daemon stops")
        await pilot.press("ctrl+right_square_bracket")
        await pilot.pause(0.2)

    assert snap_compare(Looks(), terminal_size=size, run_before=look)


def test_nothing_is_open(snap_compare: Compares) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await pilot.pause()

    assert snap_compare(Looks(), terminal_size=(80, 24), run_before=look)


def test_without_colours_and_signs(snap_compare: Compares, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def look(pilot: Pilot[None]) -> None:
        await opened(pilot, me=False)
        await pilot.press("ctrl+right_square_bracket")
        await pilot.pause(0.2)

    assert snap_compare(Looks(ascii_only=True, read_only=True), terminal_size=(80, 24), run_before=look)
