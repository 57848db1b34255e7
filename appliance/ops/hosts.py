"""What people do with nodes: add, delete, block and unblock them.

Each function works inside the caller's transaction; the caller commits, then rings the bell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address

from appliance.errors import ConflictError, UsageError, few
from appliance.filters import Filter
from appliance.model import Host, HostId, HostState
from appliance.storage.store import Tx

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,125}[A-Za-z0-9])?")
SIGN_OF_LIFE = timedelta(minutes=10)
"""A daemon that has been silent for longer is taken for dead (QVD's internal.hkd.cluster.node.timeout)."""


async def add(tx: Tx, *, name: str, address: str, by: str) -> Host:
    """A new node; it takes VMs once its daemon runs.

    :raises UsageError: name or address are none
    :raises ConflictError: name or address are taken
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"name={name}: this cannot be a node's name",
            hint="up to 127 letters, digits, '.', '_' or '-', a letter or digit at both ends",
        )
    _check_address(address)
    for host in await tx.hosts.find():
        if host.name == name:
            raise ConflictError(f"name={name}: there is a host of this name")
        if host.address == address:
            raise ConflictError(f"address={address}: the host {host.name} has this address")
    host_id = await tx.hosts.add(name, address)
    await tx.log.append(by=by, what="host add", object=f"host {host_id}", now=f"{name} {address}")
    return await tx.hosts.get(host_id)


async def delete(tx: Tx, hosts: Sequence[Host], *, by: str) -> int:
    """Delete nodes, all or none; returns how many.

    :raises ConflictError: one of them has VMs or sessions, or its daemon runs
    """
    for host in hosts:
        if _is_alive(tx, host):
            raise ConflictError(
                f"the host {host.name} is {host.state}", hint="stop its daemon first; nothing was deleted"
            )
        for key, what in (("host_id", "assigned"), ("l7r_host_id", "in use through it")):
            if found := await tx.vms.find(Filter.where(**{key: host.id})):
                raise ConflictError(
                    f"the host {host.name} has VMs {what}: {few([vm.name for vm in found])}",
                    hint="stop them first; nothing was deleted",
                )
    await tx.hosts.delete([host.id for host in hosts])
    for host in hosts:
        await tx.log.append(by=by, what="host del", object=f"host {host.id}", was=host.name)
    return len(hosts)


async def block(tx: Tx, hosts: Sequence[Host], *, blocked: bool, by: str) -> int:
    """Keep new clients and new runs from nodes, or let them in again; what runs goes on.

    Returns for how many this is new.
    """
    changed: list[HostId] = await tx.hosts.block([host.id for host in hosts], blocked=blocked)
    for host_id in changed:
        await tx.log.append(by=by, what="host block" if blocked else "host unblock", object=f"host {host_id}")
    return len(changed)


def _is_alive(tx: Tx, host: Host) -> bool:
    if host.state in (HostState.STOPPED, HostState.LOST) or host.ok_ts is None:
        return False
    return tx.at - host.ok_ts < SIGN_OF_LIFE


def _check_address(address: str) -> None:
    try:
        ip_address(address)
    except ValueError:
        if not NAME.fullmatch(address) or address.replace(".", "").isdigit():
            raise UsageError(
                f"address={address}: this is no address", hint="write an IP address or a host name"
            ) from None
