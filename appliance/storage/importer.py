"""Unpacks the archive of a disk image into a read-only subvolume, whole or not at all.

What kind of archive it is comes from its first bytes, not from its name. Its decompressor and tar run
confined (see jail); between them the archive is looked at as it passes (see screen). Owners are kept as
numbers. What is below /dev is left out: a guest gets its devices when it starts.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from appliance import proc
from appliance.clock import SystemClock, Timers
from appliance.errors import ImageError, MissingToolError, PoolFullError, ToolError, VolumeError
from appliance.model import DiId
from appliance.proc import Completed
from appliance.storage import openat, quotas, subvolumes, volumes
from appliance.storage.jail import TARGET, confined
from appliance.storage.paths import Paths
from appliance.storage.quotas import Mode
from appliance.storage.room import ROOM_LEFT, compression
from appliance.storage.screen import Bounds, Screen, TooBigError
from appliance.storage.sharing import PreviousGoneError, Sharing, sharing_with
from appliance.storage.volumes import explained
from appliance.threads import in_thread

logger = logging.getLogger(__name__)

Progress = Callable[[float], None]
"""Told now and then how much of the archive has been read, from 0 to 1."""

UNPACK_S = 3600.0
LOOK_S = 0.25
PIECE = 1 << 20
HEAD = 512
"""How many bytes of an archive tell what it is."""
LONGEST_REASON = 200
LONGEST_COMPLAINTS = 1 << 16
"""Bytes. tar complains of each member that it cannot make, in a line as long as four of its names."""

TAR = (
    *("tar", "--extract", "--file=-", f"--directory={TARGET}", "--numeric-owner", "--preserve-permissions"),
    *("--same-owner", "--delay-directory-restore", "--xattrs", "--xattrs-include=security.capability"),
    *("--anchored", "--exclude=./dev/*", "--exclude=dev/*"),
)
CAPABILITIES = ("chown", "dac_override", "fowner", "fsetid", "setfcap")
"""What tar needs to give files their owners, modes and capabilities; without mknod it makes no devices."""
DECORATION = re.compile(r"^(.*stdin[^:]*: *|tar: |(bzip2|xz|zstd): )")
"""What tar and decompressors say before what is wrong."""
BYPLAY = ("Exiting with failure", "Error is not recoverable", "tar: Child", "Use `tar --", "Removing leading")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an image may be."""

    size: int = 64 << 30
    """Bytes of all its files, and of each with its holes (`storage.import.max_size`)."""
    files: int = 1_000_000
    """How many files (`storage.import.max_files`)."""


async def import_di(
    paths: Paths,
    di_id: DiId,
    archive: Path,
    progress: Progress,
    *,
    previous: DiId | None = None,
    limits: Limits | None = None,
    timers: Timers | None = None,
) -> None:
    """Unpack an archive as `basefs/<di id>`; done already, it does nothing.

    What it has in common with the image `previous` takes no room in the pool.

    :raises ImageError: the archive is damaged, or what it holds is no root of a container
    :raises VolumeError: the pool is full
    """
    if await asyncio.to_thread(paths.basefs(di_id).exists):
        return
    try:
        source = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise ImageError(f"the archive {archive} cannot be read: {exc.strerror}") from exc
    name, head = archive.name.removeprefix(f"{di_id}-"), os.pread(source, HEAD, 0)
    try:
        async with _watched(source, progress, timers or SystemClock()):
            try:
                await import_stream(paths, di_id, name, head, source, previous=previous, limits=limits)
            except PreviousGoneError:
                os.lseek(source, 0, os.SEEK_SET)
                await import_stream(paths, di_id, name, head, source, limits=limits)
    finally:
        os.close(source)
    progress(1.0)


async def import_stream(
    paths: Paths,
    di_id: DiId,
    name: str,
    head: bytes,
    source: int,
    *,
    previous: DiId | None = None,
    limits: Limits | None = None,
) -> None:
    """The same for what comes out of the descriptor `source` and begins with `head`.

    :raises PreviousGoneError: the image `previous` was deleted meanwhile; it is to be imported without
    """
    base = paths.basefs(di_id)
    fresh = base.with_name(f".{di_id}.unpacking")
    await in_thread(volumes.delete, fresh)
    await in_thread(subvolumes.create, fresh)
    try:
        with explained(f"{name} cannot be unpacked"), _shared(paths, previous) as sharing:
            await _unpack(name, head, source, fresh, limits or Limits(), sharing)
            if sharing:
                await in_thread(sharing.fill, fresh)
                logger.info("blocks shared archive=%s with=%s differ=%d", name, previous, sharing.written)
        await in_thread(_finish, name, fresh, base)
    except BaseException:
        with suppress(VolumeError):
            volumes.delete(fresh)
        raise


def _shared(paths: Paths, previous: DiId | None) -> AbstractContextManager[Sharing | None]:
    """What can be shared with an image, if it is there.

    A full quota group has to be counted anew when a tree that shares blocks enters it, so there is none then.
    """
    bases = paths.all_basefs
    if previous is None or (quotas.mode(bases) is Mode.QGROUP and quotas.can_group(Mode.QGROUP)):
        return nullcontext()
    if not paths.basefs(previous).exists():
        return nullcontext()
    return sharing_with(paths.basefs(previous), bases)


async def _unpack(
    name: str, head: bytes, source: int, target: Path, limits: Limits, sharing: Sharing | None
) -> None:
    try:
        program = compression(head)
    except ImageError as exc:
        raise ImageError(f"the archive {name} is unusable: {exc}") from exc
    if program and shutil.which(program) is None:
        raise MissingToolError(f"the program {program} is missing", hint="run scripts/setup")
    room = max(0, shutil.disk_usage(target).free - ROOM_LEFT)
    bounds = Bounds(size=min(limits.size, room), longest=limits.size, members=limits.files)
    screen = Screen(bounds, sharing)
    failure = await _stream(name, source, program, target, screen, bounds)
    if failure:
        raise failure
    if screen.devices:
        logger.info("devices below /dev left out archive=%s count=%d", name, screen.devices)


@asynccontextmanager
async def _watched(source: int, progress: Progress, timers: Timers) -> AsyncIterator[None]:
    """Tell meanwhile how far it is: our descriptor and its reader's share one position."""
    size = max(1, os.fstat(source).st_size)

    async def watch() -> None:
        while True:
            progress(min(1.0, os.lseek(source, 0, os.SEEK_CUR) / size))
            await timers.sleep(LOOK_S)

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])


async def _stream(
    name: str, source: int, program: str, target: Path, screen: Screen, bounds: Bounds
) -> Exception | None:
    """Let the archive pass through its decompressor, if it needs one, before our eyes, into tar.

    Each end of a pipe is closed when its user has ended, so that whoever ends first ends the others.
    """
    to_us, to_tar = Pipe(), Pipe()
    unpacking: asyncio.Task[Completed] | None = None
    try:
        async with asyncio.TaskGroup() as group:
            if program:
                command = confined(
                    [program, "-dc"], target=None, capabilities=(), longest_file=bounds.longest
                )
                unpacking = group.create_task(_run(command, source, to_us.writer, to_us.close_writer))
            command = confined(TAR, target=target, capabilities=CAPABILITIES, longest_file=bounds.longest)
            extracting = group.create_task(_run(command, to_tar.reader, None, to_tar.close_reader))
            relaying = group.create_task(_passed(to_us.reader if program else source, to_tar, to_us, screen))
    finally:
        for pipe in (to_us, to_tar):
            pipe.close_reader()
            pipe.close_writer()
    refusal, tar_left = relaying.result()
    if isinstance(refusal, TooBigError) and bounds.size < bounds.longest:
        return _full(name)
    if isinstance(refusal, OSError):
        return _full(name) if refusal.errno in PoolFullError.numbers else refusal
    if isinstance(refusal, ImageError):
        return ImageError(f"the archive {name} is refused: {refusal.message}", hint=refusal.hint)
    if unpacking is not None and unpacking.result().status != 0 and not tar_left:
        return _failure(name, unpacking.result())
    return _failure(name, extracting.result()) if extracting.result().status != 0 else None


async def _run(command: list[str], stdin: int, stdout: int | None, ended: Callable[[], None]) -> Completed:
    try:
        return await proc.run(
            command,
            stdin=stdin,
            stdout=stdout,
            check=False,
            timeout_s=UNPACK_S,
            longest_stderr=LONGEST_COMPLAINTS,
        )
    except ToolError as exc:
        return Completed(exc.status, b"", exc.stderr.encode())
    finally:
        ended()


async def _passed(reader: int, to_tar: Pipe, to_us: Pipe, screen: Screen) -> tuple[Exception | None, bool]:
    try:
        return await in_thread(_relay, reader, to_tar.writer, screen)
    finally:
        to_us.close_reader()
        to_tar.close_writer()


def _relay(reader: int, writer: int, screen: Screen) -> tuple[Exception | None, bool]:
    """Pass the archive on; returns why that was ended, and whether tar left before its end."""
    try:
        while piece := os.read(reader, PIECE):
            _write(writer, screen.feed(piece))
        _write(writer, screen.rest())
    except BrokenPipeError:
        return None, True
    except (ImageError, OSError) as exc:
        return exc, False
    return None, False


def _write(writer: int, pieces: Sequence[memoryview | bytes]) -> None:
    view = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
    while view:
        view = view[os.write(writer, view) :]


class Pipe:
    """A pipe whose ends may be closed more than once."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        self._open = {self.reader, self.writer}
        with suppress(OSError):
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIECE)

    def close_reader(self) -> None:
        self._close(self.reader)

    def close_writer(self) -> None:
        self._close(self.writer)

    def _close(self, end: int) -> None:
        if end in self._open:
            self._open.remove(end)
            os.close(end)


def _failure(name: str, done: Completed) -> Exception:
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines()]
    said = [line for line in lines if line and not any(words in line for words in BYPLAY)]
    if any("No space left" in line or "quota exceeded" in line for line in said):
        return _full(name)
    reason = DECORATION.sub("", said[0]) if said else f"it was not unpacked (status {done.status})"
    if len(reason) > LONGEST_REASON:
        reason = f"{reason[: LONGEST_REASON // 2]}…{reason[-LONGEST_REASON // 2 :]}"
    return ImageError(f"the archive {name} is damaged: {reason}", hint="copy or build it again")


def _full(name: str) -> PoolFullError:
    return PoolFullError(
        f"the storage pool is full: {name} does not fit", hint="delete old images or enlarge the pool"
    )


def _finish(name: str, fresh: Path, base: Path) -> None:
    try:
        openat.resolved(fresh, "/sbin/init")
    except OSError as exc:
        if (fresh / "rootfs").is_dir():
            raise ImageError(
                f"the archive {name} holds a root inside rootfs/ (an extended image)",
                hint="pack the contents of rootfs/ alone: tar -C rootfs -c .",
            ) from exc
        if (fresh / "oci-layout").is_file() or (fresh / "manifest.json").is_file():
            raise ImageError(
                f"the archive {name} holds the layers of an OCI or Docker image, not a root",
                hint="pack the root of a container made from it: podman export, docker export",
            ) from exc
        raise ImageError(f"the archive {name} holds no root: there is no /sbin/init") from exc
    try:
        subvolumes.commit(fresh)
        subvolumes.seal(fresh)
        fresh.rename(base)
    except OSError as exc:
        raise VolumeError(f"{base} cannot be put in place: {exc.strerror}") from exc
