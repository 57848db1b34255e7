"""Whether a client comes back with its desktop, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from appliance.client.again import LOOK_S, RELEASE_S, Then, coming_back, then
from appliance.client.wire import Desktop
from appliance.clock import ManualClock
from appliance.model import VmId


def desktop(state: str, *, returns: bool = False, in_use: bool = False, blocked: bool = False) -> Desktop:
    return Desktop(VmId(7), "vm7", state, blocked, returns, in_use)


@pytest.mark.parametrize(
    ("seen", "returned", "what"),
    [
        (None, False, Then.END),
        (desktop("running"), False, Then.END),
        (desktop("stopping"), False, Then.END),
        (desktop("stopped"), True, Then.END),
        (desktop("stopping", returns=True, blocked=True), False, Then.END),
        (desktop("stopping", returns=True), False, Then.CONNECT),
        (desktop("starting", returns=True), False, Then.CONNECT),
        (desktop("stopping", returns=True, in_use=True), False, Then.WAIT),
        (desktop("running", in_use=True), False, Then.END),
        (desktop("running"), True, Then.CONNECT),
        (desktop("running", in_use=True), True, Then.WAIT),
    ],
)
def test_what_follows(seen: Desktop | None, returned: bool, what: Then) -> None:
    assert then(seen, returned=returned) is what


class Server:
    """Answers with one line after the other, the last one for ever."""

    def __init__(self, *lines: Desktop | None) -> None:
        self.lines = list(lines)
        self.asked = 0

    async def look(self) -> Desktop | None:
        self.asked += 1
        return self.lines.pop(0) if len(self.lines) > 1 else self.lines[0]


async def outcome(look: Callable[[], Awaitable[Desktop | None]]) -> Desktop | None:
    clock = ManualClock(datetime(2030, 1, 1, tzinfo=UTC))
    task = asyncio.ensure_future(coming_back(look, clock))
    for _ in range(int(RELEASE_S / LOOK_S) + 2):
        await clock.advance(LOOK_S)
    assert task.done()
    return task.result()


async def test_it_waits_until_its_own_session_is_noted_as_over() -> None:
    held, free = desktop("stopping", returns=True, in_use=True), desktop("starting", returns=True)
    server = Server(held, held, free)
    assert await outcome(server.look) == free
    assert server.asked == 3


async def test_it_connects_to_a_desktop_that_was_back_before_the_next_look() -> None:
    server = Server(desktop("stopping", returns=True, in_use=True), desktop("running"))
    assert await outcome(server.look) == desktop("running")


async def test_it_leaves_the_desktop_to_a_newer_client() -> None:
    server = Server(desktop("starting", returns=True, in_use=True))
    assert await outcome(server.look) is None
    assert server.asked == RELEASE_S / LOOK_S + 1


async def test_it_ends_at_once_when_the_desktop_was_stopped_for_good() -> None:
    server = Server(desktop("stopping"))
    assert await outcome(server.look) is None
    assert server.asked == 1
