"""Puts the ruleset in force, whole or only who its guests are: always in one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from appliance import config
from appliance.clock import Timers
from appliance.config import Settings
from appliance.errors import NetworkError
from appliance.log import facts
from appliance.model import VmId
from appliance.runtime import ruleset
from appliance.runtime.backend import GuestSpec
from appliance.runtime.nft import Nftables

logger = logging.getLogger(__name__)

LOOK_S = 10.0


class Firewall:
    """The `Fences` of containers and of whatever else sits on the guests' bridge.

    Changes that come while a transaction is under way are made together by the next one.
    """

    def __init__(self, settings: Settings) -> None:
        self._spec = ruleset.spec(settings)
        self._enabled = settings[config.NETWORK_FIREWALL]
        self._nftables = Nftables()
        self._guests: dict[VmId, GuestSpec] = {}
        self._doubtful: set[VmId] = set()
        """Guests whose last change failed or was given up, perhaps after the kernel had made it."""
        self._turn = asyncio.Lock()
        self._changes = 0
        self._in_force = 0
        self._whole = True

    async def begin(self, guests: Sequence[GuestSpec]) -> None:
        """Fence the guests that a new daemon finds, all at once: none of them loses a packet.

        :raises NetworkError: the kernel refuses the rules; those of before are still in force
        """
        self._guests = {guest.vm_id: guest for guest in guests}
        await self.apply()

    async def apply(self) -> None:
        """Replace our tables; take them away if `internal.vm.network.firewall.enable` says so.

        :raises NetworkError: the kernel refuses them; those of before are still in force
        """
        self._whole = True
        await self._apply()

    async def _apply(self) -> None:
        self._changes += 1
        mine = self._changes
        async with self._turn:
            if self._in_force < mine:
                covered = self._changes
                await self._load()
                self._in_force = covered

    async def remove(self) -> None:
        """Take our tables away."""
        self._guests.clear()
        self._enabled = False
        await self.apply()

    async def fence(self, guest: GuestSpec) -> None:
        """Let the guest's port carry the guest's own addresses, and nothing else.

        :raises NetworkError: the kernel refuses the rules; the guest has none, and so carries nothing
        """
        if self._guests.get(guest.vm_id) == guest:
            return
        self._guests[guest.vm_id] = guest
        try:
            await self._apply()
        except BaseException:
            self._guests.pop(guest.vm_id, None)
            self._doubtful.add(guest.vm_id)
            raise

    async def unfence(self, vm_id: VmId) -> None:
        """Let the guest's port carry nothing."""
        if self._guests.pop(vm_id, None) is not None:
            self._doubtful.add(vm_id)
        if vm_id in self._doubtful:
            await self._apply()
            self._doubtful.discard(vm_id)

    async def keep(self, timers: Timers, *, every_s: float = LOOK_S) -> None:
        """Put our tables back whenever somebody has removed them, for ever.

        `systemctl reload nftables` flushes every table there is, and says so to nobody.
        """
        while True:
            await timers.sleep(every_s)
            try:
                if self._enabled and not await self._is_in_force():
                    await self.apply()
                    logger.warning("the guests' firewall was removed by somebody else: put back")
            except NetworkError as exc:
                logger.error("the guests' firewall may not be in force", extra=facts(error=exc))

    async def _is_in_force(self) -> bool:
        listed = await self._nftables.run(ruleset.LIST_TABLES)
        found = [entry["table"] for entry in listed["nftables"] if "table" in entry]
        ours = {table["family"] for table in found if table["name"] == self._spec.table}
        return ours >= set(ruleset.FAMILIES)

    async def _load(self) -> None:
        """Say who the guests are; all the rules, if they may not be in force."""
        if self._enabled and not self._whole:
            try:
                await self._nftables.run(ruleset.members(self._spec, self._guests.values()))
            except NetworkError:
                self._whole = True  # somebody has removed our tables
            else:
                return
        rules = ruleset.removal(self._spec)
        if self._enabled:
            rules = ruleset.render(self._spec, self._guests.values())
        try:
            await self._nftables.run(rules)
        except NetworkError as exc:
            raise NetworkError(f"the firewall cannot be set up: {exc}") from exc
        self._whole = not self._enabled
