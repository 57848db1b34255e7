"""Named failpoints: before and after the effect of every action, of VMs and of sessions alike.

A failpoint is generated from the type of an action, so that a new action has its own without anybody's
doing. What is to happen is read from a plan file each time an effect is reached: a test arms a running
daemon by writing the file. Every boundary passed while a plan is there is written into a record, so that
a failpoint which was never reached cannot pass for one that did no harm.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from appliance.errors import HostError
from appliance.l7r import session
from appliance.l7r.services import Do
from appliance.runtime.actions import Order
from appliance.runtime.events import Event
from appliance.runtime.supervisor import Perform
from appliance.signals import Watch

T = TypeVar("T")
PLAN = "QVD_FAULT_PLAN"
"""In the environment of a faulty daemon: the plan file; the record is beside it."""
LIMIT = "QVD_FAULT_LIMIT"
"""There too: for how many seconds an action may go on at most, so that what hangs is given up soon."""


class Boundary(StrEnum):
    """Where an effect is interrupted."""

    BEFORE = "before"
    AFTER = "after"
    """Done, and nobody has been told."""


class Fault(StrEnum):
    """What goes wrong there."""

    KILL = "kill"
    """The daemon is killed by SIGKILL."""
    RAISE = "raise"
    """The host cannot."""
    HANG = "hang"
    """It never ends by itself."""


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One boundary of one kind of action, and what is to happen there, once."""

    action: str
    boundary: Boundary
    fault: Fault

    def __str__(self) -> str:
        return f"{self.fault} {self.boundary} {self.action}"


def failpoints(actions: Iterable[type], *faults: Fault) -> list[Failpoint]:
    """Every failpoint of these kinds of action."""
    return [
        Failpoint(action.__name__, boundary, fault)
        for fault in faults
        for action in actions
        for boundary in Boundary
    ]


SESSION_ACTIONS: tuple[type[session.Action], ...] = tuple(
    kind
    for kind in vars(session).values()
    if isinstance(kind, type)
    and issubclass(kind, session.Action)
    and kind not in (session.Action, session.Refuse, session.Close)
)
"""What the session machine orders that has an effect; the other two are its ends."""


class Plan:
    """The plan file and its record, as the test has them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.record = file.with_suffix(".record")

    def arm(self, *points: Failpoint) -> None:
        """From now on what is listed goes wrong, once; with nothing listed, passing is recorded only."""
        self.record.write_text("")
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(point) for point in points]))
        fresh.rename(self.file)

    def disarm(self) -> set[tuple[str, Boundary]]:
        """Nothing goes wrong any more; which boundaries were passed."""
        self.file.unlink(missing_ok=True)
        return self.passed()

    def passed(self) -> set[tuple[str, Boundary]]:
        """The boundaries passed since the plan was armed."""
        words = [line.split() for line in self.record.read_text().splitlines()]
        return {(action, Boundary(boundary)) for action, boundary, *_ in words}

    def struck(self) -> bool:
        """Whether a failpoint has been hit."""
        return any(line.endswith(" struck") for line in self.record.read_text().splitlines())


class Faults:
    """The daemon's side: stands around every effect and does what the plan says."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._record = file.with_suffix(".record")
        self._armed: tuple[int, set[Failpoint]] = (0, set())

    def orders(self, perform: Perform) -> Perform:
        """Around the effects of the VM machine."""

        async def faulty(order: Order) -> Event:
            return await self._around(type(order.action), lambda: perform(order))

        return faulty

    def sessions(self, do: Do) -> Do:
        """Around the effects of the session machine."""

        async def faulty(action: session.Action, turn: Watch) -> session.Event:
            return await self._around(type(action), lambda: do(action, turn))

        return faulty

    async def _around(self, action: type, effect: Callable[[], Awaitable[T]]) -> T:
        await self._pass(action, Boundary.BEFORE)
        outcome = await effect()
        await self._pass(action, Boundary.AFTER)
        return outcome

    async def _pass(self, action: type, boundary: Boundary) -> None:
        plan = self._plan()
        if plan is None:
            return
        point = next((p for p in plan if (p.action, p.boundary) == (action.__name__, boundary)), None)
        with self._record.open("a") as record:
            record.write(f"{action.__name__} {boundary}{' struck' if point else ''}\n")
        if point is None:
            return
        plan.discard(point)
        match point.fault:
            case Fault.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Fault.RAISE:
                raise HostError(f"failpoint: {point}")
            case Fault.HANG:
                await asyncio.Event().wait()

    def _plan(self) -> set[Failpoint] | None:
        """What is still to go wrong; None if nobody is interested."""
        with suppress(FileNotFoundError):
            written = self._file.stat().st_mtime_ns
            if self._armed[0] != written:
                self._armed = (written, {_failpoint(words) for words in json.loads(self._file.read_text())})
            return self._armed[1]
        return None


def _failpoint(words: dict[str, str]) -> Failpoint:
    return Failpoint(words["action"], Boundary(words["boundary"]), Fault(words["fault"]))
