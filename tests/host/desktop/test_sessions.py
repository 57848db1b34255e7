"""One desktop, one client at a time: suspend, resume and takeover (protocol.md 1.9, 4.5)."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.desktop import Desk, Screen
from tests.support.witness import FREE, LISTENING, Ownership, states, witness

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

TAKEOVERS = 5


def wait_until_free(desk: Desk, ownership: Ownership) -> None:
    """Nobody has the desktop, and its nxagent is suspended: it serves nobody and listens to nobody."""
    desk.trial.wait_for("a free desktop", lambda: ownership.owners()[-1] == FREE)
    init = desk.init()
    desk.trial.wait_for("a suspended desktop", lambda: states(init) == [])


def survivor(desk: Desk, rivals: list[Screen]) -> Screen:
    """The one client that keeps the desktop when the others have ended by themselves."""
    desk.trial.wait_for(
        "one client left", lambda: sum(rival.client.poll() is None for rival in rivals) == 1, limit_s=60
    )
    (left,) = (rival for rival in rivals if rival.client.poll() is None)
    return left


def test_a_suspended_desktop_is_resumed(desk: Desk) -> None:
    with witness(desk) as (ownership, port):
        screen = desk.open_and_see()
        screen.remember("suspension")
        before = desk.programs()
        for ending in ("left", "killed", "disconnected"):
            match ending:
                case "left":
                    screen.leave()
                case "killed":
                    screen.client.kill()
                case "disconnected":
                    desk.trial.qa("vm", "disconnect_user", "--force", "-f", f"name={desk.vm}")
                    screen.ends_by_itself()
            wait_until_free(desk, ownership)
            assert desk.programs() == before, ending
            screen = desk.open_and_see()
        screen.recalls("suspension")
        assert desk.programs() == before
        assert ownership.sessions() == 4
        assert port.attempts() == 4


def test_the_newer_client_takes_the_desktop_over(desk: Desk) -> None:
    with witness(desk) as (ownership, port):
        holder = desk.open_and_see()
        holder.remember("heirloom")
        before = desk.programs()
        for _ in range(TAKEOVERS):
            newcomer = desk.open()
            assert holder.ends_by_itself() == 0
            newcomer.appears(desk.vm)
            holder.leave()
            holder = newcomer
        holder.recalls("heirloom")
        assert desk.programs() == before
        assert ownership.sessions() == TAKEOVERS + 1
        assert port.attempts() == TAKEOVERS + 1


def test_a_client_that_hangs_is_taken_over(desk: Desk) -> None:
    with witness(desk) as (ownership, port):
        hung = desk.open_and_see()
        hung.remember("icicle")
        os.killpg(hung.client.pid, signal.SIGSTOP)
        try:
            newcomer = desk.open_and_see()
            newcomer.recalls("icicle")
            assert LISTENING not in states(desk.init())
        finally:
            os.killpg(hung.client.pid, signal.SIGCONT)
        hung.ends_by_itself()
        assert newcomer.client.poll() is None
        assert ownership.sessions() == 2
        assert port.attempts() == 2


def test_of_two_clients_at_once_one_gets_the_desktop(desk: Desk) -> None:
    with witness(desk) as (ownership, port):
        holder = survivor(desk, [desk.open(), desk.open()])
        holder.appears(desk.vm)
        holder.remember("umpire")
        (init,) = desk.inits()
        before = desk.programs()
        for _ in range(2):
            holder = survivor(desk, [holder, desk.open(), desk.open()])
            holder.appears(desk.vm)
        holder.recalls("umpire")
        assert desk.inits() == [init]
        assert desk.programs() == before
        assert ownership.owners()[-1].state == "connected"
        assert port.attempts() >= ownership.sessions() >= 3
