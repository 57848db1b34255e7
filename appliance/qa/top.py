"""`qa vm top` and `qa host top`: one look at what desktops and host use now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance import config
from appliance.model import Vm, VmState
from appliance.qa.context import Context
from appliance.qa.output import MIB, Column, Json
from appliance.qa.verbs import Given, Verb

if TYPE_CHECKING:
    from appliance.qa.samples import HostUse, Round

LOOK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VmLine:
    """What one desktop uses; None: it does not run here, or not since a second ago."""

    vm: Vm
    cpu_percent: float | None
    """100 is one core."""
    memory_bytes: int | None
    memory_limit_bytes: int


@dataclass(frozen=True, slots=True)
class HostLine:
    """What a host uses."""

    name: str
    use: HostUse


VM_COLUMNS: tuple[Column[VmLine], ...] = (
    Column("Id", lambda line: line.vm.id),
    Column("Name", lambda line: line.vm.name),
    Column("User", lambda line: line.vm.user),
    Column("State", lambda line: line.vm.runtime.vm_state),
    Column("CPU %", lambda line: line.cpu_percent),
    Column("Memory MiB", lambda line: mib(line.memory_bytes)),
    Column("Limit MiB", lambda line: mib(line.memory_limit_bytes)),
)

HOST_COLUMNS: tuple[Column[HostLine], ...] = (
    Column("Name", lambda line: line.name),
    Column("CPU %", lambda line: percent(line.use.cpu)),
    Column("Cores", lambda line: line.use.cores),
    Column("Load", lambda line: round(line.use.load, 2)),
    Column("Memory MiB", lambda line: mib(line.use.memory_bytes)),
    Column("of", lambda line: mib(line.use.memory_total_bytes)),
    Column("Pool MiB", lambda line: mib(line.use.pool_bytes)),
    Column("of", lambda line: mib(line.use.pool_total_bytes)),
)


def mib(size: int | None) -> int | None:
    """Bytes as people count memory."""
    return None if size is None else round(size / MIB)


def percent(share: float | None) -> float | None:
    """A share as people say it."""
    return None if share is None else round(100 * share, 1)


def plain_vm(line: VmLine) -> Mapping[str, Json]:
    """What a desktop uses, for programs."""
    return {
        "id": line.vm.id,
        "name": line.vm.name,
        "user": line.vm.user,
        "vm_state": line.vm.runtime.vm_state,
        "cpu_percent": line.cpu_percent,
        "memory_bytes": line.memory_bytes,
        "memory_limit_bytes": line.memory_limit_bytes,
    }


def plain_host(line: HostLine) -> Mapping[str, Json]:
    """What a host uses, for programs."""
    use = line.use
    return {
        "name": line.name,
        "cpu_percent": percent(use.cpu),
        "cores": use.cores,
        "load": round(use.load, 2),
        "memory_bytes": use.memory_bytes,
        "memory_total_bytes": use.memory_total_bytes,
        "pool_bytes": use.pool_bytes,
        "pool_total_bytes": use.pool_total_bytes,
    }


def busiest_first(line: VmLine) -> tuple[float, int, str]:
    """Where a desktop stands in the list."""
    return -(line.cpu_percent or 0), -(line.memory_bytes or 0), line.vm.name


async def vm_top(context: Context, given: Given) -> None:
    """`qa vm top`."""
    async with context.database() as store, store.read() as tx:
        found = [vm for vm in await tx.vms.find(context.filter) if vm.runtime.vm_state is not VmState.STOPPED]
        limits = {osf.id: osf.memory_mib * MIB for osf in await tx.osfs.find()}
    look = await look_twice(context)
    lines = []
    for vm in found:
        cores, memory_bytes = look.vms.get(vm.id, (None, None))
        lines.append(
            VmLine(
                vm=vm,
                cpu_percent=percent(cores),
                memory_bytes=memory_bytes,
                memory_limit_bytes=limits[vm.osf_id],
            )
        )
    context.show(VM_COLUMNS, sorted(lines, key=busiest_first), plain_vm)


async def host_top(context: Context, given: Given) -> None:
    """`qa host top`."""
    async with context.database():
        here = context.settings[config.NODENAME]
    look = await look_twice(context, vms=())
    context.show(HOST_COLUMNS, [HostLine(here, look.host)], plain_host)


async def look_twice(context: Context, *, vms: Collection[int] | None = None) -> Round:
    """A round that knows rates: the second one, a second later, or the first if others watch the same.

    It is of the host and all desktops, or of `vms`.

    :raises DaemonDownError: the daemon does not run
    """
    from appliance.qa.samples import samples
    from appliance.storage.paths import Paths

    async with aclosing(samples(Paths(context.settings).control, every_s=LOOK_S, vms=vms)) as rounds:
        is_first = True
        async for look in rounds:
            if not is_first or None not in (look.host.cpu, *(cores for cores, _ in look.vms.values())):
                return look
            is_first = False
    raise AssertionError("samples end by an error only")


VM_TOP = Verb(
    "top",
    "Shows what desktops that are not stopped use now, the busiest first; 100 % CPU is one core.",
    vm_top,
    filters=True,
    examples=("qa vm top", "qa vm top -f user=alice -o json"),
)
HOST_TOP = Verb(
    "top",
    "Shows what this host uses now: processors, memory and pool; 100 % CPU is all cores.",
    host_top,
    examples=("qa host top", "qa host top -o json"),
)
