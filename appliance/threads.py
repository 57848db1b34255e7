"""Work that a cancellation waits for: nothing goes on behind the back of whoever gave up on it.

A thread cannot be cancelled. Were the caller let go first, what it ordered next (erase, launch again)
would meet the thread still at work on the same root or file.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of blocking `work`, done in a thread; a cancellation passes on when the thread has ended."""
    loop = asyncio.get_running_loop()
    return await to_the_end(loop.run_in_executor(None, functools.partial(work, *args, **kwargs)))


async def in_own_thread(work: Callable[[], T]) -> T:
    """As `in_thread`, in a thread that nobody else is given: it may change what is a thread's own."""
    return await to_the_end(asyncio.wrap_future(begun_apart(work)))


def begun_apart(work: Callable[[], T]) -> concurrent.futures.Future[T]:
    """Have `work` done by a thread that does nothing else and ends with it."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    threading.Thread(target=_do, args=(work, future), daemon=True).start()
    return future


async def to_the_end(work: Awaitable[T]) -> T:
    """The result of `work`, finished even if the caller is cancelled; the cancellation follows after."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


def _do(work: Callable[[], T], future: concurrent.futures.Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as exc:
        future.set_exception(exc)
    else:
        future.set_result(result)


class Crew:
    """A few threads for calls that may never return.

    Whoever waits for one looks after its own time limit. A call that hangs costs one of the threads until it
    returns, and holds up neither what goes by other threads nor the end of the process.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._threads = 0
        self._idle = threading.Semaphore(0)
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        """Let a thread do `work`, as soon as one is free; until then it can be cancelled."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._work.put(functools.partial(_do, work, future))
        if not self._idle.acquire(blocking=False) and self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._threads}", daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end when they have done what was submitted."""
        for _ in range(self._threads):
            self._work.put(None)

    def _serve(self) -> None:
        while work := self._work.get():
            work()
            self._idle.release()


async def within(limit_s: float, future: concurrent.futures.Future[T]) -> T:
    """The result of a crew's work; a cancellation waits for it as well, in both cases for `limit_s` at most.

    :raises TimeoutError: it is not there in time; it is not begun any more, or goes on by itself
    """
    here = asyncio.wrap_future(future)
    try:
        await to_the_end(asyncio.wait([here], timeout=limit_s))
        if here.done():
            return here.result()
        raise TimeoutError
    finally:
        if not here.done():
            future.cancel()  # at once; what follows from `here` is told in the loop's next turn
            here.cancel()
        elif not here.cancelled():
            here.exception()
