"""Slow work in turns: a few threads, and whoever asks for much does not keep the others waiting.

Everybody who asks belongs to an origin (an address). Origins take turns, the work of one origin goes in the
order asked: a flood from one address costs the next address the wait for work under way, no more. Nobody
else's turn is lost while only one asks. What waits is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from appliance.errors import ProtocolError

T = TypeVar("T")

WAITING_MAX = 250
"""How much of one origin may wait; at 50 ms each, its last waits for 12 s."""


class Turns:
    """Threads that serve origins in turn."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = threads
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def run(self, origin: str, work: Callable[[], T]) -> T:
        """The result of `work`, done in a thread when it is the turn of `origin`.

        :raises ProtocolError: 503, too much of `origin` waits already
        """
        await self._turn(origin)
        try:
            under_way = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except BaseException:
            self._pass_on()
            raise
        under_way.add_done_callback(lambda _: self._pass_on())
        return await under_way

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self, origin: str) -> None:
        if self._free:
            self._free -= 1
            return
        queue = self._waiting.setdefault(origin, deque())
        if len(queue) >= WAITING_MAX:
            raise ProtocolError(503, "too many log-ins from this address at once")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give the free thread to the origin whose turn it is; the origin then goes to the end."""
        while self._waiting:
            origin = next(iter(self._waiting))
            queue = self._waiting.pop(origin)
            turn = queue.popleft()
            if queue:
                self._waiting[origin] = queue
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
