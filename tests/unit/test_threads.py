"""A cancelled effect has ended when its cancellation is over."""

from __future__ import annotations

import asyncio
import threading
from typing import NoReturn

import pytest

from appliance.threads import Crew, in_thread, to_the_end, within


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


async def test_a_crew_does_more_than_it_has_threads_for() -> None:
    crew = Crew("test", 2)
    results = [await within(10, future) for future in [crew.submit(lambda n=n: n * n) for n in range(9)]]  # type: ignore[misc]
    assert results == [n * n for n in range(9)]
    with pytest.raises(ZeroDivisionError):
        await within(10, crew.submit(lambda: 1 // 0))
    crew.close()


async def test_who_waits_for_a_crew_is_let_go_in_time_and_what_was_not_begun_is_not_done() -> None:
    crew, may_end, done = Crew("test", 1), threading.Event(), threading.Event()
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        may_end.wait(10)

    with pytest.raises(TimeoutError):
        await within(0.05, crew.submit(hang))
    assert begun.is_set()
    with pytest.raises(TimeoutError):
        await within(0.05, crew.submit(done.set))
    may_end.set()
    await within(10, crew.submit(lambda: None))
    assert not done.is_set()
    crew.close()


async def test_a_cancellation_waits_for_a_crew_and_not_for_ever() -> None:
    crew, may_end = Crew("test", 1), threading.Event()
    task = asyncio.ensure_future(within(0.05, crew.submit(lambda: may_end.wait(10))))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_end.set()
    crew.close()
