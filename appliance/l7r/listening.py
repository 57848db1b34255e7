"""The broker's port on each of its addresses: claimed as a whole or not at all, listened on later.

IPv4 and IPv6 get a socket each, never one for both: so a client's address is always written in one way.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from types import TracebackType
from typing import Any, Self, TypeAlias

from appliance import config
from appliance.config import Settings
from appliance.errors import NetworkError
from appliance.values import EVERY

logger = logging.getLogger(__name__)

BACKLOG = 512
NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
"""How a kernel without IPv6 refuses a socket of it."""

Place: TypeAlias = tuple[tuple[str, ...], int]
"""Addresses and port."""


class Claim:
    """The port, bound but not open yet; a context manager that gives it back."""

    def __init__(self, place: Place) -> None:
        """Claim the port on every address of `place`.

        :raises NetworkError: it is taken, or an address is not ours
        """
        self.place = place
        with contextlib.ExitStack() as undo:
            claimed = [undo.enter_context(each) for address in place[0] for each in _bound(place, address)]
            undo.pop_all()
        self.sockets: tuple[socket.socket, ...] = tuple(claimed)

    def again(self) -> Claim:
        """The same port, after it was given back.

        :raises NetworkError: somebody else has it meanwhile
        """
        return Claim(self.place)

    def listen(self) -> None:
        """Let clients come.

        :raises NetworkError: somebody else listens there; the port is given back
        """
        for each in self.sockets:
            try:
                each.listen(BACKLOG)
            except OSError as exc:
                self.close()
                raise _busy(self.place, exc) from exc

    def close(self) -> None:
        """Give the port back."""
        for each in self.sockets:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def place_of(settings: Settings) -> Place:
    """Where the settings want the broker."""
    return settings[config.L7R_ADDRESS], settings[config.L7R_PORT]


def claim_port(settings: Settings) -> Claim:
    """The broker's port: so a daemon that cannot have it learns so before all else.

    :raises NetworkError: it is taken, or an address is not ours
    """
    return Claim(place_of(settings))


def _bound(place: Place, address: str) -> list[socket.socket]:
    """Sockets for all that a name or an address means."""
    addresses, port = place
    with contextlib.ExitStack() as undo:
        made = []
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, where in dict.fromkeys(found):
                made.append(undo.enter_context(socket.socket(family, socket.SOCK_STREAM)))
                _bind(made[-1], where)
        except OSError as exc:
            if address == EVERY[1] and EVERY[0] in addresses and exc.errno in NO_IPV6:
                logger.info("this host has no IPv6: the L7R listens on IPv4 alone")
                return []
            raise _busy(place, exc) from exc
        undo.pop_all()
    return made


def _bind(made: socket.socket, where: Any) -> None:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(where)
    made.setblocking(False)


def _busy(place: Place, exc: OSError) -> NetworkError:
    addresses, port = place
    shown = (
        "*" if addresses == EVERY else ",".join(f"[{each}]" if ":" in each else each for each in addresses)
    )
    return NetworkError(
        f"the L7R cannot listen on {shown}:{port}: {exc.strerror or exc}",
        hint=f"see who does with ss -ltnp 'sport = {port}', or set l7r.address and l7r.port",
    )
