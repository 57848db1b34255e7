"""Work that a cancellation waits for: nothing goes on behind the back of whoever gave up on it.

A thread cannot be cancelled. Were the caller let go first, what it ordered next (erase, launch again)
would meet the thread still at work on the same root or file.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of blocking `work`, done in a thread; a cancellation passes on when the thread has ended."""
    loop = asyncio.get_running_loop()
    return await to_the_end(loop.run_in_executor(None, functools.partial(work, *args, **kwargs)))


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
