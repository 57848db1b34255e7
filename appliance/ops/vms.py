"""What people do with VMs: add, edit and delete them, and wish them started, stopped or left alone.

Each function works inside the caller's transaction; the caller commits, then rings the bell.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from itertools import islice
from uuid import uuid4

from appliance import config
from appliance.config import Settings
from appliance.errors import ConfigError, ConflictError, UsageError, few
from appliance.model import (
    SUBID_SLOTS,
    TAG_DEFAULT,
    BackendKind,
    BlockCause,
    OsfId,
    StartedBy,
    UserId,
    Vm,
    VmId,
    VmState,
)
from appliance.ops import expiry, failures, kept, osfs
from appliance.storage.operations import Kind
from appliance.storage.store import Tx

HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
EDITABLE = ("name", "di_tag", "ip", "osf")
"""What `edit` may change (trap T43)."""


async def start(tx: Tx, vm_ids: Collection[VmId], *, by: str, started_by: StartedBy) -> int:
    """Wish stopped VMs started; returns how many wishes there are now among them.

    :raises ConflictError: there is no host that could run them, or a home is on its way to another user
    """
    await _check_home_is_settled(tx, vm_ids)
    asked = await tx.vms.wish_start(vm_ids, started_by)
    if not asked and await tx.vms.without_host(vm_ids):
        raise ConflictError("no host may start VMs", hint="qa host list shows which are blocked")
    await _note(tx, asked, by=by, what="vm start")
    return len(asked)


async def stop(tx: Tx, vm_ids: Collection[VmId], *, by: str, restart: bool = False) -> int:
    """Wish VMs stopped, or with `restart` stopped and started again; returns how many were concerned."""
    asked = await tx.vms.wish_stop(vm_ids, restart=restart)
    await _note(tx, asked, by=by, what="vm restart" if restart else "vm stop")
    return len(asked)


async def disconnect(tx: Tx, vm_ids: Collection[VmId], *, by: str) -> int:
    """Wish the sessions of VMs ended; returns how many there were."""
    asked = await tx.vms.wish_disconnect(vm_ids)
    await _note(tx, asked, by=by, what="vm disconnect_user")
    return len(asked)


async def block(tx: Tx, vm_ids: Collection[VmId], *, by: str) -> int:
    """Keep users out of VMs until somebody unblocks them; returns how many were not blocked so before."""
    blocked = await tx.runtimes.block(vm_ids, BlockCause.ADMIN)
    await _note(tx, blocked, by=by, what="vm block")
    await failures.end_image_alarms(tx)
    return len(blocked)


async def unblock(tx: Tx, vm_ids: Collection[VmId], *, by: str) -> int:
    """Let users in again, whoever or whatever blocked the VMs; returns how many were blocked.

    What was counted against their images is forgotten: each has its two attempts again.
    """
    unblocked = await tx.runtimes.unblock(vm_ids)
    await _note(tx, unblocked, by=by, what="vm unblock")
    await failures.end_image_alarms(tx)
    return len(unblocked)


async def add(
    tx: Tx,
    settings: Settings,
    *,
    name: str,
    user_id: UserId,
    osf_id: OsfId,
    ip: IPv4Address | None = None,
    di_tag: str = TAG_DEFAULT,
    by: str,
) -> Vm:
    """A new VM: stopped, with an address and a range of host ids of its own.

    :raises UsageError: the name is no host name, or the address cannot be a guest's
    :raises ConflictError: name or address are taken, or none is left
    """
    taken = await tx.vms.addresses()
    ours = (await tx.osfs.get(osf_id)).backend is not BackendKind.NOTHING
    address = free_address(settings, taken) if ip is None else _checked_address(settings, ip, taken, ours)
    slot = next(_free_slots(await tx.vms.subid_slots()))
    vm_id = await _add(
        tx, name, user_id=user_id, osf_id=osf_id, di_tag=di_tag, address=address, slot=slot, by=by
    )
    return await tx.vms.get(vm_id)


async def add_several(
    tx: Tx,
    settings: Settings,
    number: int,
    *,
    name: str,
    user_id: UserId,
    osf_id: OsfId,
    di_tag: str = TAG_DEFAULT,
    by: str,
) -> list[Vm]:
    """New VMs `<name>-0` to `<name>-<number - 1>`, all or none.

    :raises UsageError: a name is no host name
    :raises ConflictError: a name is taken, or there are fewer addresses left than VMs wanted
    """
    addresses = list(islice(_free_addresses(settings, await tx.vms.addresses()), number))
    if len(addresses) < number:
        first, last = _bounds(settings)
        raise ConflictError(
            f"{number} VMs need {number} addresses, and of {first} to {last} only {len(addresses)} are free",
            hint="delete VMs, or widen vm.network.netmask or vm.network.ip.start",
        )
    free = Room(settings, iter(addresses), _free_slots(await tx.vms.subid_slots()))
    made = {
        await add_in(tx, free, name=f"{name}-{place}", user_id=user_id, osf_id=osf_id, di_tag=di_tag, by=by)
        for place in range(number)
    }
    return [vm for vm in await tx.vms.find() if vm.id in made]


@dataclass(frozen=True, slots=True)
class Room:
    """What is free for new VMs, looked up once for many of them."""

    settings: Settings
    addresses: Iterator[IPv4Address]
    slots: Iterator[int]


async def room(tx: Tx, settings: Settings) -> Room:
    """What is free in this transaction; what `add_in` takes of it is not given twice."""
    addresses = _free_addresses(settings, await tx.vms.addresses())
    return Room(settings, addresses, _free_slots(await tx.vms.subid_slots()))


async def add_in(
    tx: Tx, free: Room, *, name: str, user_id: UserId, osf_id: OsfId, di_tag: str, by: str
) -> VmId:
    """A new VM in a room: as `add`, but quick enough to be called a thousand times in a transaction.

    :raises UsageError: the name is no host name
    :raises ConflictError: the name is taken, or no address is left
    """
    address = next(free.addresses, None)
    if address is None:
        raise _no_address(free.settings)
    slot = next(free.slots)
    return await _add(
        tx, name, user_id=user_id, osf_id=osf_id, di_tag=di_tag, address=address, slot=slot, by=by
    )


async def _add(
    tx: Tx,
    name: str,
    *,
    user_id: UserId,
    osf_id: OsfId,
    di_tag: str,
    address: IPv4Address,
    slot: int,
    by: str,
) -> VmId:
    _check_name(name)
    await _check_name_is_free(tx, name)
    vm_id = await tx.vms.add(
        uuid=str(uuid4()),
        name=name,
        user_id=user_id,
        osf_id=osf_id,
        di_tag=_checked_tag(di_tag),
        ip=str(address),
        subid_slot=slot,
    )
    await tx.log.append(by=by, what="vm add", object=f"vm {vm_id}", now=name)
    return vm_id


async def edit(tx: Tx, settings: Settings, vms: Sequence[Vm], changes: Mapping[str, str], *, by: str) -> int:
    """Change the settings of VMs, all or none; returns how many.

    :raises UsageError: a new value is not valid
    :raises NotFoundError: there is no such OSF
    :raises ConflictError: a name or address is taken; or address or OSF of a VM that runs would change
    """
    columns: dict[str, object] = {}
    if len(vms) > 1 and (unique := [key for key in ("name", "ip") if key in changes]):
        raise ConflictError(f"{len(vms)} VMs cannot share one {unique[0]}", hint="choose one VM with -f id=")
    if "name" in changes:
        _check_name(changes["name"])
        if any(vm.name != changes["name"] for vm in vms):
            await _check_name_is_free(tx, changes["name"])
        columns["name"] = changes["name"]
    if "di_tag" in changes:
        columns["di_tag"] = _checked_tag(changes["di_tag"])
    if "ip" in changes:
        for vm in vms:
            columns["ip"] = await _new_address(tx, settings, vm, changes["ip"])
    if "osf" in changes:
        columns["osf_id"] = await _new_osf(tx, vms, changes["osf"])
    if columns:
        await tx.vms.edit([vm.id for vm in vms], columns)
    for vm in vms:
        for key, value in columns.items():
            await tx.log.append(
                by=by, what=f"vm edit {key}", object=f"vm {vm.id}", was=getattr(vm, key), now=str(value)
            )
    await failures.images_changed(tx, by=by)
    await expiry.settle(tx, by=by)
    return len(vms)


async def delete(
    tx: Tx, settings: Settings, vms: Sequence[Vm], *, by: str, purge_home: bool = False
) -> datetime | None:
    """Delete VMs, all or none; their homes are kept for a while, or with `purge_home` go at once.

    Returns until when homes are kept; None if there are none.

    :raises ConflictError: one of them is not stopped, or about to start
    """
    alive = [vm for vm in vms if vm.runtime.vm_state is not VmState.STOPPED or vm.runtime.vm_cmd is not None]
    if alive:
        shown = few([f"{vm.name} ({vm.runtime.vm_cmd or vm.runtime.vm_state})" for vm in alive])
        raise ConflictError(
            f"only stopped VMs can be deleted: {shown}",
            hint="qa vm stop them first; nothing was deleted",
        )
    until = await kept.keep_homes(tx, settings, vms, reason="the VM was deleted", purge=purge_home)
    await tx.vms.delete([vm.id for vm in vms])
    await failures.end_image_alarms(tx)
    await _note(tx, [vm.id for vm in vms], by=by, what="vm del", was={vm.id: vm.name for vm in vms})
    return until


def network(settings: Settings) -> IPv4Network:
    """The network of the guests."""
    gateway = settings[config.NETWORK_GATEWAY]
    return IPv4Network((gateway, settings[config.NETWORK_NETMASK]), strict=False)


def check_network(settings: Settings) -> None:
    """Whether the network of the guests makes sense.

    :raises ConfigError: gateway, netmask and first address contradict one another
    """
    guests, gateway = network(settings), settings[config.NETWORK_GATEWAY]
    if gateway in (guests.network_address, guests.broadcast_address):
        raise ConfigError(f"vm.network.gateway = {gateway} is no host's address in {guests}")
    first, last = settings[config.NETWORK_IP_START], guests.broadcast_address - 1
    if first not in guests or first > last:
        raise ConfigError(f"vm.network.ip.start = {first} is not in {guests}, the network of the gateway")


def free_address(settings: Settings, taken: Collection[str]) -> IPv4Address:
    """The highest address that no VM has.

    :raises ConflictError: there is none
    """
    if address := next(_free_addresses(settings, taken), None):
        return address
    raise _no_address(settings)


def parse_address(text: str) -> IPv4Address:
    """An IPv4 address as people write it.

    :raises UsageError: it is none
    """
    try:
        return IPv4Address(text)
    except AddressValueError as exc:
        raise UsageError(f"ip={text}: this is no IPv4 address") from exc


def _free_addresses(settings: Settings, taken: Collection[str]) -> Iterator[IPv4Address]:
    """Every address that no VM has, the highest first."""
    first, last = _bounds(settings)
    gateway = settings[config.NETWORK_GATEWAY]
    for number in range(int(last), int(first) - 1, -1):
        address = IPv4Address(number)
        if address != gateway and str(address) not in taken:
            yield address


def _no_address(settings: Settings) -> ConflictError:
    first, last = _bounds(settings)
    return ConflictError(
        f"no address is left between {first} and {last}",
        hint="delete VMs, or widen vm.network.netmask or vm.network.ip.start",
    )


def _bounds(settings: Settings) -> tuple[IPv4Address, IPv4Address]:
    guests = network(settings)
    first = max(settings[config.NETWORK_IP_START], guests.network_address + 1)
    return first, guests.broadcast_address - 1


def _checked_address(
    settings: Settings, address: IPv4Address, taken: Mapping[str, str], ours: bool
) -> IPv4Address:
    """An address that a VM may have; a guest that somebody else runs may be anywhere."""
    first, last = _bounds(settings)
    if address == settings[config.NETWORK_GATEWAY]:
        raise UsageError(f"ip={address}: this is the gateway's address (vm.network.gateway)")
    if ours and not first <= address <= last:
        raise UsageError(f"ip={address}: guests have addresses from {first} to {last}")
    if str(address) in taken:
        raise ConflictError(f"ip={address}: the VM {taken[str(address)]} has this address")
    return address


async def _new_osf(tx: Tx, vms: Sequence[Vm], name: str) -> OsfId:
    osf = await osfs.named(tx, name)
    for vm in vms:
        if osf.id == vm.osf_id:
            continue
        if vm.runtime.vm_state is not VmState.STOPPED:
            raise ConflictError(
                f"the OSF of {vm.name} cannot change while it is {vm.runtime.vm_state}", hint="stop it first"
            )
        if osf.backend is not vm.backend:
            raise ConflictError(
                f"{vm.name} runs on {vm.backend}, and the OSF {osf.name} on {osf.backend}",
                hint="the home would not fit: make another VM",
            )
    return osf.id


async def _new_address(tx: Tx, settings: Settings, vm: Vm, text: str) -> str:
    address = parse_address(text)
    if str(address) == vm.ip:
        return str(address)
    if vm.runtime.vm_state is not VmState.STOPPED:
        raise ConflictError(
            f"the address of {vm.name} cannot change while it is {vm.runtime.vm_state}", hint="stop it first"
        )
    ours = vm.backend is not BackendKind.NOTHING
    return str(_checked_address(settings, address, await tx.vms.addresses(), ours))


def _check_name(name: str) -> None:
    if not HOST_NAME.fullmatch(name):
        raise UsageError(
            f"name={name}: this cannot be the guest's host name",
            hint="up to 63 letters, digits and hyphens, no hyphen at either end",
        )


async def _check_name_is_free(tx: Tx, name: str) -> None:
    if await tx.vms.by_name(name) is not None:
        raise ConflictError(f"name={name}: there is a VM of this name")


async def _check_home_is_settled(tx: Tx, vm_ids: Collection[VmId]) -> None:
    """A guest that started now would make its new user a second, empty home."""
    for operation in await tx.operations.unfinished(Kind.VM_GIVE):
        if operation.object_id in vm_ids:
            vm = await tx.vms.get(VmId(operation.object_id))
            raise ConflictError(
                f"the home of {vm.name} is being handed over to {vm.user}",
                hint="if that command was killed, give it again, or restart the daemon: it finishes the work",
            )


def _checked_tag(tag: str) -> str:
    if not tag.strip() or len(tag) > 128 or "," in tag:
        raise UsageError(f"di_tag={tag}: this cannot be a tag", hint="1 to 128 characters without a comma")
    return tag


def _free_slots(taken: set[int]) -> Iterator[int]:
    """Ranges of host ids that no VM has.

    :raises ConflictError: there are no more
    """
    yield from (slot for slot in range(SUBID_SLOTS) if slot not in taken)
    raise ConflictError(f"no range of host ids is left: there are {SUBID_SLOTS} VMs")


async def _note(
    tx: Tx, vm_ids: Collection[VmId], *, by: str, what: str, was: Mapping[VmId, str] | None = None
) -> None:
    for vm_id in vm_ids:
        await tx.log.append(by=by, what=what, object=f"vm {vm_id}", was=(was or {}).get(vm_id))
