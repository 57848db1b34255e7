"""A desktop is seen and used on the client's display."""

from __future__ import annotations

import time

import pytest

from tests.support.desktop import Desk

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


def test_a_desktop_is_seen_and_typed_at(desk: Desk) -> None:
    screen = desk.open_and_see()
    screen.run("echo marmalade | tr a-z A-Z", "MARMALADE")
    (init,) = desk.inits()
    assert init.pid > 1


def test_a_user_who_leaves_is_gone_at_once(desk: Desk) -> None:
    """Left to itself, an nxproxy that is told to end waits for its peer, which is our client."""
    screen = desk.open_and_see()
    begun = time.monotonic()
    screen.leave()
    assert time.monotonic() - begun < 10
