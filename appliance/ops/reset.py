"""Takes an installation off this host: what `admin init` and the daemon made, and nothing else.

What is ours is told by marks and by names that only we give; everything else stays where it is. A note,
written before the first thing goes and removed after the last, makes a reset that was killed go on at the
next one, and keeps `admin init` from building on ruins.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from appliance import config
from appliance.clock import Calendar
from appliance.config import Settings
from appliance.errors import ApplianceError, ConflictError, HostError, few
from appliance.harmless import printable
from appliance.model import InstallationId
from appliance.storage import marks, root_lock
from appliance.storage.db import database_file
from appliance.storage.image_lock import is_in_use
from appliance.storage.paths import HOME_SNAPSHOT, Paths
from appliance.storage.qcow2 import HALF, KEPT, OVERLAY
from appliance.storage.root_lock import HeldError
from appliance.storage.store import Store
from appliance.storage.unnamed import give_name, unnamed
from appliance.storage.volumes import delete
from appliance.threads import in_thread

UNFINISHED = "reset.unfinished"
BESIDE_DATABASE = r"(-wal|-shm|-journal|\.schema-.+)?"
"""What the name of the database goes on with: its own files, and copies from before a migration."""
HALF_MADE = re.compile(r"\.\d+-fs\.[0-9a-f]{8}|\.\d+\.unpacking|\.\.\d+\.unpacking\.[0-9a-f]{8}")
LOCK = re.compile(r"(\d+)\.lock")
IMAGE = re.compile(r"\d+")
ARCHIVE = re.compile(r"\d+-.+|\.\d+\.(part|adding)")
CONSOLE = re.compile(r"\d+\..+")

Report = Callable[[str], None]
"""Told what is being removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estate:
    """What an installation has on this host, and what is among it that is not the installation's."""

    installation: InstallationId | None
    homes: tuple[Path, ...]
    roots: tuple[Path, ...]
    kept: tuple[Path, ...]
    images: tuple[Path, ...]
    archives: tuple[Path, ...]
    database: tuple[Path, ...]
    files: tuple[Path, ...]
    """Locks, sockets, logs, configurations, the certificate's files."""
    foreign: tuple[Path, ...]
    names: dict[int, str]
    """VMs by id, if the database still tells."""
    used_bytes: int
    """On the file system of the storage, by whomever."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        volumes = (*self.homes, *self.roots, *self.kept, *self.images)
        return not (*volumes, *self.archives, *self.database, *self.files)


async def survey(settings: Settings, calendar: Calendar) -> Estate:
    """Look for everything that a reset would remove.

    :raises StoreError: the database is there and does not tell who we are
    :raises HostError: it knows of things on the pool, which is not mounted
    """
    installation, names = await _identity(settings, calendar)
    return await in_thread(_survey, settings, installation, names)


def describe(estate: Estate, settings: Settings) -> list[str]:
    """What will go and what will stay, for people."""
    lines = [f"From the host {settings[config.NODENAME]} this removes for good:"]
    homes = [estate.names.get(_number(home), home.name) for home in estate.homes]
    for number, what in (
        (len(homes), f"homes of users{_named(homes)}"),
        (len(estate.roots), "roots of VMs"),
        (len(estate.kept), "roots, homes and snapshots of homes that were kept"),
        (len(estate.images), "unpacked images"),
        (len(estate.archives), "archives of images"),
        (len(estate.files), "locks, sockets and logs"),
    ):
        if number:
            lines.append(f"  {number} {what}")
    if estate.database:
        lines.append(
            f"  the database {estate.database[0]}, with all users, VMs, settings and the certificate"
        )
    lines.append(f"  {estate.used_bytes / 2**30:.1f} GiB are in use on {settings[config.PATH_STORAGE_ROOT]}")
    if estate.foreign:
        lines.append(f"What stays, as others made it: {', '.join(map(str, estate.foreign))}")
    return [printable(line) for line in lines]


def check_idle(settings: Settings, estate: Estate) -> None:
    """Whether neither the daemon nor a guest runs; the daemon cannot start while its lock is held.

    :raises ConflictError: naming what runs
    """
    paths = Paths(settings)
    running = []
    for file in _entries(paths.all_rootfs):
        if (match := LOCK.fullmatch(file.name)) and root_lock.is_locked(file):
            running.append(int(match[1]))
    for file in estate.roots:
        if (match := OVERLAY.fullmatch(file.name)) and is_in_use(file):
            running.append(int(match[2]))
    if estate.installation is not None:
        running += _in_groups(paths.cgroup, estate.installation)
    if running:
        names = [estate.names.get(number, f"VM {number}") for number in sorted(set(running))]
        raise ConflictError(
            f"{len(names)} guests run{_named(names)}",
            hint="start the daemon and stop them with qa vm stop; nothing was removed",
        )


@contextlib.contextmanager
def daemon_kept_out(settings: Settings) -> Iterator[None]:
    """Hold the lock of the daemon.

    :raises ConflictError: the daemon runs
    """
    lock = Paths(settings).hkd_lock
    if not lock.parent.is_dir():
        yield
        return
    was_there = lock.exists()
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(root_lock.locked(lock))
        except HeldError as exc:
            raise ConflictError(
                "the daemon of this installation runs", hint="stop it first: systemctl stop qvd-appliance"
            ) from exc
        try:
            yield
        finally:
            if not was_there:
                lock.unlink(missing_ok=True)


async def remove(settings: Settings, estate: Estate, report: Report) -> None:
    """Remove it all; killed in between, the next call goes on.

    :raises HostError: something cannot be removed; what is done is done
    """
    await in_thread(_remove, settings, estate, report)


def check_finished(paths: Paths) -> None:
    """Whether no reset was begun here and not finished.

    :raises HostError: one was
    """
    if (paths.root / UNFINISHED).exists():
        raise HostError("a reset of this host was not finished", hint="run qa admin reset again")


async def _identity(settings: Settings, calendar: Calendar) -> tuple[InstallationId | None, dict[int, str]]:
    """Who we are, by the database or the note of a killed reset, and our VMs by id.

    Without either, no home and no root is ours: marks alone do not tell whether their owner is still needed.

    :raises HostError: the database knows of things on the pool, which is not mounted
    """
    url = settings[config.DATABASE_URL]
    if not await in_thread(database_file(url).exists):
        return await in_thread(_noted, Paths(settings)), {}
    store = await Store.open(url, calendar)
    try:
        async with store.read() as tx:
            names = {int(vm.id): f"{vm.name} of {vm.user}" for vm in await tx.vms.find()}
            known = {
                "VMs": len(names),
                "images": len(await tx.images.find(trash=True)),
                "kept things": len(await tx.kept.find()),
            }
            installation = await tx.settings.installation()
    finally:
        await store.close()
    await in_thread(_check_mounted, Paths(settings), known)
    return installation, names


def _check_mounted(paths: Paths, known: Mapping[str, int]) -> None:
    """Whether the pool is there, if anything is on it: else the database would go alone, and homes stay."""
    there = [f"{number} {what}" for what, number in known.items() if number]
    if there and not any(folder.is_dir() for folder in paths.volumes):
        raise HostError(
            f"the pool at {paths.root} is not mounted: nothing is there of {' and '.join(there)}",
            hint=f"mount the pool first; if it is lost for good: mkdir -p {paths.all_homefs}",
        )


def _noted(paths: Paths) -> InstallationId | None:
    with contextlib.suppress(OSError):
        if noted := (paths.root / UNFINISHED).read_text().strip():
            return InstallationId(noted)
    return None


def _survey(settings: Settings, installation: InstallationId | None, names: dict[int, str]) -> Estate:
    paths = Paths(settings)
    database = database_file(settings[config.DATABASE_URL])

    def ours(folder: Path) -> tuple[Path, ...]:
        return tuple(
            entry
            for entry in _entries(folder)
            if HALF_MADE.fullmatch(entry.name)
            or HALF.fullmatch(entry.name)
            or (installation and _owner(entry) == installation)
        )

    def named(folder: Path, pattern: re.Pattern[str]) -> tuple[Path, ...]:
        return tuple(entry for entry in _entries(folder) if pattern.fullmatch(entry.name))

    overlays, disks = ours(paths.overlays), ours(paths.homes)
    snapshots = [disk for disk in disks if HOME_SNAPSHOT.fullmatch(disk.name)]
    images = (*named(paths.all_basefs, IMAGE), *named(paths.all_basefs, HALF_MADE))
    parts = named(database.parent, re.compile(re.escape(database.name) + BESIDE_DATABASE))
    singles = (paths.doorbell, paths.control, paths.root / UNFINISHED)
    files = (
        *named(paths.all_rootfs, LOCK),
        *named(paths.consoles, CONSOLE),
        *named(paths.captures, CONSOLE),
        *(entry for entry in _entries(paths.lxc) if entry.name.startswith(f"qvd-{installation}-")),
        *(entry for entry in _entries(paths.ssl) if entry.suffix == ".pem"),
        *(file for file in singles if file.exists()),
    )
    estate = Estate(
        installation=installation,
        homes=(*ours(paths.all_homefs), *(disk for disk in disks if disk not in snapshots)),
        roots=(*ours(paths.all_rootfs), *(disk for disk in overlays if not KEPT.fullmatch(disk.name))),
        kept=(*ours(paths.kept), *snapshots, *(disk for disk in overlays if KEPT.fullmatch(disk.name))),
        images=images,
        archives=named(paths.images, ARCHIVE),
        database=parts,
        files=files,
        foreign=(),
        names=names,
        used_bytes=shutil.disk_usage(paths.root).used if paths.root.is_dir() else 0,
    )
    return _with_foreign(estate, paths)


def _with_foreign(estate: Estate, paths: Paths) -> Estate:
    ours = {*estate.homes, *estate.roots, *estate.kept, *estate.images, *estate.archives}
    ours |= {*estate.database, *estate.files, *paths.storage, paths.hkd_lock, paths.run}
    found = [entry for folder in (paths.root, *paths.storage) for entry in _entries(folder)]
    return replace(estate, foreign=tuple(entry for entry in found if entry not in ours))


def _remove(settings: Settings, estate: Estate, report: Report) -> None:
    paths = Paths(settings)
    note = paths.root / UNFINISHED
    try:
        if paths.root.is_dir() and not (note.exists() and _noted(paths) == estate.installation):
            _write_note(note, estate.installation)
        report("database")
        for file in (*estate.database, *(file for file in estate.files if file != note)):
            _discard(file)
        for what, volumes in (
            ("homes", estate.homes),
            ("roots", (*estate.roots, *estate.kept)),
            ("images", estate.images),
        ):
            if volumes:
                report(what)
            for volume in volumes:
                delete(volume)
        for file in estate.archives:
            _discard(file)
        records = (paths.consoles, paths.captures)
        for folder in (*paths.storage, *records, paths.lxc, paths.ssl, paths.ssl.parent):
            with contextlib.suppress(OSError):  # what others put there stays, and so does its directory
                folder.rmdir()
        note.unlink(missing_ok=True)
        paths.hkd_lock.unlink(missing_ok=True)
    except OSError as exc:
        raise HostError(
            f"{exc.filename or paths.root} cannot be removed: {exc.strerror or exc}",
            hint="mend that and run qa admin reset again",
        ) from exc


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_note(note: Path, installation: InstallationId | None) -> None:
    """Note who we are, while the database still tells: whole or not at all.

    :raises HostError: it cannot be written; nothing was removed
    """
    try:
        note.unlink(missing_ok=True)
        with unnamed(note.parent) as descriptor:
            os.write(descriptor, f"{installation or ''}\n".encode())
            give_name(descriptor, note)
    except OSError as exc:
        raise HostError(f"{note} cannot be written: {exc.strerror}", hint="nothing was removed") from exc


def _owner(volume: Path) -> InstallationId | None:
    try:
        mark = marks.mark_of(volume)
    except ApplianceError:
        return None
    return None if mark is None else mark.installation


def _in_groups(top: Path, installation: InstallationId) -> list[int]:
    """VMs with processes in their control groups: an init can survive the holder of its lock."""
    found = []
    for folder in (top, *_entries(top)):
        with contextlib.suppress(OSError):  # it has just gone, and so has none in it
            for group in folder.glob("lxc.payload.*"):
                match = re.fullmatch(rf"lxc\.payload\.qvd-{re.escape(installation)}-(\d+)(-\d+)?", group.name)
                if match and _is_alive(group):
                    found.append(int(match[1]))
    return found


def _is_alive(group: Path) -> bool:
    """Whether there are processes in a control group or below; one that changes meanwhile has some."""
    try:
        return any(_populated(file) for file in group.rglob("cgroup.procs"))
    except OSError:
        return True


def _populated(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return bool(file.read_text().strip())
    return False


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _number(volume: Path) -> int:
    match = re.match(r"\.?(\d+)-", volume.name)
    return int(match[1]) if match else 0


def _named(names: Sequence[str]) -> str:
    return f": {few(names)}" if names else ""
