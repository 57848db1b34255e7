"""`qa osf`: the operating system flavours, and what their VMs get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from appliance import config, scalars
from appliance.model import IO_WEIGHT_MOST, IO_WEIGHT_UNSAID, BackendKind, Host, Osf
from appliance.ops import osfs
from appliance.qa import osf_ageing
from appliance.qa.context import Context
from appliance.qa.output import MIB, Column, Json, yes_no
from appliance.qa.subject import Subject, property_verbs, show_verb
from appliance.qa.verbs import Argument, Given, Verb
from appliance.scalars import mib
from appliance.storage.properties import Owner

E = TypeVar("E", bound=StrEnum)
LIBVIRT_SOCKET = "/run/libvirt/libvirt-sock"

COLUMNS: tuple[Column[Osf], ...] = (
    Column("Id", lambda osf: osf.id),
    Column("Name", lambda osf: osf.name),
    Column("RAM", lambda osf: osf.memory_mib),
    Column("Overlay", lambda osf: yes_no(osf.use_overlay)),
    Column("UserHD", lambda osf: osf.user_storage_mib),
    Column("CPUs", lambda osf: osf.cpus),
    Column("Backend", lambda osf: osf.backend),
)


def plain(osf: Osf) -> Mapping[str, Json]:
    """An OSF for programs."""
    return {
        "id": osf.id,
        "name": osf.name,
        "memory_bytes": osf.memory_mib * MIB,
        "cpus": osf.cpus,
        "use_overlay": osf.use_overlay,
        "user_storage_size_bytes": None if osf.user_storage_mib is None else osf.user_storage_mib * MIB,
        "backend": osf.backend,
        "processes": osf.processes,
        "root_size_bytes": None if osf.root_mib is None else osf.root_mib * MIB,
        "io_weight": osf.io_weight,
        **osf_ageing.plain(osf.ageing),
    }


def one_of(words: type[E]) -> Callable[[str], E]:
    """A reader of one of the words of an enumeration."""

    def parse(text: str) -> E:
        try:
            return words(text.lower())
        except ValueError:
            raise ValueError(f"one of {', '.join(words)}") from None

    return parse


def optional_mib(text: str) -> int | None:
    """A size, or nothing for no limit."""
    return mib(text) if text not in ("", "no", "0") else None


def optional_count(text: str) -> int | None:
    """A whole number from 1 upwards, or nothing for the default."""
    return scalars.count(text) if text not in ("", "no", "0") else None


def optional_cpus(text: str) -> float | None:
    """A number of processors, or nothing for no limit."""
    if text in ("", "no", "0"):
        return None
    number = float(text)
    if not 0 < number <= 4096:
        raise ValueError("write a number of processors, such as 2 or 0.5; no for no limit")
    return number


def optional_weight(text: str) -> int | None:
    """A weight, or nothing for that of everybody."""
    if text in ("", "no", "0"):
        return None
    if text.isascii() and text.isdigit() and 1 <= int(text) <= IO_WEIGHT_MOST:
        return int(text)
    raise ValueError(f"write a number from 1 to {IO_WEIGHT_MOST}; no for {IO_WEIGHT_UNSAID}, as all others")


def by_default(key: config.Key[Any]) -> str:
    """What holds when an argument is not given: the setting, and what it is unless somebody set it."""
    return f"default {key.name} ({key.default} unless set)"


POLICY = (
    Argument(
        "memory",
        f"memory of each VM in MiB, or with k m g t; {by_default(config.OSF_DEFAULT_MEMORY)}",
        mib,
        shape="SIZE",
    ),
    Argument(
        "cpus", "processors of each VM, such as 2 or 0.5; default no limit", optional_cpus, shape="NUMBER"
    ),
    Argument(
        "use_overlay",
        f"whether a VM's root is thrown away; {by_default(config.OSF_DEFAULT_OVERLAY)}",
        scalars.boolean,
        shape="yes|no",
    ),
    Argument(
        "user_storage_size",
        "limit of each home in MiB, or with k m g t; default no limit, and no home disk under kvm",
        optional_mib,
        shape="SIZE",
    ),
    Argument(
        "processes",
        f"processes and threads of each VM; {by_default(config.OSF_DEFAULT_PROCESSES)}",
        optional_count,
        shape="NUMBER",
    ),
    Argument(
        "root_size",
        "how much each VM may write into its root, in MiB or with k m g t; under kvm how large its root is; "
        + by_default(config.OSF_DEFAULT_ROOT),
        optional_mib,
        shape="SIZE",
    ),
    Argument(
        "io_weight",
        f"how much each VM gets of a busy disk, 1 to {IO_WEIGHT_MOST}; default {IO_WEIGHT_UNSAID}",
        optional_weight,
        shape="NUMBER",
    ),
    Argument(
        "backend",
        f"lxc, kvm or nothing; {by_default(config.VM_HYPERVISOR)}",
        one_of(BackendKind),
        shape="KIND",
    ),
    *osf_ageing.ARGUMENTS,
)


async def add(context: Context, given: Given) -> None:
    """`qa osf add`."""
    async with context.database() as store:
        settings = context.settings
        async with store.write() as tx:
            osf = await osfs.add(
                tx,
                name=given["name"],
                memory_mib=given.get("memory", settings[config.OSF_DEFAULT_MEMORY]),
                cpus=given.get("cpus"),
                use_overlay=given.get("use_overlay", settings[config.OSF_DEFAULT_OVERLAY]),
                user_storage_mib=given.get("user_storage_size"),
                processes=given.get("processes"),
                root_mib=given.get("root_size"),
                io_weight=given.get("io_weight"),
                ageing=osf_ageing.policy(given.values),
                backend=given.get("backend") or context.settings[config.VM_HYPERVISOR],
                by=context.by,
            )
            hosts = await tx.hosts.find()
    context.added("OSF", plain(osf))
    _warn(context, osf, hosts)


def _warn(context: Context, osf: Osf, hosts: Sequence[Host]) -> None:
    """Tell what an administrator may not have meant."""
    if osf.user_storage_mib is None and osf.backend is BackendKind.KVM:
        context.note(f"Warning: VMs of {osf.name} get no home disk: set user_storage_size=")
    elif osf.user_storage_mib is None and osf.backend is not BackendKind.NOTHING:
        context.note(f"Warning: homes of {osf.name} have no limit: set user_storage_size=")
    if osf.backend is BackendKind.KVM and not _libvirtd_listens(context.settings[config.KVM_URI]):
        context.note(
            "Warning: no libvirtd is seen on this host, and VMs of "
            f"{osf.name} need one where they run: run scripts/setup, then systemctl enable --now libvirtd"
        )
    has = max((osfs.memory_mib(host.usable_ram or 0) for host in hosts), default=0.0)
    if 0 < has < osf.memory_mib:
        context.note(
            f"Warning: a VM may use {osf.memory_mib} MiB of memory, and no host has more than {has:.0f}"
        )


def _libvirtd_listens(uri: str) -> bool:
    """Whether the socket of a libvirtd of this host is there; of others nothing is known."""
    parts = urlsplit(uri)
    if parts.scheme != "qemu" or parts.netloc:
        return True
    return Path(parse_qs(parts.query).get("socket", [LIBVIRT_SOCKET])[0]).exists()


async def list_(context: Context, given: Given) -> None:
    """`qa osf list`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.osfs.find(context.filter)
    context.show(COLUMNS, found, plain)


async def edit(context: Context, given: Given) -> None:
    """`qa osf edit`."""
    async with context.database() as store, store.write() as tx:
        found = await tx.osfs.find(context.filter)
        edited = await osfs.edit(tx, found, osf_ageing.columns(given.values), by=context.by)
        after = [await tx.osfs.get(osf.id) for osf in found]
        hosts = await tx.hosts.find()
    context.say(f"Edited {edited} OSFs.")
    context.note_if_nothing(edited)
    for osf in after:
        _warn(context, osf, hosts)


async def delete(context: Context, given: Given) -> None:
    """`qa osf del`."""
    async with context.database() as store, store.write() as tx:
        deleted = await osfs.delete(tx, await tx.osfs.find(context.filter), by=context.by)
    context.say(f"Deleting {deleted} osf(s)\n{deleted} OSFs deleted.")
    context.note_if_nothing(deleted)


NAME = Argument("name", "how it is called")

SUBJECT = Subject(
    Owner.OSF,
    "OSFs",
    lambda tx, filter_: tx.osfs.find(filter_),
    lambda osf: osf.name,
    plain,
    "name=office",
)

VERBS = (
    Verb(
        "add",
        "Adds an OSF.",
        add,
        arguments=(Argument("name", NAME.doc, required=True), *POLICY),
        examples=("qa osf add name=office memory=2g cpus=2 user_storage_size=20g",),
    ),
    Verb("list", "Lists OSFs.", list_, filters=True, examples=("qa osf list -o json",)),
    Verb(
        "edit",
        "Changes OSFs; their VMs follow at their next start.",
        edit,
        arguments=(NAME, *POLICY),
        any_of=tuple(argument.name for argument in (NAME, *POLICY)),
        filters=True,
        rehearsable=True,
        confirm="edit all OSFs",
        examples=("qa osf edit memory=4g -f name=office",),
    ),
    Verb(
        "del",
        "Deletes OSFs that have neither VMs nor DIs.",
        delete,
        filters=True,
        rehearsable=True,
        confirm="delete all osfs",
        examples=("qa osf del -f name=office",),
    ),
    show_verb(SUBJECT),
    *property_verbs(SUBJECT),
)
