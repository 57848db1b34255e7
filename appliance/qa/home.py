"""`qa home`: homes and their snapshots, and how to get one back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from appliance.model import Di, DiId, Kept, KeptKind, VmId
from appliance.ops import home_snapshots, kept
from appliance.ops.home_snapshots import Home
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, local_time
from appliance.qa.verbs import WHOLE, Argument, Given, Verb
from appliance.storage.store import Store, Tx

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A home as it is now, or a snapshot of it."""

    home: Home
    snapshot: Kept | None
    dis: Mapping[DiId, Di]

    @property
    def at(self) -> datetime | None:
        return self.snapshot.at if self.snapshot else None

    @property
    def di_id(self) -> DiId | None:
        """The image with which it was used last."""
        return self.snapshot.from_di_id if self.snapshot else self.home.used_with

    @property
    def next_di_id(self) -> DiId | None:
        """The image for which the snapshot was taken."""
        return self.snapshot.to_di_id if self.snapshot else None

    @property
    def is_restorable(self) -> bool:
        return self.snapshot is not None and home_snapshots.may_be_restored(self.snapshot, self.home.vm)

    @property
    def size_bytes(self) -> int | None:
        return kept.size_bytes(self.snapshot) if self.snapshot else home_snapshots.size_bytes(self.home)

    def version(self, di_id: DiId | None) -> str | None:
        """An image for people; its number, if it is deleted."""
        if di_id is None:
            return None
        return self.dis[di_id].version if di_id in self.dis else f"number {di_id}"


COLUMNS: tuple[Column[Line], ...] = (
    Column("VM", lambda line: line.home.vm.name),
    Column("Owner", lambda line: line.snapshot.owner if line.snapshot else line.home.vm.user),
    Column("Snapshot", lambda line: line.snapshot.id if line.snapshot else None),
    Column("When", lambda line: local_time(line.at) if line.snapshot else "now"),
    Column("Image", lambda line: line.version(line.di_id)),
    Column("For image", lambda line: line.version(line.next_di_id)),
    Column("MiB", lambda line: None if line.size_bytes is None else -(-line.size_bytes // MIB)),
    Column("Reason", lambda line: line.snapshot.reason if line.snapshot else None),
)


def plain(line: Line) -> Mapping[str, Json]:
    """A home or a snapshot for programs."""
    vm, snapshot = line.home.vm, line.snapshot
    return {
        "vm_id": vm.id,
        "vm": vm.name,
        "user": vm.user,
        "snapshot": snapshot.id if snapshot else None,
        "at": instant(line.at),
        "di_id": line.di_id,
        "di": line.version(line.di_id),
        "next_di_id": line.next_di_id,
        "next_di": line.version(line.next_di_id),
        "owner": snapshot.owner if snapshot else vm.user,
        "reason": snapshot.reason if snapshot else None,
        "until": instant(snapshot.until) if snapshot else None,
        "restorable": line.is_restorable,
        "path": snapshot.path if snapshot else str(line.home.path),
        "size_bytes": line.size_bytes,
    }


async def list_(context: Context, given: Given) -> None:
    """`qa home list`."""
    async with context.database() as store:
        lines = await _lines(context, store)
    context.show(COLUMNS, lines, plain)


async def snapshot(context: Context, given: Given) -> None:
    """`qa home snapshot`."""
    async with context.database() as store:
        async with store.read() as tx:
            vms = await tx.vms.find(context.filter)
        taken = await home_snapshots.by_hand(store, context.settings, vms, by=context.by)
        context.changed = bool(taken)
    context.say(f"Kept {len(taken)} homes as they are.")
    context.note_if_nothing(len(vms))


async def restore(context: Context, given: Given) -> None:
    """`qa home restore`."""
    name, number = given["vm"], given["snapshot"]
    if not context.confirmed(f"put the home of {name} back as it is in snapshot {number}"):
        context.note("Nothing was done.")
        return
    async with context.database() as store:
        done = await home_snapshots.restore(
            store,
            context.settings,
            name,
            number,
            by=context.by,
            report=lambda vm: context.note(f"home of {vm} …"),
        )
        context.changed = True
    context.say(f"The home of {name} is as it was on {local_time(done.snapshot.at)}.")
    if done.undo is not None:
        context.note(f"To undo this: qa home restore vm={name} snapshot={done.undo.id}")


async def _lines(context: Context, store: Store) -> list[Line]:
    async with store.read() as tx:
        vms = await tx.vms.find(context.filter)
        dis = {di.id: di for di in await tx.images.find()}
        snapshots = await _snapshots(tx, [vm.id for vm in vms])
    return [
        Line(home=home, snapshot=one, dis=dis)
        for home in home_snapshots.find(context.settings, vms)
        for one in (None, *(one for one in snapshots if one.vm_id == home.vm.id))
    ]


async def _snapshots(tx: Tx, vm_ids: Sequence[VmId]) -> list[Kept]:
    from appliance.filters import Filter

    chosen = set(vm_ids)
    found = await tx.kept.find(Filter.where(kind=KeptKind.SNAPSHOT))
    return [one for one in found if one.vm_id in chosen and not one.is_given_up]


def _number(text: str) -> int:
    if not WHOLE.fullmatch(text) or int(text) < 1:
        raise ValueError("write its number: qa home list")
    return int(text)


VERBS = (
    Verb(
        "list",
        "Lists homes and their snapshots: when, from which image to which.",
        list_,
        filters=True,
        examples=("qa home list", "qa home list -f vm=web-1 -o json"),
    ),
    Verb(
        "snapshot",
        "Keeps the homes of stopped VMs as they are now; of each VM, storage.homes.snapshots are kept.",
        snapshot,
        filters=True,
        confirm="keep all homes as they are now, and let the oldest snapshots go",
        examples=("qa home snapshot -f vm=web-1",),
    ),
    Verb(
        "restore",
        "Puts the home of a stopped VM back as it was; what is there now is kept as a snapshot first.",
        restore,
        arguments=(
            Argument("vm", "the name of the VM", required=True),
            Argument("snapshot", "the number of the snapshot", _number, required=True, shape="N"),
        ),
        examples=("qa home restore vm=web-1 snapshot=7 --yes",),
    ),
)
