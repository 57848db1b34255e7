"""Roots and homes as btrfs subvolumes: a root is a snapshot of its image, a home outlives everything.

A subvolume is made under a temporary name, gets its owner's mark, and only then its own name: one
without a mark is never ours. Ids are never used twice, and still a mark decides, not a name.
"""

from __future__ import annotations

import errno
import logging
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from appliance.clock import Calendar, SystemClock
from appliance.errors import ConflictError, VolumeError
from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.storage import marks, subvolumes
from appliance.storage.paths import HOME_SNAPSHOT, Paths
from appliance.storage.shares import Policy, Shares, group_of
from appliance.storage.volumes import delete, explained
from appliance.threads import in_thread

logger = logging.getLogger(__name__)


class BtrfsDisks:
    """The `Disks` of containers."""

    needs_image = True

    def __init__(
        self,
        paths: Paths,
        installation: InstallationId,
        *,
        policy: Policy | None = None,
        calendar: Calendar | None = None,
    ) -> None:
        self._paths = paths
        self._shares = Shares(paths.all_rootfs, installation, policy or Policy())
        self._installation = installation
        self._calendar = calendar or SystemClock()

    async def check(self) -> None:
        """Whether the pool can be used; closes it to everybody else and removes what a crash left half made.

        :raises VolumeError: it is not on btrfs, or not there
        """
        await in_thread(self._check)

    async def clone_root(self, mark: Mark, *, keep: bool, limit_mib: int | None = None) -> Path:
        """A writable root of the mark's DI for its VM: fresh, or with `keep` the one already there.

        The guest may write `limit_mib` into it, or as much as it can if that is None.

        A root that may not be kept is deleted; one that should be and does not fit is put aside.

        :raises VolumeError: the pool is full, the image is not there, or the root there is a stranger's
        """
        return await in_thread(self._clone_root, mark, keep, limit_mib)

    async def ensure_home(self, mark: Mark, *, size_mib: int | None) -> Path:
        """The home of the mark's VM, made if it has none, limited to its size.

        It is marked as used with the mark's DI from now on.

        :raises VolumeError: there is a home with another owner's mark
        """
        return await in_thread(self._ensure_home, mark, size_mib)

    async def home_used_with(self, mark: Mark) -> DiId | None:
        """The DI with which the home of the mark's VM was used last; None if it has no home.

        :raises VolumeError: there is a home with another owner's mark
        """
        there = await in_thread(self._home_mark, mark)
        return None if there is None else there.di_id

    def home_aside(self, vm_id: VmId, at: datetime) -> Path:
        """Where a snapshot of the VM's home would be at that instant: a free name."""
        return _free(self._paths.home_snapshot(vm_id, at))

    async def snapshot_home(self, mark: Mark, path: Path) -> bool:
        """Keep the home of the mark's VM as it is now at `path`, read-only.

        False if it has no home, or if `path` is on another file system.

        :raises VolumeError: it cannot be made, or there is a home with another owner's mark
        """
        return await in_thread(self._snapshot_home, mark, path)

    async def is_home_as_in(self, mark: Mark, path: Path) -> bool:
        """Whether the home of the mark's VM is just as in the snapshot at `path`.

        :raises VolumeError: it cannot be told
        """
        return await in_thread(self._is_home_as_in, mark, path)

    async def restore_home(self, mark: Mark, path: Path, change: Callable[[Path], object]) -> None:
        """Put the home of the mark's VM back as in the snapshot at `path` and do `change` to it, all at once.

        Nothing of the present home stays. The caller holds the lock of the VM's root.

        :raises ConflictError: the present home has subvolumes of its own, which no snapshot has
        :raises VolumeError: snapshot or home have another owner, or it cannot be done; the home is as it was
        """
        await in_thread(self._restore_home, mark, path, change)

    async def keep_reserve(self) -> None:
        """Keep the guests from the part of the pool that is the host's.

        :raises VolumeError: the kernel refuses
        """
        await in_thread(self._keep_reserve)

    def aside(self, vm_id: VmId, at: datetime) -> Path:
        """Where the VM's root would be put aside at that instant: a free name."""
        return _free(self._paths.kept_root(vm_id, at))

    async def put_aside(self, vm_id: VmId, path: Path) -> bool:
        """Move the VM's root to `path`; false if there is no root of ours.

        :raises VolumeError: it cannot be moved
        """
        return await in_thread(self._move_aside, vm_id, path)

    async def erase_root(self, vm_id: VmId) -> None:
        """Remove the VM's root, if it is ours, with all that its guest made in it; its home stays."""
        await in_thread(self._erase_root, vm_id)

    def _check(self) -> None:
        root = self._paths.root
        for directory in (root, *self._paths.storage):
            with explained(f"{directory} cannot be used"):
                directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        for directory in (self._paths.all_basefs, self._paths.all_rootfs, self._paths.all_homefs):
            if not subvolumes.is_btrfs(directory):
                raise VolumeError(
                    f"{directory} is not on a btrfs file system",
                    hint="mount one at path.storage.root; mkfs.btrfs on a file will do",
                )
        # What a guest's root makes setuid is setuid root for the host, too: nobody else gets there.
        for directory in (self._paths.all_basefs, self._paths.all_rootfs, self._paths.all_homefs):
            directory.chmod(0o700)
        self._paths.kept.chmod(0o700)
        self._paths.trash.chmod(0o700)
        for directory in (self._paths.all_rootfs, self._paths.all_homefs):
            for unfinished in directory.glob(".*-fs.*"):
                delete(unfinished)
        with explained(f"limits cannot be set on {root}"):
            images, written = self._subvolumes(self._paths.all_basefs), self._written()
            self._shares.set_up([*images, *written], new=not written)

    def _written(self) -> list[Path]:
        """Every root and home of this installation."""
        folders = (self._paths.all_rootfs, self._paths.all_homefs, self._paths.kept)
        return [path for folder in folders for path in self._subvolumes(folder)]

    @staticmethod
    def _subvolumes(folder: Path) -> list[Path]:
        return [path for path in folder.iterdir() if subvolumes.is_top(path)]

    def _keep_reserve(self) -> None:
        with explained("the reserve of the pool cannot be kept"):
            self._shares.keep_reserve()

    def _clone_root(self, mark: Mark, keep: bool, limit_mib: int | None) -> Path:
        base, root = self._paths.basefs(mark.di_id), self._paths.rootfs(mark.vm_id)
        if not base.exists():
            raise VolumeError(f"image {mark.di_id} is not unpacked on this host: {base} is missing")
        if not (keep and self._keeps(root, mark)):
            self._clear_way(root, mark, keep)
            with explained(f"the root of VM {mark.vm_id} cannot be made"):
                self._shares.enter(base)
                subvolumes.snapshot(base, root, mark, group=self._shares.group)
                self._shares.see_to_the_count()
        with explained(f"the size of {root} cannot be limited"):
            self._shares.limit_root(root, base, limit_mib)
        return root

    def _keeps(self, root: Path, mark: Mark) -> bool:
        return root.exists() and marks.mark_of(root) == mark

    def _clear_way(self, root: Path, mark: Mark, keep: bool) -> None:
        if not root.exists():
            return
        there = marks.mark_of(root)
        if there is not None and there.installation != mark.installation:
            raise VolumeError(f"{root} belongs to another installation", hint="move it away")
        if keep or there is None:
            self._put_aside(root, mark.vm_id)
        else:
            delete(root)

    def _erase_root(self, vm_id: VmId) -> None:
        root = self._paths.rootfs(vm_id)
        if not root.exists():
            return
        there = marks.mark_of(root)
        if there is not None and there.installation == self._installation:
            delete(root)
        else:
            logger.warning("a root without our mark is left alone vm=%s path=%s", vm_id, root)

    def _put_aside(self, root: Path, vm_id: VmId) -> None:
        _rename(root, self.aside(vm_id, self._calendar.now()), vm_id)

    def _move_aside(self, vm_id: VmId, path: Path) -> bool:
        root = self._paths.rootfs(vm_id)
        there = marks.mark_of(root) if root.exists() else None
        if there is None or there.installation != self._installation:
            return False
        _rename(root, path, vm_id)
        return True

    def _ensure_home(self, mark: Mark, size_mib: int | None) -> Path:
        home = self._paths.homefs(mark.vm_id)
        there = self._home_mark(mark)
        if there is None:
            with explained(f"the home of VM {mark.vm_id} cannot be made"):
                subvolumes.create(home, mark, group=self._shares.group)
        elif there != mark:
            with explained(f"the home {home} cannot be marked"):
                self._shares.limit_home(home, None)  # In a home that is full, there is no room for a mark.
                marks.set_mark(home, mark)
        snapshots = 0 if size_mib is None else self._snapshots(mark.vm_id)
        with explained(f"the size of {home} cannot be limited"):
            self._shares.limit_home(home, size_mib, snapshots=snapshots)
        return home

    def _home_mark(self, mark: Mark) -> Mark | None:
        home = self._paths.homefs(mark.vm_id)
        if not home.exists():
            return None
        there = marks.mark_of(home)
        if there is None or not there.is_of_same_vm(mark):
            raise VolumeError(
                f"the home {home} has another owner, and VM {mark.vm_id} must not see it", hint="move it away"
            )
        return there

    def _snapshots(self, vm_id: VmId) -> int:
        """How many snapshots of a home there are."""
        found = self._paths.kept.glob(f"{vm_id}-home-*")
        return sum(bool(HOME_SNAPSHOT.fullmatch(path.name)) for path in found)

    def _snapshot_home(self, mark: Mark, path: Path) -> bool:
        if self._home_mark(mark) is None:
            return False
        with explained(f"no snapshot of the home of VM {mark.vm_id} can be taken"):
            try:
                subvolumes.preserve(self._paths.homefs(mark.vm_id), path, group=self._group())
            except OSError as exc:
                if exc.errno != errno.EXDEV:
                    raise
                logger.warning("no snapshot of a home: %s is on another file system", self._paths.kept)
                return False
        return True

    def _is_home_as_in(self, mark: Mark, path: Path) -> bool:
        if self._home_mark(mark) is None or not path.exists():
            return False
        with explained(f"the home of VM {mark.vm_id} cannot be compared"):
            return subvolumes.is_as_in(self._paths.homefs(mark.vm_id), path)

    def _restore_home(self, mark: Mark, path: Path, change: Callable[[Path], object]) -> None:
        home = self._paths.homefs(mark.vm_id)
        failure = f"the home of VM {mark.vm_id} cannot be restored"
        there = marks.mark_of(path)
        if there is None or not there.is_of_same_vm(mark):
            raise VolumeError(f"the snapshot {path} is not of VM {mark.vm_id}", hint="nothing was changed")
        with explained(failure):
            if self._home_mark(mark) is not None and subvolumes.has_inner(home):
                raise ConflictError(
                    f"{failure}: subvolumes were made in it, which a snapshot does not hold",
                    hint=f"delete them: btrfs subvolume list -o {home}; nothing was changed",
                )
            subvolumes.replace(home, path, change, group=self._group())

    def _group(self) -> int | None:
        """The group that snapshots enter; also for who has not set up the pool itself."""
        return group_of(self._paths.all_homefs, self._installation)


def _free(path: Path) -> Path:
    return path if not path.exists() else path.with_name(f"{path.name}-{uuid.uuid4().hex[:8]}")


def _rename(root: Path, aside: Path, vm_id: VmId) -> None:
    with explained(f"{root} cannot be put aside"):
        root.rename(aside)
    logger.warning("root put aside vm=%s path=%s", vm_id, aside)


async def erase_di(paths: Paths, di_id: DiId) -> None:
    """Remove an unpacked image, and what a killed import left of one. Roots made from it do not need it."""
    base = paths.basefs(di_id)
    unfinished = (*base.parent.glob(f".{di_id}.unpacking"), *base.parent.glob(f"..{di_id}.unpacking.*"))
    for volume in (base, *unfinished):
        await in_thread(delete, volume)


def duplicate_di(paths: Paths, source: Path, di_id: DiId) -> None:
    """Give a DI the unpacked image of another one, read-only as that is.

    :raises VolumeError: it cannot be made; what there is of it goes with `erase_di`
    """
    base = paths.basefs(di_id)
    fresh = base.with_name(f".{di_id}.unpacking")
    with explained(f"{base} cannot be made from {source}"):
        subvolumes.snapshot(source, fresh, None)
        subvolumes.commit(fresh)
        subvolumes.seal(fresh)
        fresh.rename(base)
