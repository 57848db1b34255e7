"""A cancelled effect has ended when its cancellation is over."""

from __future__ import annotations

import asyncio
import threading
from typing import NoReturn

import pytest

from appliance.threads import in_thread, to_the_end


async def test_a_cancellation_waits_for_the_thread() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(10)
        ended.set()

    task = asyncio.ensure_future(in_thread(work))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_result_and_failure_come_through() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


async def test_a_failure_after_the_cancellation_is_not_reported_as_lost() -> None:
    go_on = asyncio.Event()

    async def work() -> NoReturn:
        await go_on.wait()
        raise ValueError("too late")

    task = asyncio.ensure_future(to_the_end(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
