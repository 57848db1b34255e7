"""Puts the ruleset in force: all of it at once, in one transaction of nft."""

from __future__ import annotations

import asyncio
import json

from appliance import config, proc
from appliance.config import Settings
from appliance.errors import NetworkError, ToolError
from appliance.model import VmId
from appliance.runtime import ruleset
from appliance.runtime.backend import GuestSpec


class Firewall:
    """The `Fences` of containers and of whatever else sits on the guests' bridge."""

    def __init__(self, settings: Settings) -> None:
        self._spec = ruleset.spec(settings)
        self._enabled = settings[config.NETWORK_FIREWALL]
        self._guests: dict[VmId, GuestSpec] = {}
        self._turn = asyncio.Lock()

    async def apply(self) -> None:
        """Replace our tables; take them away if `internal.vm.network.firewall.enable` says so.

        :raises NetworkError: the kernel refuses them; those of before are still in force
        """
        async with self._turn:
            rules = ruleset.removal(self._spec)
            if self._enabled:
                rules = ruleset.render(self._spec, self._guests.values())
            try:
                await proc.run(["nft", "-j", "-f", "-"], stdin=json.dumps(rules).encode())
            except ToolError as exc:
                raise NetworkError(f"the firewall cannot be set up: {exc}") from exc

    async def remove(self) -> None:
        """Take our tables away."""
        self._guests.clear()
        self._enabled = False
        await self.apply()

    async def fence(self, guest: GuestSpec) -> None:
        """Let the guest's port carry the guest's own addresses, and nothing else."""
        if self._guests.get(guest.vm_id) != guest:
            self._guests[guest.vm_id] = guest
            await self.apply()

    async def unfence(self, vm_id: VmId) -> None:
        """Let the guest's port carry nothing."""
        if self._guests.pop(vm_id, None) is not None:
            await self.apply()
