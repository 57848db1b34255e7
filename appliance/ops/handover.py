"""Hands desktops and their homes to another account: to another user, or to the same under another login.

Rows first, then files: one transaction says who owns the VM from now on and writes down what is to be
done to its home; then the files follow, under the lock of the VM's root; then the work is marked as done.
Until then the VM cannot start, for a guest would make its user a second, empty home. Whoever is killed in
between leaves the row of the work behind, and `finish` does the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from appliance.config import KEPT_HOME_DAYS, Settings
from appliance.errors import ConflictError, NotFoundError, VolumeError
from appliance.filters import Filter
from appliance.model import BackendKind, DiId, InstallationId, User, UserState, Vm, VmId, VmState
from appliance.ops import users
from appliance.storage import homes, marks, operations, root_lock
from appliance.storage.homes import Account
from appliance.storage.operations import Kind
from appliance.storage.paths import Paths
from appliance.storage.root_lock import HeldError
from appliance.storage.store import Store, Tx
from appliance.threads import in_thread

Report = Callable[[str], None]
"""Told which VM's home is being worked on."""


@dataclass(frozen=True, slots=True)
class Move:
    """What is to be done to the home of one VM."""

    vm: str
    old: Account
    new: Account


@dataclass(frozen=True, slots=True)
class Moved:
    """A VM whose home has followed."""

    vm: str
    kept: int = 0
    """How many files keep their owner, as they are in a read-only snapshot that the user made."""


async def give(
    store: Store, settings: Settings, giver: str, taker: str, vm: str | None, *, by: str, report: Report
) -> list[Moved]:
    """Hand the VM of this name, or all, of one user to another, homes included.

    :raises NotFoundError: there is no such user, or no such VM of theirs
    :raises ConflictError: one of the VMs is not stopped, or its home holds something of the taker's
    :raises VolumeError: a home cannot change hands; the same command goes on where it stopped
    """
    await finish(store, settings, report=report)
    async with store.read() as tx:
        old, new = await users.named(tx, settings, giver), await users.named(tx, settings, taker)
        owned = await tx.vms.find(Filter.where(user_id=old.id))
    if old.id == new.id:
        raise ConflictError(f"{old.login} and {new.login} are the same user")
    chosen = [one for one in owned if vm in (None, one.name)]
    if vm is not None and not chosen:
        raise NotFoundError(f"{old.login} has no VM {vm!r}", hint=f"qa vm list -f user={old.login}")
    move = _account(old), _account(new)
    async with _held(store, settings, chosen, *move):
        async with store.write() as tx:
            await _check_still(tx, chosen, old)
            await _begin(tx, chosen, *move, by=by)
            await tx.vms.edit([one.id for one in chosen], {"user_id": new.id})
            # Snapshots stay with who had the home: for a while, and nobody else gets them back.
            await tx.kept.end_snapshots(
                [one.id for one in chosen], until=tx.at + timedelta(days=settings[KEPT_HOME_DAYS])
            )
            for one in chosen:
                await tx.log.append(
                    by=by, what="user give", object=f"vm {one.id}", was=old.login, now=new.login
                )
        return await _do_all(store, settings, chosen, report)


async def rename(
    store: Store, settings: Settings, user: User, login: str, *, by: str, report: Report
) -> list[Moved]:
    """Give a user, whose VMs are all stopped, another login; the homes follow, the uid stays.

    :raises UsageError: the login cannot be an account name in a guest
    :raises ConflictError: it is taken, a VM of theirs is not stopped, or keeps a root that knows the old one
    :raises VolumeError: a home cannot be renamed; the next command goes on where this one stopped
    """
    stored = users.checked_login(settings, login)
    if stored == user.login:
        return []
    async with store.read() as tx:
        owned = await tx.vms.find(Filter.where(user_id=user.id))
    _check_no_root(settings, owned, user.login)
    move = _account(user), Account(stored, user.uid, user.gid)
    async with _held(store, settings, owned, *move):
        async with store.write() as tx:
            await _check_still(tx, owned, user)
            await users.rename(tx, user, stored, by=by)
            await _begin(tx, owned, *move, by=by)
        return await _do_all(store, settings, owned, report)


async def finish(store: Store, settings: Settings, *, report: Report) -> list[Moved]:
    """Do the rest of what killed commands left.

    What somebody is working on now is left to them.

    :raises VolumeError: a home cannot change hands
    """
    async with store.read() as tx:
        open_moves = await tx.operations.unfinished(Kind.VM_GIVE)
    finished: list[Moved] = []
    for vm_id in dict.fromkeys(VmId(operation.object_id) for operation in open_moves):
        try:
            with root_lock.locked(Paths(settings).root_lock(vm_id)):
                finished += await _do_written(store, settings, vm_id, report)
        except HeldError:
            continue
    return finished


@asynccontextmanager
async def _held(
    store: Store, settings: Settings, vms: Sequence[Vm], old: Account, new: Account
) -> AsyncIterator[None]:
    """Hold the roots of VMs whose homes could go from `old` to `new`.

    :raises ConflictError: one of them runs, or its home holds both
    """
    async with store.read() as tx:
        installation = await tx.settings.installation()
    for vm in vms:
        if Paths(settings).home_disk(vm.id).exists():
            raise ConflictError(
                f"the home of {vm.name} is a disk of its own, which nobody but its guest can open",
                hint=f"let {vm.user} keep it, or delete the VM; nothing was changed",
            )
        check_stopped(vm, "can change hands")
    with _locked(settings, vms):
        for vm in vms:
            home = Paths(settings).homefs(vm.id)
            if vm.backend is BackendKind.LXC and home.exists():
                _check_mark(settings, vm, installation)
                await in_thread(homes.check_free, home, old, new)
        yield


@contextmanager
def _locked(settings: Settings, vms: Sequence[Vm]) -> Iterator[None]:
    with ExitStack() as locks:
        for vm in vms:
            try:
                locks.enter_context(root_lock.locked(Paths(settings).root_lock(vm.id)))
            except HeldError as exc:
                raise ConflictError(
                    f"{vm.name} runs, or somebody else works on it: {exc.message}",
                    hint="stop it first; nothing was changed",
                ) from exc
        yield


async def _check_still(tx: Tx, vms: Sequence[Vm], owner: User) -> None:
    """Whether nothing has happened to the VMs since they were chosen; now nothing can any more."""
    owned = {vm.id: vm for vm in await tx.vms.find(Filter.where(user_id=owner.id))}
    for vm in vms:
        if vm.id not in owned:
            raise ConflictError(f"{vm.name} does not belong to {owner.login} any more", hint="look again")
        check_stopped(owned[vm.id], "can change hands")


def check_stopped(vm: Vm, what: str) -> None:
    """Whether a VM is stopped and stays so, as only such VMs `what`.

    :raises ConflictError: it is not stopped, or about to start
    """
    runtime = vm.runtime
    idle = (None, VmState.STOPPED, UserState.DISCONNECTED)
    if busy := [w for w in (runtime.vm_cmd, runtime.vm_state, runtime.user_state) if w not in idle]:
        raise ConflictError(
            f"only stopped VMs {what}: {vm.name} ({busy[0]})",
            hint="qa vm stop it first; nothing was changed",
        )


def _check_mark(settings: Settings, vm: Vm, installation: InstallationId) -> None:
    home = Paths(settings).homefs(vm.id)
    mark = marks.mark_of(home)
    if mark is None or (mark.installation, mark.vm_uuid) != (installation, vm.uuid):
        raise VolumeError(f"the home {home} is not that of {vm.name}", hint="move it away")


def _check_no_root(settings: Settings, vms: Sequence[Vm], login: str) -> None:
    for vm in vms:
        if _keeps_root(Paths(settings), vm):
            raise ConflictError(
                f"{vm.name} keeps its root from run to run, and there the account is {login}",
                hint="give it a new root first: set use_overlay=yes for its OSF, start and stop it",
            )


def _keeps_root(paths: Paths, vm: Vm) -> bool:
    match vm.backend:
        case BackendKind.LXC:
            return paths.rootfs(vm.id).exists()
        case BackendKind.KVM:
            return any(paths.overlays.glob(paths.overlay(DiId(0), vm.id).name.replace("0", "*", 1)))
        case _:
            return False


async def _begin(tx: Tx, vms: Sequence[Vm], old: Account, new: Account, *, by: str) -> None:
    for vm in vms:
        if vm.backend is BackendKind.LXC:
            plan = json.dumps(asdict(Move(vm.name, old, new)))
            await tx.operations.begin(Kind.VM_GIVE, vm.id, owner=by, pid=os.getpid(), plan=plan)


async def _do_all(store: Store, settings: Settings, vms: Sequence[Vm], report: Report) -> list[Moved]:
    done = {vm.id: await _do_written(store, settings, vm.id, report) for vm in vms}
    return [moved for vm in vms for moved in done[vm.id] or [Moved(vm.name)]]


async def _do_written(store: Store, settings: Settings, vm_id: VmId, report: Report) -> list[Moved]:
    """Do what is written down for a VM, whose root the caller holds."""
    async with store.read() as tx:
        written = [o for o in await tx.operations.unfinished(Kind.VM_GIVE) if o.object_id == vm_id]
    done = []
    for operation in written:
        move, home = _read(operation.plan), Paths(settings).homefs(vm_id)
        kept = 0
        if home.exists():
            report(move.vm)
            kept = (await in_thread(homes.pass_on, home, move.old, move.new)).kept
        async with store.write() as tx:
            await tx.operations.end(operation.id, operations.DONE)
        done.append(Moved(move.vm, kept))
    return done


def _account(user: User) -> Account:
    return Account(user.login, user.uid, user.gid)


def _read(plan: str | None) -> Move:
    written: dict[str, Any] = json.loads(plan or "")
    return Move(written["vm"], Account(**written["old"]), Account(**written["new"]))
