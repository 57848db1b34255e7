"""Whom a backend follows: a watch over each guest, the line to its console, and what is heard of them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from appliance.model import VmId
from appliance.runtime.backend import Departure


class Held(Protocol):
    """Something that is held on to, and let go of."""

    def close(self) -> None:
        """Let go of it; the guest runs on."""
        ...


Watch = TypeVar("Watch", bound=Held)
Line = TypeVar("Line", bound=Held)
News = TypeVar("News")


class Followed(Generic[Watch, Line, News]):
    """The guests that were launched or adopted here."""

    def __init__(self) -> None:
        self.watches: dict[VmId, Watch] = {}
        self.news: asyncio.Queue[Departure | News] = asyncio.Queue()
        self._lines: dict[VmId, Line] = {}

    def line(self, vm_id: VmId, make: Callable[[], Line]) -> Line:
        """The one line to a guest's console."""
        if vm_id not in self._lines:
            self._lines[vm_id] = make()
        return self._lines[vm_id]

    def ended(self, vm_id: VmId) -> None:
        """Follow a guest no more, and tell that it has departed."""
        self.watches.pop(vm_id, None)
        if line := self._lines.pop(vm_id, None):
            line.close()
        self.news.put_nowait(Departure(vm_id=vm_id))

    @contextmanager
    def over(self, vm_id: VmId, make: Callable[[], Watch] | None) -> Iterator[Watch | None]:
        """The watch over a guest, or one that is made for the moment if nobody has adopted the guest."""
        if ours := self.watches.get(vm_id):
            yield ours
        elif make is None:
            yield None
        else:
            watch = make()
            try:
                yield watch
            finally:
                watch.close()

    def close(self) -> None:
        """Let go of all of them."""
        for held in (*self.watches.values(), *self._lines.values()):
            held.close()
        self.watches.clear()
        self._lines.clear()
