"""Who may come in: connections counted in all and by address, handshakes included. Pure.

One machine must not keep the others out. Whoever has not logged in yet costs a machine nothing to make, so
of such *strangers* each address gets fewer. An address of IPv6 is its /64: a machine has all of those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

HOST_BITS = 64
"""Of an IPv6 address: what a machine chooses for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many connections there may be at once."""

    connections: int
    per_address: int
    strangers_per_address: int


class Gate:
    """Counts the connections that are in."""

    def __init__(self, bounds: Callable[[], Bounds]) -> None:
        self._bounds = bounds
        self._inside = 0
        self._from: Counter[str] = Counter()
        self._strangers: Counter[str] = Counter()

    def enter(self, address: str) -> Place | str:
        """A place for a connection from `address`, as a stranger's; or why there is none."""
        origin, bounds = origin_of(address), self._bounds()
        if self._inside >= bounds.connections:
            return "the broker is full"
        if self._from[origin] >= bounds.per_address:
            return "its address has enough connections"
        if self._strangers[origin] >= bounds.strangers_per_address:
            return "its address has enough connections without a log-in"
        self._inside += 1
        self._from[origin] += 1
        self._strangers[origin] += 1
        return Place(self, origin)

    def _leave(self, origin: str, *, stranger: bool) -> None:
        self._inside -= 1
        self._lower(self._from, origin)
        if stranger:
            self._lower(self._strangers, origin)

    @staticmethod
    def _lower(counter: Counter[str], origin: str) -> None:
        counter[origin] -= 1
        if not counter[origin]:
            del counter[origin]


class Place:
    """One connection's place, from its acceptance until it is closed."""

    def __init__(self, gate: Gate, origin: str) -> None:
        self._gate = gate
        self.origin = origin
        """What the address counts as."""
        self._stranger = True
        self._left = False

    @property
    def stranger(self) -> bool:
        """Whether nobody has logged in on this connection yet."""
        return self._stranger

    def known(self) -> None:
        """Somebody has logged in."""
        if self._stranger and not self._left:
            self._stranger = False
            self._gate._lower(self._gate._strangers, self.origin)

    def leave(self) -> None:
        """Give the place back; more than once does no harm."""
        if not self._left:
            self._left = True
            self._gate._leave(self.origin, stranger=self._stranger)


def origin_of(address: str) -> str:
    """What the connections of one machine have in common."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        network = int(parsed) >> HOST_BITS << HOST_BITS
        return f"{IPv6Address(network)}/64"
    return address
