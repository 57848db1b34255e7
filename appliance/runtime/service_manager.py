"""Tells systemd how the service is: ready, alive, stopping (sd_notify(3), `Type=notify`).

Our own, because the protocol is one datagram, and the small libraries for it keep the variables of the
environment, by which every guest's processes could speak for the service, or are no longer kept up.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass

from appliance.clock import Timers
from appliance.errors import StoreError
from appliance.log import facts
from appliance.runtime.supervisor import Supervisor
from appliance.storage.store import Store

logger = logging.getLogger(__name__)

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """Who started us, if it wants to be told; nobody otherwise."""

    address: str | None = None
    """The socket to write to; an abstract one begins with a NUL."""
    watchdog_s: float | None = None
    """After how many seconds of silence it takes us for hung; None if it does not watch."""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
        """What the environment says, which no child inherits afterwards."""
        address, wait_us, pid = (environment.pop(name, "") for name in VARIABLES)
        if address[:1] not in {"/", "@"}:
            return cls()
        ours = not pid or pid == str(os.getpid())
        return cls(
            address=f"\0{address[1:]}" if address.startswith("@") else address,
            watchdog_s=int(wait_us) / 1e6 if ours and wait_us.isdecimal() and int(wait_us) else None,
        )

    def ready(self, status: str) -> None:
        """Say that we serve, and what `systemctl status` is to show."""
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        """Say that we are about to end."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def patience(self, seconds: float, status: str) -> None:
        """Ask for `seconds` from now before starting or stopping counts as failed, and say for what."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Change what `systemctl status` shows."""
        self._tell(f"STATUS={status}")

    def alive(self) -> None:
        """Say that we are not hung."""
        self._tell("WATCHDOG=1")

    def _tell(self, *assignments: str) -> None:
        if self.address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(assignments).encode(), self.address)
        except OSError as exc:
            logger.warning(
                "the service manager cannot be told", extra=facts(what=assignments[0], error=exc.strerror)
            )


async def show_life(manager: ServiceManager, supervisor: Supervisor, store: Store, timers: Timers) -> None:
    """Feed the watchdog at half its time, for ever, while there is reason to.

    A beat passes through the event loop, the supervisor and the database; whichever of them hangs, the
    beats end and systemd starts us anew. The guests do not notice.
    """
    if manager.watchdog_s is None:
        return
    while True:
        try:
            async with store.read() as tx:
                await tx.settings.installation()
        except StoreError as exc:
            logger.error("no beat for the watchdog", extra=facts(error=exc))
        else:
            if supervisor.is_idle:
                manager.alive()
            else:
                logger.error("no beat for the watchdog: events are not taken")
        await timers.sleep(manager.watchdog_s / 2)
