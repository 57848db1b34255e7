"""The disks of virtual machines: an image, what a guest writes over it, and its user's home.

The registered file of a DI is the base as it is. A root is an overlay over it, a home a disk of its own;
both are qcow2 files, made under a temporary name, marked as their owner's, and only then given their own
name: one without a mark is never ours. Empty disks are written here, as a start would wait for a program;
from then on nobody but QEMU and `qemu-img` writes there. How large a file's disk is its header says. What
follows from limits and from a full pool is in docs/adr/0012.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance import proc
from appliance.clock import Calendar, SystemClock
from appliance.errors import ImageError, MissingToolError, PoolFullError, ToolError, VolumeError
from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.storage import image_lock, marks, nocow, qcow2_header, reflink, subvolumes
from appliance.storage.disk_image import NO_QEMU
from appliance.storage.jail import limited
from appliance.storage.paths import Paths
from appliance.storage.qcow2_empty import Backing, layout
from appliance.storage.qcow2_header import HEAD, DiskFormat
from appliance.storage.shares import Policy, Shares
from appliance.storage.volumes import explained
from appliance.threads import in_thread

logger = logging.getLogger(__name__)

PROGRAMS = ("qemu-img", "qemu-io")
GROW_S = 60.0
LONGEST_FILE = 1 << 40
"""Bytes; of tables alone, as no data is written when a disk grows."""
OVERLAY = re.compile(r"([1-9][0-9]*)-([1-9][0-9]*)-overlay\.qcow2")
"""DI and VM."""
KEPT = re.compile(r"([1-9][0-9]*)-[0-9]{8}T[0-9]{6}Z(?:-[0-9a-f]{8})?\.qcow2")
HOME = re.compile(r"([1-9][0-9]*)-data\.qcow2")
HALF = re.compile(r"\.(?:[1-9][0-9]*-)?[1-9][0-9]*-(?:overlay|data)\.qcow2\.[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class DiskFiles:
    """The files of one guest's disks, with all that QEMU must know so that it need not guess."""

    base: Path
    base_format: str
    """`qcow2` or `raw`."""
    overlay: Path
    """Always qcow2, over `base`."""
    home: Path | None
    """Always qcow2; None: the guest has no home disk."""


@dataclass(frozen=True, slots=True)
class Base:
    """The image of a DI."""

    path: Path
    format: DiskFormat
    size: int
    """Bytes of the disk that it shows."""


class Qcow2Disks:
    """The `Disks` of virtual machines."""

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
        self._installation = installation
        self._shares = Shares(paths.overlays, installation, policy or Policy())
        self._counts = False
        """Whether the pool counts what guests write."""
        self._calendar = calendar or SystemClock()
        self._told: set[VmId] = set()
        """Of whose homes it was said that they are not as wanted."""

    async def check(self) -> None:
        """Whether disks can be made; closes them to everybody else and removes what a crash left half made.

        :raises MissingToolError: a program of QEMU is missing
        :raises VolumeError: the storage cannot be used
        """
        for program in PROGRAMS:
            if shutil.which(program) is None:
                raise MissingToolError(f"the program {program} is missing", hint=NO_QEMU)
        await in_thread(self._check)

    async def keep_reserve(self) -> None:
        """Keep the guests from the part of the pool that is the host's, where the pool can count.

        :raises VolumeError: the kernel refuses
        """
        if self._counts:
            with explained("the reserve of the pool cannot be kept"):
                await in_thread(self._shares.keep_reserve)

    async def clone_root(self, mark: Mark, *, keep: bool, limit_mib: int | None = None) -> Path:
        """A disk over the mark's DI for its VM: fresh, or with `keep` the one already there.

        It is as large as the image, or `limit_mib` if that is more. A root that may not be kept is deleted;
        one that should be and is of another DI is put aside.

        :raises VolumeError: the pool is full, the image is not there, or the root there is a stranger's
        """
        base = await in_thread(self._base, mark.di_id)
        overlay = self._paths.overlay(mark.di_id, mark.vm_id)
        size = max(base.size, (limit_mib or 0) << 20)
        if await in_thread(self._clear_way, mark, keep):
            await self._grow(overlay, size)
        else:
            await self._make(overlay, mark, size, base=base, durable=keep)
        return overlay

    async def ensure_home(self, mark: Mark, *, size_mib: int | None) -> Path:
        """The home of the mark's VM: made if it has none, grown if it is to be larger, never made smaller.

        It is marked as used with the mark's DI from now on.

        Without a size none is made, as a disk must have one; nothing is at the path then.

        :raises VolumeError: the home there has another owner, or it cannot be made
        """
        home = self._paths.home_disk(mark.vm_id)
        there = await in_thread(self._home_mark, mark)
        if there is not None:
            if there != mark:
                with explained(f"the home {home} cannot be marked"):
                    marks.set_mark(home, mark)
            if size_mib is not None and not await self._grow(home, size_mib << 20):
                self._tell_once(mark.vm_id, "a home disk is larger than its OSF says, and stays so")
        elif size_mib is None:
            self._tell_once(
                mark.vm_id, "no home disk: its OSF has no user_storage_size, so homes go with roots"
            )
        else:
            await self._make(home, mark, size_mib << 20, durable=True)
        return home

    async def home_used_with(self, mark: Mark) -> DiId | None:
        """The DI with which the home of the mark's VM was used last; None if it has no home.

        :raises VolumeError: there is a home with another owner's mark
        """
        there = await in_thread(self._home_mark, mark)
        return None if there is None else there.di_id

    def home_aside(self, vm_id: VmId, at: datetime) -> Path:
        """Where a snapshot of the VM's home would be at that instant: a free name."""
        path = self._paths.home_disk_snapshot(vm_id, at)
        return path if not path.exists() else path.with_stem(f"{path.stem}-{uuid.uuid4().hex[:8]}")

    async def snapshot_home(self, mark: Mark, path: Path) -> bool:
        """Keep the home of the mark's VM as it is now at `path`; the two share what neither changes.

        False if it has no home, or if its file system cannot share: a copy would hold up the start.

        :raises VolumeError: it cannot be made, a guest uses the home, or it has another owner's mark
        """
        return await in_thread(self._snapshot_home, mark, path)

    async def is_home_as_in(self, mark: Mark, path: Path) -> bool:
        """Whether nobody has written to the home of the mark's VM since the snapshot at `path` was taken.

        :raises VolumeError: it cannot be told
        """
        return await in_thread(self._is_home_as_in, mark, path)

    async def restore_home(self, mark: Mark, path: Path, change: Callable[[Path], object]) -> None:
        """Put the home of the mark's VM back as in the snapshot at `path` and do `change` to it, all at once.

        Nothing of the present home stays. The caller holds the lock of the VM's root.

        :raises VolumeError: snapshot or home have another owner, or it cannot be done; the home is as it was
        """
        await in_thread(self._restore_home, mark, path, change)

    def files(self, mark: Mark) -> DiskFiles:
        """The disks that the guest of this mark has now.

        :raises VolumeError: its image is not there, or its home is somebody else's
        """
        base = self._base(mark.di_id)
        home = self._paths.home_disk(mark.vm_id)
        return DiskFiles(
            base=base.path,
            base_format=base.format.value,
            overlay=self._paths.overlay(mark.di_id, mark.vm_id),
            home=None if self._home_mark(mark) is None else home,
        )

    def aside(self, vm_id: VmId, at: datetime) -> Path:
        """Where the VM's root would be put aside at that instant: a free name."""
        path = self._paths.kept_overlay(vm_id, at)
        return path if not path.exists() else path.with_stem(f"{path.stem}-{uuid.uuid4().hex[:8]}")

    async def put_aside(self, vm_id: VmId, path: Path) -> bool:
        """Give the VM's root the name `path`; false if there is no root of ours.

        :raises VolumeError: it cannot be renamed
        """
        return await in_thread(self._move_aside, vm_id, path)

    async def erase_root(self, vm_id: VmId) -> None:
        """Remove the VM's root, if it is ours; its home stays."""
        await in_thread(self._erase_root, vm_id)

    def _check(self) -> None:
        for folder in (self._paths.images, self._paths.overlays, self._paths.homes):
            with explained(f"{folder} cannot be used"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with explained(f"disks cannot be kept below {self._paths.root}"):
            self._count()
            for folder in (self._paths.overlays, self._paths.homes):
                # QEMU may have been let through. Nothing is written without need: the pool may be full.
                if folder.stat().st_mode & 0o067:
                    folder.chmod(0o700)
                nocow.set_up(folder)
                for file in folder.iterdir():
                    if HALF.fullmatch(file.name):
                        file.unlink(missing_ok=True)

    def _count(self) -> None:
        """Let what guests write be theirs for a pool that counts, beside what containers write."""
        pool = self._paths.overlays.parent
        folders = [self._paths.overlays, *(home for home in [self._paths.homes] if home.parent == pool)]
        if not subvolumes.is_btrfs(pool):
            return
        for folder in folders:
            if not subvolumes.is_top(folder) and not any(folder.iterdir()):
                folder.rmdir()
                subvolumes.create(folder)
        joined = [folder for folder in folders if subvolumes.is_top(folder)]
        if self._paths.overlays in joined:
            places = (*folders, self._paths.all_rootfs, self._paths.all_homefs)
            written = any(any(place.iterdir()) for place in places if place.is_dir())
            self._shares.set_up(joined, new=not written)
            self._counts = True

    def _base(self, di_id: DiId) -> Base:
        found = sorted(self._paths.images.glob(f"{di_id}-*"))
        if not found:
            raise VolumeError(
                f"image {di_id} is not on this host: nothing in {self._paths.images} has this number"
            )
        try:
            head, size = _head(found[0]), found[0].stat().st_size
            disk_format = qcow2_header.format_of(head)
            if disk_format is DiskFormat.QCOW2:
                size = qcow2_header.virtual_size(head)
        except (OSError, ImageError) as exc:
            raise VolumeError(f"image {di_id} cannot be used: {exc}", hint="add it again") from exc
        return Base(found[0], disk_format, size)

    def _roots(self, vm_id: VmId) -> Iterator[tuple[Path, Mark | None]]:
        """The roots that a VM has, with their marks: one, but for crashes."""
        for path in sorted(self._paths.overlays.glob(f"*-{vm_id}-overlay.qcow2")):
            if (match := OVERLAY.fullmatch(path.name)) and int(match[2]) == vm_id:
                yield path, marks.mark_of(path)

    @staticmethod
    def _check_closed(root: Path) -> None:
        if image_lock.is_in_use(root):
            raise VolumeError(f"a guest still runs on {root}", hint="stop it first")

    def _clear_way(self, mark: Mark, keep: bool) -> bool:
        """Let no root of the VM be in the way of a new one; true if the one that is wanted is there."""
        stays = False
        for root, there in list(self._roots(mark.vm_id)):
            if there is not None and there.installation != mark.installation:
                raise VolumeError(f"{root} belongs to another installation", hint="move it away")
            if keep and there == mark and root == self._paths.overlay(mark.di_id, mark.vm_id):
                stays = True
                continue
            self._check_closed(root)
            if keep or there is None:
                _rename(root, self.aside(mark.vm_id, self._calendar.now()), mark.vm_id)
            else:
                _unlink(root)
        return stays

    def _move_aside(self, vm_id: VmId, path: Path) -> bool:
        for root, there in self._roots(vm_id):
            if there is not None and there.installation == self._installation:
                _rename(root, path, vm_id)
                return True
        return False

    def _erase_root(self, vm_id: VmId) -> None:
        for root, there in self._roots(vm_id):
            if there is not None and there.installation == self._installation:
                self._check_closed(root)
                _unlink(root)
            else:
                logger.warning("a root without our mark is left alone vm=%s path=%s", vm_id, root)

    def _home_mark(self, mark: Mark) -> Mark | None:
        home = self._paths.home_disk(mark.vm_id)
        if not home.exists():
            return None
        there = marks.mark_of(home)
        if there is None or not there.is_of_same_vm(mark):
            raise VolumeError(
                f"the home {home} has another owner, and VM {mark.vm_id} must not see it", hint="move it away"
            )
        return there

    def _snapshot_home(self, mark: Mark, path: Path) -> bool:
        home = self._paths.home_disk(mark.vm_id)
        there = self._home_mark(mark)
        if there is None:
            return False
        self._check_closed(home)
        made = self._share(home, path, there, mode=0o400)
        if not made:
            self._tell_once(mark.vm_id, "no snapshot of a home: its file system cannot share blocks")
        return made

    def _is_home_as_in(self, mark: Mark, path: Path) -> bool:
        if self._home_mark(mark) is None or not path.exists():
            return False
        with explained(f"the home of VM {mark.vm_id} cannot be compared"):
            now, then = self._paths.home_disk(mark.vm_id).stat(), path.stat()
        return (now.st_size, now.st_mtime_ns) == (then.st_size, then.st_mtime_ns)

    def _restore_home(self, mark: Mark, path: Path, change: Callable[[Path], object]) -> None:
        home = self._paths.home_disk(mark.vm_id)
        there = marks.mark_of(path)
        if there is None or not there.is_of_same_vm(mark):
            raise VolumeError(f"the snapshot {path} is not of VM {mark.vm_id}", hint="nothing was changed")
        if self._home_mark(mark) is not None:
            self._check_closed(home)
        if not self._share(path, home, there, change, mode=0o600):
            raise VolumeError(
                f"the home of VM {mark.vm_id} cannot be restored: its file system cannot share blocks",
                hint=f"copy {path} to {home} by hand",
            )

    def _share(
        self,
        source: Path,
        path: Path,
        mark: Mark,
        change: Callable[[Path], object] = lambda fresh: None,
        *,
        mode: int,
    ) -> bool:
        """Let `path` be what `source` is, all at once, sharing its blocks; false if they cannot be shared."""
        home = self._paths.home_disk(mark.vm_id)
        fresh = home.with_name(f".{home.name}.{uuid.uuid4().hex[:8]}")
        with explained(f"{path} cannot be made"):
            try:
                if not reflink.copy(source, fresh):
                    return False
                marks.set_mark(fresh, mark)
                change(fresh)
                fresh.chmod(mode)
                _sync(fresh)
                fresh.replace(path)
                _sync(path.parent)
            finally:
                fresh.unlink(missing_ok=True)
        return True

    async def _make(
        self, path: Path, mark: Mark, size: int, *, base: Base | None = None, durable: bool
    ) -> None:
        """Make a disk under a temporary name, mark it, and only then give it its name."""
        fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        under = None if base is None else Backing(os.fsencode(base.path), base.format)
        try:
            await in_thread(_build, fresh, path, mark, size, under, durable)
        except BaseException:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise

    async def _grow(self, path: Path, size: int) -> bool:
        """Let a disk have at least `size` bytes; false if it has more."""
        there = await in_thread(_size, path)
        if there < size:
            await _qemu_img(f"{path} cannot grow", ("resize", "-q", "-f", "qcow2", str(path), str(size)))
            logger.info("a disk has grown path=%s from=%d to=%d", path, there, size)
        return there <= size

    def _tell_once(self, vm_id: VmId, what: str) -> None:
        if vm_id not in self._told:
            self._told.add(vm_id)
            logger.warning("%s vm=%s", what, vm_id)


def bases_in_use(paths: Paths, di_ids: Sequence[DiId]) -> Mapping[DiId, list[Path]]:
    """The roots of virtual machines, those put aside included, that need one of these images.

    :raises VolumeError: a mark cannot be read
    """
    found: dict[DiId, list[Path]] = {}
    for path in sorted(paths.overlays.iterdir()) if paths.overlays.is_dir() else ():
        if OVERLAY.fullmatch(path.name) or KEPT.fullmatch(path.name):
            mark = marks.mark_of(path)
            if mark is not None and mark.di_id in di_ids:
                found.setdefault(mark.di_id, []).append(path)
    return found


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(HEAD)


def _size(path: Path) -> int:
    try:
        return qcow2_header.virtual_size(_head(path))
    except (OSError, ImageError) as exc:
        raise VolumeError(
            f"the disk {path} cannot be used: {exc}", hint="restore it, or move it away"
        ) from exc


def _build(fresh: Path, path: Path, mark: Mark, size: int, backing: Backing | None, durable: bool) -> None:
    failure = f"{path} cannot be made"
    try:
        wanted = layout(size, backing)
    except ValueError as exc:
        raise VolumeError(f"{failure}: {exc}") from exc
    with explained(failure):
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for place, piece in wanted.pieces:
                file.seek(place)
                file.write(piece)
            file.truncate(wanted.length)
        marks.set_mark(fresh, mark)
        if durable:
            _sync(fresh)
        fresh.rename(path)
        if durable:
            _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(root: Path, aside: Path, vm_id: VmId) -> None:
    with explained(f"{root} cannot be put aside"):
        root.rename(aside)
    logger.warning("root put aside vm=%s path=%s", vm_id, aside)


def _unlink(root: Path) -> None:
    with explained(f"{root} cannot be deleted"):
        root.unlink(missing_ok=True)


async def _qemu_img(failure: str, words: Sequence[str]) -> None:
    with _told_of(failure):
        await proc.run(
            limited(["qemu-img", *words], longest_file=LONGEST_FILE), timeout_s=GROW_S, hint=NO_QEMU
        )


@contextmanager
def _told_of(failure: str) -> Iterator[None]:
    """Tell a failure of `qemu-img` as a `VolumeError`, in words if the pool is full."""
    try:
        yield
    except ToolError as exc:
        if any(os.strerror(number) in exc.stderr for number in PoolFullError.numbers):
            raise PoolFullError.of(failure) from exc
        said = exc.stderr.strip().splitlines()
        reason = said[0].removeprefix("qemu-img: ") if said else f"status {exc.status}"
        raise VolumeError(f"{failure}: {reason}") from exc
