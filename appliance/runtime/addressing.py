"""`Fences` for guests of which some ask for their address: it is told for as long as the guest is fenced."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.model import VmId
from appliance.runtime.backend import Fences, GuestSpec
from appliance.runtime.dhcp import Dhcp


class AddressedFences:
    """The rules of other fences, and the addresses."""

    def __init__(self, fences: Fences, dhcp: Dhcp) -> None:
        self._fences = fences
        self._dhcp = dhcp

    async def begin(self, guests: Sequence[GuestSpec]) -> None:
        """Fence the guests that a new daemon finds; tell them, and no other, their addresses.

        :raises NetworkError: it cannot be done
        """
        await self._fences.begin(guests)
        self._dhcp.begin(guests)

    async def fence(self, guest: GuestSpec) -> None:
        """Fence a guest, and have it told its address.

        :raises NetworkError: it cannot be done; the guest is neither
        """
        self._dhcp.add(guest)
        try:
            await self._fences.fence(guest)
        except BaseException:
            self._dhcp.remove(guest.vm_id)
            raise

    async def unfence(self, vm_id: VmId) -> None:
        """Remove the rules; the address is told no more."""
        self._dhcp.remove(vm_id)
        await self._fences.unfence(vm_id)
