"""Tells virtual machines their addresses: dnsmasq on the guests' bridge, begun again whenever it ends.

It is the daemon's child and ends with it, however the daemon ends; guests keep what they were told. It
begins only when it is known which guests run: one that asks and is unknown would lose its address.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from appliance import proc
from appliance.clock import Timers
from appliance.config import Settings
from appliance.errors import HostError, MissingToolError, NetworkError
from appliance.log import facts
from appliance.model import VmId
from appliance.runtime import dhcp_config, preflight
from appliance.runtime.backend import GuestSpec
from appliance.runtime.blame import backoff_s
from appliance.threads import in_thread

logger = logging.getLogger(__name__)

CAPABILITIES = ("net_admin", "net_bind_service")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
STEADY_S = 60.0
"""Whoever has run for so long does not count as having failed again and again."""
LAST_LINES = 3


class Dhcp:
    """What guests that ask for their addresses are told, and who tells it."""

    def __init__(self, settings: Settings, directory: Path, timers: Timers) -> None:
        """`directory` is where the files are that dnsmasq reads."""
        self._spec = dhcp_config.spec(settings)
        self._hosts = directory / "dhcp-hostsfile"
        self._names = directory / "dhcp-names"
        self._timers = timers
        self._guests: dict[VmId, GuestSpec] = {}
        self._written: dict[Path, str] = {}
        self._begun = asyncio.Event()
        self._process: proc.Child | None = None
        self._listens = False
        """Whether dnsmasq is so far that it takes a signal for what it means."""

    async def check(self) -> None:
        """Whether addresses can be told here.

        :raises HostError: dnsmasq is missing, or another program is where it would be
        """
        if shutil.which(dhcp_config.PROGRAM) is None:
            raise MissingToolError(f"the program {dhcp_config.PROGRAM} is missing", hint="run scripts/setup")
        await preflight.check_dhcp(self._spec.bridge, self._spec.gateway, self._timers)

    def begin(self, guests: Iterable[GuestSpec]) -> None:
        """Tell these guests, and no other; from now on there may be somebody who does.

        :raises NetworkError: a file cannot be written
        """
        self._guests = {guest.vm_id: guest for guest in guests if guest.asks_dhcp}
        self._tell()
        self._begun.set()

    def add(self, guest: GuestSpec) -> None:
        """Tell one more guest, if it asks.

        :raises NetworkError: a file cannot be written; the guest is not told
        """
        if not guest.asks_dhcp or self._guests.get(guest.vm_id) == guest:
            return
        self._guests[guest.vm_id] = guest
        try:
            self._tell()
        except NetworkError:
            del self._guests[guest.vm_id]
            raise

    def remove(self, vm_id: VmId) -> None:
        """Tell a guest no more. One that is gone does not ask, so it may be done later."""
        if self._guests.pop(vm_id, None) is None:
            return
        try:
            self._tell()
        except NetworkError as exc:
            logger.warning("a guest that is gone would still be told its address", extra=facts(error=exc))

    async def run(self) -> None:
        """Have dnsmasq run, for ever."""
        await self._begun.wait()
        tries = 0
        while True:
            since = self._timers.monotonic()
            reason = await self._serve()
            tries = 1 if self._timers.monotonic() - since > STEADY_S else tries + 1
            pause_s = backoff_s(tries, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
            logger.error(
                "dnsmasq ended: guests that ask now are told no address",
                extra=facts(reason=reason, again_in=f"{pause_s:g}s"),
            )
            await self._timers.sleep(pause_s)

    async def _serve(self) -> str:
        """Run dnsmasq to its end; returns why it ended."""
        said: deque[str] = deque(maxlen=LAST_LINES)

        def heard(line: str) -> None:
            logger.debug("%s", line)
            said.append(line)
            self._ready()

        try:
            names = self._names if await self._answers_names() else None
            words = dhcp_config.arguments(self._spec, self._hosts, names)
            status = await proc.attend(
                words,
                began=self._attend,
                heard=heard,
                capabilities=CAPABILITIES,
                env={**os.environ, "LC_ALL": "C"},
            )
        except HostError as exc:
            return str(exc)
        finally:
            self._process, self._listens = None, False
        return f"status {status}: {' / '.join(said)}"

    async def _answers_names(self) -> bool:
        """Whether names are asked for here, and nobody else answers."""
        if not self._spec.names_here:
            return False
        taken = await in_thread(preflight.names_are_answered, self._spec.bridge, self._spec.gateway)
        if taken:
            logger.info(
                "another program answers names at the gateway: left to it",
                extra=facts(address=self._spec.gateway),
            )
        return not taken

    def _attend(self, process: proc.Child) -> None:
        self._process = process

    def _ready(self) -> None:
        """The first line that it writes tells that it has begun; what it reads then may be old by now."""
        if not self._listens and self._process is not None:
            self._listens = True
            logger.info("dnsmasq runs", extra=facts(pid=self._process.pid, bridge=self._spec.bridge))
            self._read_again()

    def _tell(self) -> None:
        """Write what has changed anew, and have it read."""
        guests = self._guests.values()
        wanted = {self._hosts: dhcp_config.hosts_text(guests), self._names: dhcp_config.names_text(guests)}
        if wanted == self._written:
            return
        self._written = {}
        for file, text in wanted.items():
            beside = file.with_suffix(".new")
            try:
                beside.write_text(text)
                beside.replace(file)
            except OSError as exc:
                raise NetworkError(f"{file} cannot be written: {exc.strerror}") from exc
        self._written = wanted
        self._read_again()

    def _read_again(self) -> None:
        if self._listens and self._process is not None:
            self._process.send_signal(signal.SIGHUP)
