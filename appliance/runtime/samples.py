"""What the guests and the host use, for those who watch; the stream `samples` of the control socket.

Nothing is measured while nobody watches. Whoever watches asks for a look when the last one is too old for
it, and all who watch share it: no number of watchers costs more than the one that wants them most often.
A look goes through the guests in slices, between which the loop serves everybody else, and takes no more
than a part of the daemon's time however many there are: then looks come less often than was asked.

Counters become rates between two looks. So the first look of all, and the first at each guest, has none.
A watcher that reads slowly misses looks; what it has not read never piles up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from appliance.clock import Timers
from appliance.control import Stream
from appliance.control_frames import FrameKind
from appliance.errors import ApplianceError, UsageError
from appliance.model import Usage, VmId
from appliance.runtime.host_usage import HostUsage

EVERY_S = 2.0
SOONEST_S, LATEST_S = 0.5, 60.0
FRESH = 0.9
"""How much of its time a look is fresh: watchers whose clocks differ a little share one all the same."""
SHORTEST_S = 0.4
"""Rates over less than this would be noise: some counters go in hundredths of a second."""
SLICE_S = 0.002
"""How long guests are measured before everybody else has a turn."""
REST = 4
"""A look is followed by no other for so many times what it took."""
VMS_PER_FRAME = 1000
"""At the longest numbers they have, so many fit into a frame (control_frames.MAX_PAYLOAD)."""
MOST_VMS = 6000
"""What a watcher may name: more do not fit into the frame of its request."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Processor time of one counter as it was at an instant, and how fast it grew until then."""

    cpu_s: float
    at: float
    cores: float | None
    """How many cores were kept busy; None: that takes another look."""


@dataclass(frozen=True, slots=True)
class GuestUsage:
    """What a look says of a guest."""

    counted: Counted
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at everything that is watched."""

    at: float
    took_s: float
    wanted: frozenset[VmId] | None
    """The VMs that were looked at as far as they run; None: all."""
    host: HostUsage
    host_counted: Counted
    guests: Mapping[VmId, GuestUsage]

    def serves(self, watcher: Watcher, now: float) -> bool:
        """Whether it says all that a watcher wants to know, and is not too old for it."""
        covers = self.wanted is None or (watcher.vms is not None and watcher.vms <= self.wanted)
        return covers and now < self.at + FRESH * self.interval_s(watcher)

    def interval_s(self, watcher: Watcher) -> float:
        """After how many seconds a watcher wants the next one, and may have it."""
        return max(watcher.every_s, REST * self.took_s)


@dataclass(frozen=True, slots=True, eq=False)
class Watcher:
    """Somebody who watches, and what."""

    vms: frozenset[VmId] | None
    """Only these; None: all."""
    every_s: float


def counted(before: Counted | None, cpu_s: float, at: float) -> Counted:
    """A counter of processor time as it is now; one that fell has begun anew."""
    if before is None or cpu_s < before.cpu_s:
        return Counted(cpu_s, at, None)
    if at - before.at < SHORTEST_S:
        return before
    return Counted(cpu_s, at, (cpu_s - before.cpu_s) / (at - before.at))


def watcher_of(request: Mapping[str, object]) -> Watcher:
    """What a request asks for: `{"vms": [ids], "every_s": seconds}`, both may be left out.

    :raises UsageError: it is malformed
    """
    every_s, vms = request.get("every_s", EVERY_S), request.get("vms")
    if isinstance(every_s, bool) or not isinstance(every_s, int | float):
        raise UsageError(f"every_s is {every_s!r}", hint="seconds")
    if not SOONEST_S <= every_s <= LATEST_S:
        raise UsageError(f"every_s is {every_s!r}", hint=f"from {SOONEST_S:g} to {LATEST_S:g} seconds")
    if vms is None:
        return Watcher(None, every_s)
    if not isinstance(vms, list) or len(vms) > MOST_VMS:
        raise UsageError("vms is no list of ids", hint=f"at most {MOST_VMS} ids, or leave it out for all")
    if not all(isinstance(vm, int) and not isinstance(vm, bool) for vm in vms):
        raise UsageError("vms is no list of ids", hint="ids are whole numbers")
    return Watcher(frozenset(map(VmId, vms)), every_s)


def frames(look: Look, watcher: Watcher) -> Iterator[Mapping[str, object]]:
    """A look as its watcher is told of it; the last frame says that there are no more."""
    wanted = (vm for vm in look.guests if watcher.vms is None or vm in watcher.vms)
    told = _host(look)
    part = list(islice(wanted, VMS_PER_FRAME))
    while True:
        vms = {
            str(vm): [_rounded(look.guests[vm].counted.cores), look.guests[vm].memory_bytes] for vm in part
        }
        part = list(islice(wanted, VMS_PER_FRAME))
        yield {"host": told, "vms": vms, "more": bool(part)}
        if not part:
            return


class Samples:
    """Measures for all who watch; `serve` serves the stream `samples`."""

    def __init__(
        self,
        guests: Callable[[], Iterable[VmId]],
        sample: Callable[[VmId], Awaitable[Usage]],
        host: Callable[[], Awaitable[HostUsage]],
        timers: Timers,
    ) -> None:
        """`guests` says who runs here, `sample` measures one of them, `host` the host."""
        self._guests = guests
        self._sample = sample
        self._host = host
        self._timers = timers
        self._watchers: set[Watcher] = set()
        self._last: Look | None = None
        self._measuring = asyncio.Lock()

    async def serve(self, stream: Stream, request: Mapping[str, object]) -> None:
        """Tell one watcher of each look until it leaves.

        :raises UsageError: the request is malformed, or the watcher sends something
        """
        watcher = watcher_of(request)
        self._watchers.add(watcher)
        try:
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(self._tell(stream, watcher), name="samples for a watcher")
                refusal = await _until_it_leaves(stream)
                telling.cancel()
        finally:
            self._watchers.discard(watcher)
            if not self._watchers:
                self._last = None
        if refusal is not None:
            raise refusal

    async def _tell(self, stream: Stream, watcher: Watcher) -> None:
        while True:
            look = await self._fresh(watcher)
            for frame in frames(look, watcher):
                await stream.send(FrameKind.EVENT, frame)
                await self._timers.sleep(0)
            await self._timers.sleep(look.at + look.interval_s(watcher) - self._timers.monotonic())

    async def _fresh(self, watcher: Watcher) -> Look:
        """The last look, or a new one if that is not for this watcher."""
        async with self._measuring:
            if self._last is None or not self._last.serves(watcher, self._timers.monotonic()):
                self._last = await self._look(self._last)
            return self._last

    async def _look(self, before: Look | None) -> Look:
        began = self._timers.monotonic()
        wanted = _together(watcher.vms for watcher in self._watchers)
        guests: dict[VmId, GuestUsage] = {}
        known = {} if before is None else before.guests
        host = await self._host()
        host_counted = counted(before.host_counted if before else None, host.cpu_s, self._timers.monotonic())
        slice_began = began
        for vm_id in list(self._guests()):
            if wanted is not None and vm_id not in wanted:
                continue
            try:
                usage = await self._sample(vm_id)
            except ApplianceError:  # it has ended meanwhile, or only just begins
                continue
            now = self._timers.monotonic()
            former = known[vm_id].counted if vm_id in known else None
            guests[vm_id] = GuestUsage(counted(former, usage.cpu_s, now), usage.memory_bytes)
            if now - slice_began >= SLICE_S:
                await self._timers.sleep(0)
                slice_began = self._timers.monotonic()
        return Look(
            at=began,
            took_s=self._timers.monotonic() - began,
            wanted=wanted,
            host=host,
            host_counted=host_counted,
            guests=guests,
        )


async def _until_it_leaves(stream: Stream) -> ApplianceError | None:
    """Wait for the end of a stream on which nothing is to come; what is wrong with it, if something is."""
    try:
        frame = await stream.receive()
    except ApplianceError as exc:
        return exc
    return None if frame is None else UsageError(f"a watcher of samples sends no {frame.kind.name}")


def _together(wants: Iterable[frozenset[VmId] | None]) -> frozenset[VmId] | None:
    """All that anybody wants; None: everything."""
    together: frozenset[VmId] = frozenset()
    for vms in wants:
        if vms is None:
            return None
        together |= vms
    return together


def _host(look: Look) -> Mapping[str, object]:
    host, cores = look.host, look.host_counted.cores
    return {
        "cpu": None if cores is None else _rounded(min(1.0, cores / host.cores)),
        "cores": host.cores,
        "memory_bytes": host.memory_bytes,
        "memory_total_bytes": host.memory_total_bytes,
        "pool_bytes": host.pool_bytes,
        "pool_total_bytes": host.pool_total_bytes,
        "load": host.load,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
