"""The terminals in which other tests sit: what is typed arrives, what is drawn is read, nothing is left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tmux import Tmux, runs, tmux

pytestmark = pytest.mark.host


@pytest.fixture
def terminals() -> Iterator[Tmux]:
    with tmux() as made:
        yield made


def test_a_shell_answers_and_leaves_its_status(terminals: Tmux) -> None:
    pane = terminals.open("sh", columns=100, rows=30)
    pane.enter("echo $((40+2)) is it; tput cols; tput lines")
    shown = pane.until("42 is it")
    assert pane.size == (100, 30)
    assert "100\n30\n" in pane.until("100\n30\n")
    assert len(pane.lines()) == 31, "each line ends, also the last"
    assert "exit" not in shown
    assert pane.status is None
    pane.enter("exit 7")
    assert pane.ended() == 7
    assert "42 is it" in pane.screen()


def test_a_signal_is_an_exit_status(terminals: Tmux) -> None:
    assert terminals.open("sh", "-c", "kill -9 $$").ended() == 137


def test_keys_have_names_and_a_text_is_no_key(terminals: Tmux) -> None:
    pane = terminals.open("sh", "-c", "stty raw -echo; echo ready; exec od -An -c -v -w1")
    pane.until("ready")
    pane.press("C-]", "Escape")
    pane.type("Enter")
    pane.press("Enter")
    words = pane.until("\\r").split()
    assert words == ["ready", "035", "033", "E", "n", "t", "e", "r", "\\r"]


def test_colours_are_told_when_asked_for(terminals: Tmux) -> None:
    pane = terminals.open("sh", "-c", r"printf '\033[38;2;1;2;3mdeep\033[m'; sleep 60")
    pane.until("deep")
    assert "\x1b" not in pane.screen()
    assert "\x1b[38;2;1;2;3mdeep" in pane.screen(colours=True)


def test_another_size_reaches_the_program(terminals: Tmux) -> None:
    pane = terminals.open(
        "bash", "--norc", "-c", "trap 'tput lines' WINCH; echo on; while sleep 0.1; do :; done"
    )
    pane.until("on")
    pane.resize(90, 17)
    pane.until("17")


def test_what_does_not_come_is_told_with_what_is_there(terminals: Tmux) -> None:
    pane = terminals.open("sh", "-c", "echo this; sleep 60")
    pane.until("this")
    with pytest.raises(AssertionError, match=r"'that' is not there after 0\.2 s, but:\nthis"):
        pane.until("that", limit_s=0.2)


def test_nothing_more_comes_of_what_has_ended(terminals: Tmux) -> None:
    with pytest.raises(AssertionError, match="'that' does not come: it ended with status 3:\nthis"):
        terminals.open("sh", "-c", "echo this; sleep 0.2; exit 3").until("that")


def test_a_closed_terminal_ends_its_program(terminals: Tmux) -> None:
    pane = terminals.open("sh", "-c", "echo on; exec sleep 60")
    pane.until("on")
    pid = pane.pid
    assert runs(pid)
    pane.close()
    assert not runs(pid)
    stubborn = terminals.open("sh", "-c", "trap '' HUP; echo on; exec sleep 60")
    stubborn.until("on")
    pid = stubborn.pid
    with pytest.raises(AssertionError, match="goes on without its terminal"):
        stubborn.close(limit_s=0.5)
    os.kill(pid, 9)


def test_nothing_is_left() -> None:
    with tmux() as made:
        pid = made.open("sleep", "60").pid
        folder = Path(made.environment["TMUX_TMPDIR"])
        assert runs(pid)
    assert not folder.exists()
    over = time.monotonic() + 5
    while runs(pid) and time.monotonic() < over:
        time.sleep(0.05)
    assert not runs(pid)
