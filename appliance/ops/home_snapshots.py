"""Snapshots of homes: taken before a VM changes its image, listed, and put back.

The row comes before the snapshot, and is written again after it: what no row tells of would be nobody's. A
snapshot is not taken where the newest one shows the home as it is, so a start that is repeated takes one.

A snapshot belongs to whoever owned the VM when it was taken. In other hands it cannot be put back, and goes
after the days for which the home of a deleted VM is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from appliance import config
from appliance.config import Settings
from appliance.errors import ApplianceError, ConflictError, NotFoundError
from appliance.filters import Filter
from appliance.model import NO_DI, BackendKind, DiId, InstallationId, Kept, KeptKind, Mark, User, Vm, VmId
from appliance.ops import handover, kept
from appliance.storage import homes, marks, root_lock
from appliance.storage.homes import Account
from appliance.storage.paths import Paths
from appliance.storage.root_lock import HeldError
from appliance.storage.store import Store, Tx
from appliance.threads import in_thread

IMAGE_CHANGES = "the image changed"
RESTORED = "before a restore"
BY_HAND = "by hand"


class Copier(Protocol):
    """What can keep the homes of one kind of VM."""

    async def home_used_with(self, mark: Mark) -> DiId | None: ...

    def home_aside(self, vm_id: VmId, at: datetime) -> Path | None: ...

    async def snapshot_home(self, mark: Mark, path: Path) -> bool: ...

    async def is_home_as_in(self, mark: Mark, path: Path) -> bool: ...


class Restorer(Copier, Protocol):
    """What can put them back, too."""

    async def restore_home(self, mark: Mark, path: Path, change: Callable[[Path], object]) -> None: ...


@dataclass(frozen=True, slots=True)
class Home:
    """The home of a VM."""

    vm: Vm
    path: Path
    used_with: DiId | None
    """The DI with which it was used last, if we may ask."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A home that was put back."""

    vm: Vm
    snapshot: Kept
    undo: Kept | None
    """The snapshot of what was there before, if there was anything."""


async def before_image(store: Store, disks: Copier, mark: Mark, *, most: int) -> None:
    """Keep the home of the mark's VM as it is, if it was last used with another DI than the mark's.

    `most` are kept of each VM; 0: none is taken. What cannot be kept, as its file system shares no blocks, is
    not kept. One that could be and fails (as when the pool is full) fails the start, which waits and is tried
    again as for any fault of the host: the root is a snapshot of the same pool and fares no better, and an
    image that nobody has tried must not get at the only copy of a home.

    :raises VolumeError: it cannot be kept
    """
    if not most:
        return
    used_with = await disks.home_used_with(mark)
    if used_with is None or used_with == mark.di_id:
        return
    taken = await take(store, disks, mark, used_with, to_di_id=mark.di_id, reason=IMAGE_CHANGES)
    if taken is not None:
        await prune(store, mark.vm_id, most)


async def take(
    store: Store, disks: Copier, mark: Mark, used_with: DiId, *, to_di_id: DiId | None, reason: str
) -> Kept | None:
    """A snapshot of the home of the mark's VM as it is: new, or the newest if that shows it so already.

    None if there is nothing that could be kept.

    :raises VolumeError: it cannot be taken
    """
    async with store.read() as tx:
        taken = await tx.kept.snapshots(mark.vm_id)
    there = await in_thread(_existing, taken)
    newest = there[-1] if there else None
    if newest and newest.from_di_id == used_with and await disks.is_home_as_in(mark, Path(newest.path)):
        if to_di_id is not None:
            async with store.write() as tx:
                await tx.kept.serve(newest.id, to_di_id)
        return newest
    async with store.write() as tx:
        await tx.kept.forget([snapshot.id for snapshot in taken if snapshot not in there])
        path = disks.home_aside(mark.vm_id, tx.at)
        if path is None:
            return None
        await _row(tx, mark, path, used_with, to_di_id, reason)
    try:
        made = await disks.snapshot_home(mark, path)
    except ApplianceError:
        await _forget(store, path)
        raise
    if not made:
        await _forget(store, path)
        return None
    async with store.write() as tx:
        # A survey in between would have taken the row for one whose thing is gone.
        return await _row(tx, mark, path, used_with, to_di_id, reason)


async def prune(store: Store, vm_id: VmId, most: int) -> None:
    """Let the oldest snapshots of a VM's home go, so that there are `most`; the daemon removes them."""
    async with store.read() as tx:
        taken = await tx.kept.snapshots(vm_id)
    if old := taken[: max(0, len(taken) - most)]:
        async with store.write() as tx:
            await tx.kept.end_now([snapshot.id for snapshot in old])


async def by_hand(store: Store, settings: Settings, vms: Sequence[Vm], *, by: str) -> list[Kept]:
    """Keep the homes of stopped VMs as they are, of those that have one.

    :raises ConflictError: one of them is not stopped, or somebody works on its files
    :raises VolumeError: a snapshot cannot be taken; what is done is done
    """
    async with store.read() as tx:
        installation = await tx.settings.installation()
    for vm in vms:
        handover.check_stopped(vm, "can have their homes kept or put back")
    found = []
    for vm in vms:
        disks, mark = restorer(settings, installation, vm), _mark(installation, vm)
        if disks is None:
            continue
        with _held(settings, vm):
            used_with = await disks.home_used_with(mark)
            if used_with is None:
                continue
            snapshot = await take(store, disks, mark, used_with, to_di_id=None, reason=BY_HAND)
        if snapshot is None:
            raise ConflictError(
                f"no snapshot of the home of {vm.name}: its file system cannot share blocks",
                hint="put path.storage.homes on btrfs, or copy the home while the VM is stopped",
            )
        await prune(store, vm.id, max(1, settings[config.HOME_SNAPSHOTS]))
        async with store.write() as tx:
            await tx.log.append(by=by, what="home snapshot", object=f"vm {vm.id}", now=snapshot.path[:1000])
        found.append(snapshot)
    return found


async def restore(
    store: Store, settings: Settings, name: str, snapshot_id: int, *, by: str, report: handover.Report
) -> Restored:
    """Put the home of a stopped VM back as it was in one of its snapshots, all at once.

    What is there now is kept as a snapshot first, and so a restore can be undone. Killed at any point, the
    home is the old one or the new one, whole.

    :raises NotFoundError: there is no such VM, or no such snapshot of its home
    :raises ConflictError: the VM is not stopped, or the snapshot is of the home of an earlier owner
    :raises VolumeError: it cannot be done; the home is as it was
    """
    await handover.finish(store, settings, report=report)
    async with store.read() as tx:
        installation = await tx.settings.installation()
        vm = await tx.vms.by_name(name)
    if vm is None:
        raise NotFoundError(f"there is no VM {name!r}", hint="qa vm list")
    disks, mark = restorer(settings, installation, vm), _mark(installation, vm)
    if disks is None:
        raise ConflictError(f"the home of {vm.name} is not kept here", hint=f"its backend is {vm.backend}")
    handover.check_stopped(vm, "can have their homes kept or put back")
    with _held(settings, vm):
        async with store.read() as tx:
            vm, owner = await tx.vms.get(vm.id), await tx.users.get(vm.user_id)
            snapshot = chosen(await tx.kept.find(Filter.where(id=snapshot_id)), vm)
        handover.check_stopped(vm, "can have their homes kept or put back")
        used_with, undo = await disks.home_used_with(mark), None
        if used_with is not None:
            undo = await take(store, disks, mark, used_with, to_di_id=snapshot.from_di_id, reason=RESTORED)
            if undo is None:
                raise ConflictError(f"the home of {vm.name} cannot be kept first", hint="nothing was changed")
        await disks.restore_home(mark, Path(snapshot.path), _renamed(snapshot, vm, owner))
        async with store.write() as tx:
            was = None if undo is None else undo.path[:1000]
            await tx.log.append(
                by=by, what="home restore", object=f"vm {vm.id}", was=was, now=snapshot.path[:1000]
            )
    await prune(store, vm.id, max(1, settings[config.HOME_SNAPSHOTS]))
    return Restored(vm, snapshot, undo)


def chosen(found: Sequence[Kept], vm: Vm) -> Kept:
    """The snapshot that was asked for, if it may be put back as the home of `vm`.

    :raises NotFoundError: there is no such snapshot of this VM's home
    :raises ConflictError: it is of the home of an earlier owner, or about to be removed
    """
    ours = [one for one in found if one.kind is KeptKind.SNAPSHOT and one.vm_id == vm.id]
    if not ours or not Path(ours[0].path).exists():
        raise NotFoundError(
            f"the home of {vm.name} has no such snapshot", hint=f"qa home list -f vm={vm.name}"
        )
    snapshot = ours[0]
    if snapshot.user_id != vm.user_id:
        raise ConflictError(
            f"snapshot {snapshot.id} is of a home of {snapshot.owner}, not of {vm.user}",
            hint="nobody gets the files of another; nothing was changed",
        )
    if snapshot.is_given_up:
        raise ConflictError(f"snapshot {snapshot.id} is about to be removed", hint="choose another")
    return snapshot


def may_be_restored(snapshot: Kept, vm: Vm) -> bool:
    """Whether a snapshot can be put back as the home of `vm` now."""
    with suppress(ApplianceError):
        return chosen([snapshot], vm) is snapshot
    return False


def find(settings: Settings, vms: Sequence[Vm]) -> list[Home]:
    """The homes that these VMs have."""
    paths = Paths(settings)
    return [Home(vm, path, _used_with(path)) for vm in vms for path in paths.homes_of(vm.id) if path.exists()]


def size_bytes(home: Home) -> int | None:
    """What a home holds, in bytes; None if it is not counted, or we may not ask."""
    from appliance.storage import quotas, subvolumes

    with suppress(OSError):
        if home.path.is_file():
            return home.path.stat().st_blocks * kept.BLOCK
        if subvolumes.is_top(home.path) and (use := quotas.use(home.path, subvolumes.id_of(home.path))):
            return use.referenced
    return None


def restorer(settings: Settings, installation: InstallationId, vm: Vm) -> Restorer | None:
    """What keeps the homes of a VM of this kind; None if nothing does."""
    from appliance.storage.btrfs import BtrfsDisks
    from appliance.storage.qcow2 import Qcow2Disks

    match vm.backend:
        case BackendKind.LXC:
            return BtrfsDisks(Paths(settings), installation)
        case BackendKind.KVM:
            return Qcow2Disks(Paths(settings), installation)
        case _:
            return None


async def _row(tx: Tx, mark: Mark, path: Path, used_with: DiId, to_di_id: DiId | None, reason: str) -> Kept:
    vm = await tx.vms.get(mark.vm_id)
    await tx.kept.add(
        KeptKind.SNAPSHOT,
        path,
        vm_id=vm.id,
        vm=vm.name,
        owner=vm.user,
        reason=reason,
        until=None,
        user_id=vm.user_id,
        from_di_id=used_with,
        to_di_id=to_di_id,
    )
    return next(one for one in await tx.kept.snapshots(vm.id) if one.path == str(path))


@contextmanager
def _held(settings: Settings, vm: Vm) -> Iterator[None]:
    """Hold the root of a stopped VM, so that no guest starts to use its home."""
    lock = Paths(settings).root_lock(vm.id)
    try:
        with root_lock.locked(lock):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except HeldError as exc:
        raise ConflictError(
            f"{vm.name} runs, or somebody else works on it: {exc.message}",
            hint="stop it first; nothing was changed",
        ) from exc


def _renamed(snapshot: Kept, vm: Vm, owner: User) -> Callable[[Path], object]:
    """What makes the home of a user who has another login now theirs again."""
    if snapshot.owner == vm.user:
        return lambda home: None
    if vm.backend is not BackendKind.LXC:
        raise ConflictError(
            f"snapshot {snapshot.id} is of the time when {vm.user} was {snapshot.owner}, and only its guest"
            " can open it",
            hint="nothing was changed",
        )
    old, new = Account(snapshot.owner, owner.uid, owner.gid), Account(vm.user, owner.uid, owner.gid)
    return lambda home: homes.pass_on(home, old, new)


def _mark(installation: InstallationId, vm: Vm) -> Mark:
    return Mark(installation=installation, vm_id=vm.id, vm_uuid=vm.uuid, di_id=NO_DI)


async def _forget(store: Store, path: Path) -> None:
    async with store.write() as tx:
        await tx.kept.forget_path(path)


def _existing(snapshots: Sequence[Kept]) -> list[Kept]:
    return [snapshot for snapshot in snapshots if Path(snapshot.path).exists()]


def _used_with(path: Path) -> DiId | None:
    with suppress(ApplianceError):
        if (mark := marks.mark_of(path)) is not None:
            return mark.di_id
    return None
