"""Slow work in turns: nobody waits for the flood of another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from appliance.errors import ProtocolError
from appliance.l7r import turns
from appliance.l7r.turns import Turns


class Work:
    """Work that lasts until it is let go, one piece at a time, and says in which order it was done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = threading.Semaphore(0)

    def piece(self, name: str) -> str:
        assert self.go.acquire(timeout=10)
        self.done.append(name)
        return name


@pytest.fixture
def one_thread() -> Iterator[Turns]:
    made = Turns(1, "test")
    yield made
    made.close()


async def begun(count: int, turns: Turns, work: Work, origin: str) -> list[asyncio.Task[str]]:
    """Work of one origin, asked for in this order."""
    tasks = []
    for number in range(count):
        name = f"{origin}{number}"
        tasks.append(asyncio.create_task(turns.run(origin, lambda name=name: work.piece(name))))  # type: ignore[misc]
        await asyncio.sleep(0)
    return tasks


async def test_origins_take_turns(one_thread: Turns) -> None:
    work = Work()
    tasks = [
        *(await begun(5, one_thread, work, "a")),
        *(await begun(2, one_thread, work, "b")),
        *(await begun(1, one_thread, work, "c")),
    ]
    work.go.release(len(tasks))
    await asyncio.gather(*tasks)
    assert work.done == ["a0", "a1", "b0", "c0", "a2", "b1", "a3", "a4"]


async def test_one_origin_alone_has_all_threads() -> None:
    both = Turns(2, "test")
    work = Work()
    tasks = await begun(2, both, work, "a")
    work.go.release(2)
    assert await asyncio.wait_for(asyncio.gather(*tasks), 10) == ["a0", "a1"]
    both.close()


async def test_failures_and_those_who_give_up_cost_no_turn(one_thread: Turns) -> None:
    work = Work()
    under_way, given_up, kept = await begun(3, one_thread, work, "a")
    (failing,) = [asyncio.create_task(one_thread.run("b", lambda: 1 / 0))]
    await asyncio.sleep(0)
    given_up.cancel()
    work.go.release(2)
    with pytest.raises(ZeroDivisionError):
        await failing
    assert [await under_way, await kept] == ["a0", "a2"]
    assert await one_thread.run("a", lambda: 5) == 5


async def test_what_waits_is_bounded(one_thread: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAITING_MAX", 3)
    work = Work()
    tasks = await begun(4, one_thread, work, "flood")
    with pytest.raises(ProtocolError, match="too many log-ins") as refused:
        await one_thread.run("flood", lambda: None)
    assert refused.value.status == 503
    tasks += await begun(1, one_thread, work, "other")
    work.go.release(len(tasks))
    await asyncio.gather(*tasks)
