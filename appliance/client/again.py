"""After a session: whether its desktop comes back by itself, and then the same client with it.

A VM that is restarted for a new image ends the session; the server's list says that it `returns`. A
desktop that was stopped for good, or whose user logged out, does not, and the client ends. A desktop
that somebody has meanwhile taken (`in_use`) is left to them: two clients never fight for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto

from appliance.client.wire import Desktop
from appliance.clock import Timers

RELEASE_S = 10.0
"""How long the server may take to note that our own session is over; then it is another's."""
LOOK_S = 1.0
ANSWER_S = 15.0
"""How long one question for the list may take."""


class Then(Enum):
    """What to do after a session."""

    END = auto()
    WAIT = auto()
    CONNECT = auto()


def then(desktop: Desktop | None, *, returned: bool) -> Then:
    """What follows from the desktop's line in the list; `returned` if it was on its way back before."""
    if desktop is None or desktop.blocked:
        return Then.END
    if not (desktop.returns or (returned and desktop.state == "running")):
        return Then.END
    return Then.WAIT if desktop.in_use else Then.CONNECT


async def coming_back(look: Callable[[], Awaitable[Desktop | None]], timers: Timers) -> Desktop | None:
    """The desktop to connect to again; None if the session was the last."""
    until = timers.monotonic() + RELEASE_S
    returned = False
    while True:
        desktop = await _answer(look)
        match then(desktop, returned=returned):
            case Then.CONNECT:
                return desktop
            case Then.WAIT if timers.monotonic() < until:
                returned = True
                await timers.sleep(LOOK_S)
            case _:
                return None


async def _answer(look: Callable[[], Awaitable[Desktop | None]]) -> Desktop | None:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await look()
    except TimeoutError:
        return None
