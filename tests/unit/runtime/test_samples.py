"""Samples for those who watch: rates, who is measured when, and what goes over a real control socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from appliance.clock import ManualClock
from appliance.control import ControlServer, Stream, open_stream
from appliance.control_frames import MAX_PAYLOAD, FrameKind, encode
from appliance.errors import BackendError, DaemonDownError, DaemonSilentError, UsageError
from appliance.model import Usage, VmId
from appliance.qa.samples import Round, samples
from appliance.runtime.host_usage import HostUsage
from appliance.runtime.samples import (
    EVERY_S,
    REST,
    SLICE_S,
    Counted,
    GuestUsage,
    Look,
    Samples,
    Watcher,
    counted,
    frames,
    watcher_of,
)

HOST = HostUsage(
    cpu_s=0.0,
    cores=2,
    memory_bytes=1,
    memory_total_bytes=2,
    load=0.5,
    pool_bytes=3,
    pool_total_bytes=None,
)
ALL = Watcher(None, EVERY_S)


def look_at(guests: dict[VmId, GuestUsage]) -> Look:
    return Look(at=0, took_s=0, wanted=None, host=HOST, host_counted=Counted(0, 0, 1.5), guests=guests)


class TestRates:
    def test_the_first_look_has_none(self) -> None:
        assert counted(None, 7.0, 100.0) == Counted(7.0, 100.0, None)

    def test_a_rate_is_in_cores(self) -> None:
        assert counted(Counted(7.0, 100.0, None), 10.0, 102.0).cores == 1.5

    def test_a_counter_that_fell_is_another_runs(self) -> None:
        assert counted(Counted(7.0, 100.0, 1.0), 0.5, 102.0) == Counted(0.5, 102.0, None)

    def test_two_looks_in_a_row_are_one(self) -> None:
        before = Counted(7.0, 100.0, 0.3)
        assert counted(before, 7.1, 100.01) is before


class TestFrames:
    def test_a_crowd_is_cut_into_frames_that_fit(self) -> None:
        largest = GuestUsage(Counted(0.0, 0.0, 12345.678901234), 2**60)
        guests = {VmId(2**60 + number): largest for number in range(2_500)}
        told = list(frames(look_at(guests), ALL))
        assert [frame["more"] for frame in told] == [True, True, False]
        assert max(len(encode(FrameKind.EVENT, frame)) for frame in told) <= MAX_PAYLOAD
        parts = [frame["vms"] for frame in told]
        assert all(isinstance(part, dict) for part in parts)
        assert sum(len(part) for part in parts if isinstance(part, dict)) == 2_500

    @pytest.mark.parametrize(("number", "expected"), [(0, 1), (1000, 1), (1001, 2)])
    def test_the_last_frame_is_never_one_too_many(self, number: int, expected: int) -> None:
        one = GuestUsage(Counted(0.0, 0.0, None), 1)
        told = list(frames(look_at({VmId(number): one for number in range(number)}), ALL))
        assert len(told) == expected
        assert told[-1]["more"] is False

    def test_a_watcher_is_told_of_what_it_named(self) -> None:
        one = GuestUsage(Counted(0.0, 0.0, 0.25), 9)
        look = look_at({VmId(1): one, VmId(2): one})
        (frame,) = frames(look, Watcher(frozenset({VmId(2), VmId(3)}), EVERY_S))
        assert frame["vms"] == {"2": [0.25, 9]}
        assert frame["host"] == {
            "cpu": 0.75,
            "cores": 2,
            "memory_bytes": 1,
            "memory_total_bytes": 2,
            "pool_bytes": 3,
            "pool_total_bytes": None,
            "load": 0.5,
        }


@pytest.mark.parametrize(
    "request_",
    [
        {"every_s": 0.1},
        {"every_s": float("nan")},
        {"every_s": "2"},
        {"every_s": True},
        {"vms": 7},
        {"vms": ["7"]},
        {"vms": [True]},
        {"vms": [1] * 6001},
    ],
)
def test_a_malformed_request_is_refused(request_: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        watcher_of(request_)


class Host:
    """Guests whose counters the test turns, and how often somebody looked at them."""

    def __init__(self) -> None:
        self.clock = ManualClock(datetime(2030, 1, 31, tzinfo=UTC))
        self.usage: dict[VmId, Usage] = {}
        self.dying: set[VmId] = set()
        self.use = HOST
        self.looked = 0
        self.sampled: list[VmId] = []
        self.takes: Callable[[], None] = lambda: None

    async def sample(self, vm_id: VmId) -> Usage:
        self.sampled.append(vm_id)
        self.takes()
        if vm_id in self.dying:
            raise BackendError("it ended while it was measured")
        return self.usage[vm_id]

    async def look(self) -> HostUsage:
        self.looked += 1
        return self.use

    def runs(self, vm_id: int, cpu_s: float, memory_bytes: int = 100) -> None:
        self.usage[VmId(vm_id)] = Usage(cpu_s=cpu_s, memory_bytes=memory_bytes)

    @asynccontextmanager
    async def serves(self, path: Path) -> AsyncIterator[None]:
        """Its daemon, as far as samples go."""
        made = Samples(lambda: list(self.usage), self.sample, self.look, self.clock)
        async with asyncio.TaskGroup() as tasks, ControlServer(path, {"samples": made.serve}, tasks):
            yield


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
async def control(host: Host, tmp_path: Path) -> AsyncIterator[Path]:
    async with host.serves(tmp_path / "socket"):
        yield tmp_path / "socket"


async def another(rounds: AsyncGenerator[Round, None]) -> Round:
    async with asyncio.timeout(5):
        return await anext(rounds)


async def after(host: Host, seconds: float, rounds: AsyncGenerator[Round, None]) -> Round:
    """The next round, which is due then."""
    await host.clock.advance(seconds)
    return await another(rounds)


async def rounds_until(stream: Stream, reached: Callable[[dict[str, object]], bool]) -> int:
    """Read a stream until a frame says something; how many rounds that took."""
    rounds = 0
    async with asyncio.timeout(5):
        while frame := await stream.receive():
            vms = frame.content()["vms"]
            assert isinstance(vms, dict)
            rounds += not frame.content()["more"]
            if reached(vms):
                return rounds
    raise AssertionError(f"the stream ended: {stream.farewell}")


async def settled() -> None:
    """Let both ends of the sockets come to rest."""
    for _ in range(50):
        await asyncio.sleep(0.001)


async def test_a_rate_is_there_from_the_second_round_on(host: Host, control: Path) -> None:
    host.runs(12, cpu_s=40.0, memory_bytes=7)
    async with aclosing(samples(control)) as rounds:
        first = await another(rounds)
        assert first.vms == {12: (None, 7)}
        assert first.host.cpu is None
        host.runs(12, cpu_s=40.5, memory_bytes=8)
        host.runs(13, cpu_s=5.0)
        host.use = replace(HOST, cpu_s=3.0)
        second = await after(host, 2.0, rounds)
        assert second.vms == {12: (0.25, 8), 13: (None, 100)}
        assert second.host.cpu == 0.75
        assert second.host.cores == 2
        host.runs(13, cpu_s=0.0)
        third = await after(host, 2.0, rounds)
        assert third.vms == {12: (0.0, 8), 13: (None, 100)}


async def test_what_ends_while_it_is_measured_is_absent(host: Host, control: Path) -> None:
    host.runs(1, cpu_s=1.0)
    host.runs(2, cpu_s=1.0)
    host.dying = {VmId(1)}
    async with aclosing(samples(control)) as rounds:
        assert set((await another(rounds)).vms) == {2}


async def test_nothing_is_measured_while_nobody_watches(host: Host, control: Path) -> None:
    host.runs(1, cpu_s=1.0)
    await host.clock.advance(10)
    assert host.looked == 0
    async with aclosing(samples(control)) as rounds:
        await another(rounds)
        await after(host, 2.0, rounds)
    await settled()
    looked = host.looked
    assert looked == 2
    for _ in range(5):
        await host.clock.advance(2.0)
    assert host.looked == looked
    async with aclosing(samples(control)) as rounds:
        assert (await another(rounds)).vms == {1: (None, 100)}, "nobody wants the mean of ten minutes"


async def test_all_watchers_share_one_look(host: Host, control: Path) -> None:
    host.runs(1, cpu_s=1.0)
    async with aclosing(samples(control)) as one, aclosing(samples(control)) as two:
        await another(one)
        await another(two)
        for number in range(1, 6):
            await host.clock.advance(2.0)
            await another(one)
            await another(two)
            assert host.looked == number + 1
    assert len(host.sampled) == 6


async def test_who_wants_them_less_often_is_told_less_often(host: Host, control: Path) -> None:
    async with aclosing(samples(control, every_s=1)) as often, aclosing(samples(control, every_s=4)) as rare:
        await another(often)
        await another(rare)
        waiting = asyncio.ensure_future(anext(rare))
        for _ in range(3):
            await after(host, 1.0, often)
        await settled()
        assert not waiting.done()
        await after(host, 1.0, often)
        async with asyncio.timeout(5):
            await waiting
    assert host.looked == 5


async def test_only_what_somebody_named_is_measured(host: Host, control: Path) -> None:
    for number in range(1, 6):
        host.runs(number, cpu_s=1.0)
    async with aclosing(samples(control, vms=[2, 9])) as few:
        assert set((await another(few)).vms) == {2}
        assert host.sampled == [2]
        async with aclosing(samples(control)) as everything:
            assert set((await another(everything)).vms) == {1, 2, 3, 4, 5}
            assert set((await after(host, 2.0, few)).vms) == {2}


async def test_a_watcher_that_never_reads_costs_the_others_nothing(host: Host, control: Path) -> None:
    for number in range(5_000):
        host.runs(number, cpu_s=1.0)
    async with (
        await open_stream(control, {"want": "samples"}) as idle,
        aclosing(samples(control)) as rounds,
    ):
        assert len((await another(rounds)).vms) == 5_000
        for _ in range(20):
            assert len((await after(host, 2.0, rounds)).vms) == 5_000
        waited = await rounds_until(idle, lambda vms: "4999" in vms)
        assert waited == 1
        host.runs(4_999, cpu_s=1.0, memory_bytes=999)
        await after(host, 2.0, rounds)
        waited = await rounds_until(idle, lambda vms: vms.get("4999") == [0.0, 999])
        assert waited < 10, "what it has not read does not pile up"
    assert host.looked == 22


async def test_a_long_look_gives_everybody_turns_and_rests(host: Host, control: Path) -> None:
    """A guest takes half a millisecond to measure here, on a clock that only measuring moves."""
    for number in range(1_000):
        host.runs(number, cpu_s=1.0)
    turns: list[int] = []

    def takes() -> None:
        host.clock._elapsed += 0.0005  # it passes without anybody being woken

    async def bystander() -> None:
        while True:
            turns.append(len(host.sampled))
            await asyncio.sleep(0)

    host.takes = takes
    async with asyncio.TaskGroup() as tasks:
        standing_by = tasks.create_task(bystander())
        async with aclosing(samples(control)) as rounds:
            await another(rounds)
            standing_by.cancel()
            between = [later - sooner for sooner, later in pairwise(turns)]
            assert max(between) <= SLICE_S / 0.0005 + 1
            host.takes = lambda: None
            assert host.looked == 1
            waiting = asyncio.ensure_future(anext(rounds))
            await host.clock.advance(EVERY_S - 0.5)
            await settled()
            assert not waiting.done()
            await host.clock.advance(0.5 * REST)
            async with asyncio.timeout(5):
                await waiting


async def test_a_watcher_that_speaks_is_refused(host: Host, control: Path) -> None:
    async with await open_stream(control, {"want": "samples"}) as stream:
        assert await stream.receive() is not None
        await stream.send(FrameKind.DATA, b"hello")
        with pytest.raises(UsageError, match="sends no DATA"):
            await stream.receive()


async def test_a_daemon_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(DaemonDownError):
        await anext(samples(tmp_path / "nobody"))


async def test_a_daemon_that_hangs_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(stream: Stream, request: object) -> None:
        await stream.receive()

    monkeypatch.setattr("appliance.qa.samples.SILENT_S", -1.9)
    path = tmp_path / "socket"
    async with asyncio.TaskGroup() as tasks, ControlServer(path, {"samples": hang}, tasks):
        with pytest.raises(DaemonSilentError, match=r"has said nothing for 0\.1 s"):
            await anext(samples(path))


async def test_a_daemon_that_goes_away_is_told_as_such(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with host.serves(path):
        rounds = samples(path)
        await another(rounds)
    with pytest.raises(DaemonDownError):
        await another(rounds)
