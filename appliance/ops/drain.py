"""Waits until nobody is connected any more, and lets nobody else in meanwhile: the calm before maintenance.

It works through the database from a process of its own: the node is blocked, so that its broker turns
new clients away, and the rows say who is still there. Whatever goes wrong, or if it takes too long, the
node is as it was before.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance import signals
from appliance.clock import Clock
from appliance.config import NODENAME, Settings
from appliance.errors import ConfigError
from appliance.filters import Filter
from appliance.model import Host, HostId, UserState, Vm
from appliance.ops import bell, hosts
from appliance.storage.paths import Paths
from appliance.storage.store import Store
from appliance.threads import to_the_end

LOOK_S = 1.0
FEW = 5


async def drain(
    store: Store,
    settings: Settings,
    clock: Clock,
    *,
    by: str,
    timeout_s: float | None,
    say: Callable[[str], None],
) -> bool:
    """Block this node and return once nobody is connected; False if somebody still is after `timeout_s`.

    The node stays blocked if all are gone; otherwise, also if cancelled, it is as before. `say` is given
    a line whenever the number of the connected changes.

    :raises ConfigError: `nodename` is no host of this installation
    """
    host = await _this_host(store, settings)
    ours = await _block(store, settings, host, by)
    gone = False
    try:
        gone = await _until_nobody(store, settings, host.id, clock, timeout_s, say)
    finally:
        if ours and not gone:
            await to_the_end(_unblock(store, settings, host, by))
            say(f"{host.name} takes clients again.")
    return gone


async def _this_host(store: Store, settings: Settings) -> Host:
    name = settings[NODENAME]
    async with store.read() as tx:
        host = await tx.hosts.by_name(name)
    if host is None:
        raise ConfigError(f"nodename = {name!r} is not a host of this installation", hint="see qa host list")
    return host


async def _block(store: Store, settings: Settings, host: Host, by: str) -> bool:
    """Block the node; whether it was not yet."""
    async with store.write() as tx:
        ours = await hosts.block(tx, [host], blocked=True, by=by) > 0
    bell.ring(settings)
    return ours


async def _unblock(store: Store, settings: Settings, host: Host, by: str) -> None:
    async with store.write() as tx:
        await hosts.block(tx, [host], blocked=False, by=by)
    bell.ring(settings)


async def _until_nobody(
    store: Store,
    settings: Settings,
    host_id: HostId,
    clock: Clock,
    timeout_s: float | None,
    say: Callable[[str], None],
) -> bool:
    begun = clock.monotonic()
    told: list[Vm] = []
    while connected := await _connected(store, host_id):
        if not signals.is_heard(Paths(settings).doorbell):
            say("The daemon does not run, so nobody is connected.")
            return True
        if timeout_s is not None and clock.monotonic() - begun >= timeout_s:
            say(f"After {timeout_s:g} s still connected: {_names(connected)}.")
            return False
        if len(connected) != len(told):
            say(f"Connected: {_names(connected)}.")
            told = connected
        await clock.sleep(LOOK_S)
    say("Nobody is connected.")
    return True


async def _connected(store: Store, host_id: HostId) -> list[Vm]:
    async with store.read() as tx:
        found = await tx.vms.find(Filter.where(l7r_host_id=host_id))
    return [vm for vm in found if vm.runtime.user_state is not UserState.DISCONNECTED]


def _names(vms: list[Vm]) -> str:
    names = [f"{vm.user} on {vm.name}" for vm in vms[:FEW]]
    more = [f"{len(vms) - FEW} more"] if len(vms) > FEW else []
    return f"{len(vms)} ({', '.join([*names, *more])})"
