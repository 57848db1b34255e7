"""The link to libvirtd: it never waits for long, never blocks the loop, and comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from appliance.runtime.libvirt_link import THREADS, AwayError, Link
from tests.support.libvirtd import Libvirtd

pytestmark = pytest.mark.kvm
LONGEST_S = 30.0


@pytest.fixture
def daemon(virtual_host: tuple[str, Libvirtd]) -> Iterator[Libvirtd]:
    _, daemon = virtual_host
    yield daemon
    daemon.signal(signal.SIGCONT)
    daemon.start()


@pytest.fixture
async def link(daemon: Libvirtd) -> AsyncIterator[Link]:
    link = Link(daemon.uri, limit_s=1, start_limit_s=1)
    await answered(link)
    yield link
    link.close()


async def answered(link: Link) -> None:
    """Ask until there is an answer: a busy machine may take longer than the limit to connect."""
    async with asyncio.timeout(LONGEST_S):
        while True:
            with contextlib.suppress(AwayError):
                await link.version()
                return


async def test_it_tells_versions_and_finds_nothing(link: Link) -> None:
    assert (await link.version()).startswith("libvirt ")
    assert await link.domains() == []
    assert await link.find("nobody") is None
    assert await link.limits("nobody") is None
    await link.destroy("nobody")
    await link.shut_down("nobody")


async def test_where_nobody_listens_is_told_at_once() -> None:
    link = Link("qemu:///system?socket=/nowhere", limit_s=10, start_limit_s=10)
    with pytest.raises(AwayError, match="is not reached"):
        await link.version()
    link.close()


async def test_it_is_back_when_libvirtd_is(link: Link, daemon: Libvirtd) -> None:
    back = asyncio.Event()
    link.back = back.set
    daemon.kill()
    with pytest.raises(AwayError):
        await link.version()
    daemon.start()
    async with asyncio.timeout(LONGEST_S):
        await back.wait()
    await answered(link)


async def test_many_calls_into_a_hung_libvirtd_end_and_the_loop_goes_on(link: Link, daemon: Libvirtd) -> None:
    daemon.signal(signal.SIGSTOP)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    counting = asyncio.ensure_future(count_turns())
    calls = [link.domains() for _ in range(3 * THREADS)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    counting.cancel()
    assert {type(outcome) for outcome in outcomes} == {AwayError}
    assert turns > 5
    daemon.signal(signal.SIGCONT)
    await answered(link)


async def test_a_cancelled_call_is_let_go_in_time(link: Link, daemon: Libvirtd) -> None:
    daemon.signal(signal.SIGSTOP)
    call = asyncio.ensure_future(link.domains())
    await asyncio.sleep(0)
    begun = time.monotonic()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert time.monotonic() - begun < LONGEST_S
