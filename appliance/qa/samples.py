"""What desktops and host use now, as the daemon tells it while somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from appliance.control import START_HINT, Stream, open_stream
from appliance.control_frames import Frame
from appliance.errors import DaemonDownError, DaemonSilentError

SILENT_S = 20.0
"""Longer than a look at ten thousand guests makes a watcher wait: after that the daemon hangs."""

VmUsage: TypeAlias = tuple[float | None, int]
"""Cores kept busy (None in the first round) and memory in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUse:
    """What the host of the daemon uses."""

    cpu: float | None
    """Share of all cores, from 0 to 1; None in the first round."""
    cores: int
    memory_bytes: int
    memory_total_bytes: int
    pool_bytes: int | None
    """What is taken of the pool; None: it cannot be told."""
    pool_total_bytes: int | None
    load: float
    """Processes that run or want to, on the average of the last minute."""


@dataclass(frozen=True, slots=True)
class Round:
    """One look at the host and at the desktops that run on it."""

    host: HostUse
    vms: Mapping[int, VmUsage]


async def samples(
    control: Path, *, every_s: float = 2.0, vms: Collection[int] | None = None
) -> AsyncGenerator[Round, None]:
    """A round at once, then one each `every_s` seconds (0.5 to 60), of all desktops or of `vms`, for ever.

    A round has the desktops that run here now: one that is not in it does not. The daemon measures as long as
    this is open: close it (`contextlib.aclosing`) when nobody looks any more.

    :raises DaemonDownError: the daemon is not there, or goes away
    :raises DaemonSilentError: it says nothing for long
    :raises AdminError: it does not let this user in
    """
    request: dict[str, object] = {"want": "samples", "every_s": every_s}
    if vms is not None:
        request["vms"] = sorted(vms)
    async with await open_stream(control, request) as stream:
        seen: dict[int, VmUsage] = {}
        while frame := await _soon(stream, every_s + SILENT_S):
            content: Mapping[str, Any] = frame.content()
            seen |= {int(vm): (cpu, memory) for vm, (cpu, memory) in content["vms"].items()}
            if not content["more"]:
                yield Round(HostUse(**{name: content["host"][name] for name in HostUse.__slots__}), seen)
                seen = {}
    raise DaemonDownError("the daemon has gone away", hint=START_HINT)


async def _soon(stream: Stream, longest_s: float) -> Frame | None:
    try:
        async with asyncio.timeout(longest_s):
            return await stream.receive()
    except TimeoutError:
        raise DaemonSilentError(
            f"the daemon has said nothing for {longest_s:g} s", hint="it hangs, or the host is very busy"
        ) from None
