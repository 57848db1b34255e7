"""Roots and homes as btrfs subvolumes: a root is a snapshot of its image, a home outlives everything.

A subvolume is made under a temporary name, gets its owner's mark, and only then its own name: one
without a mark is never ours. Ids are never used twice, and still a mark decides, not a name.
"""

from __future__ import annotations

import logging
import uuid
from datetime import datetime
from pathlib import Path

from appliance.clock import Calendar, SystemClock
from appliance.errors import VolumeError
from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.storage import marks, subvolumes
from appliance.storage.paths import Paths
from appliance.storage.shares import Policy, Shares
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

        :raises VolumeError: there is a home with another owner's mark
        """
        return await in_thread(self._ensure_home, mark, size_mib)

    async def keep_reserve(self) -> None:
        """Keep the guests from the part of the pool that is the host's.

        :raises VolumeError: the kernel refuses
        """
        await in_thread(self._keep_reserve)

    def aside(self, vm_id: VmId, at: datetime) -> Path:
        """Where the VM's root would be put aside at that instant: a free name."""
        path = self._paths.kept_root(vm_id, at)
        return path if not path.exists() else path.with_name(f"{path.name}-{uuid.uuid4().hex[:8]}")

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
        if home.exists():
            there = marks.mark_of(home)
            if there is None or (there.installation, there.vm_uuid) != (mark.installation, mark.vm_uuid):
                raise VolumeError(
                    f"the home {home} has another owner, and VM {mark.vm_id} must not see it",
                    hint="move it away",
                )
        else:
            with explained(f"the home of VM {mark.vm_id} cannot be made"):
                subvolumes.create(home, mark, group=self._shares.group)
        with explained(f"the size of {home} cannot be limited"):
            self._shares.limit_home(home, size_mib)
        return home


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
