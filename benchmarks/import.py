"""What an import costs, against plain `tar` into the same pool.

Ours: `images.add` of the desktop image from the staging directory, with all that it does: copy (a clone
there), hash, screen, jail, rows, and everything on disk at its end; and from another file system, for the
record. Plain: `tar` into a fresh subvolume, and one sync of the pool, so that as much is on disk. Turn and
turn about, as these machines are shared.

Then a next version, from the staging directory on the pool: some large files with a few changed blocks,
some other files, some that are new or gone. What the whole pool holds more afterwards, archive included,
against the blocks that differ and the metadata that plain `tar` needs for the same tree.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.clock import SystemClock
from appliance.config import DATABASE_URL, read_file
from appliance.filters import Filter
from appliance.model import Di
from appliance.ops import image_add, image_trash, osfs
from appliance.storage.store import Store
from benchmarks.report import result, spread
from scripts.trial import BIN, ROOT, command

IMAGE = ROOT / "build" / "desktop.tar.zst"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
TIME_TARGET, ROOM_TARGET = 1.15, 1.1
BLOCK = 4096
LARGE = 1 << 20
USED = re.compile(r"^(Data|Metadata)\S*, \S+ total=\d+, used=(\d+)", re.MULTILINE)


def main() -> int:
    """Make a pool, measure on it, clean up."""
    command(sys.executable, str(ROOT / "images" / "build_lxc.py"), str(IMAGE), timeout_s=1800)
    report = ROOT / "bench" / "import.txt"
    report.parent.mkdir(exist_ok=True)
    with pool() as (directory, mounted):
        lines = asyncio.run(measure(directory, mounted))
    text = "\n".join(lines) + "\n"
    print(text, end="")
    report.write_text(text)
    return 0


@contextmanager
def pool() -> Iterator[tuple[Path, Path]]:
    """A directory, and a pool in it; both go at the end."""
    directory = Path(tempfile.mkdtemp(prefix="qvd-bench-"))
    mounted = directory / "pool"
    try:
        mounted.mkdir()
        command("truncate", "-s", "12G", str(directory / "pool.btrfs"))
        command("mkfs.btrfs", "-q", str(directory / "pool.btrfs"))
        command("mount", "-o", "loop", str(directory / "pool.btrfs"), str(mounted))
        yield directory, mounted
    finally:
        if mounted.is_mount():
            command("umount", str(mounted))
        shutil.rmtree(directory)


async def measure(directory: Path, mounted: Path) -> list[str]:
    """Both sides, and then the next version."""
    ours = await Ours.open(directory, mounted)
    plain = Plain(mounted)
    try:
        staged = mounted / "storage" / "staging" / IMAGE.name
        shutil.copy(IMAGE, staged)
        sides: list[tuple[str, Ours | Plain, Path]] = [
            ("ours", ours, staged),
            ("plain tar", plain, staged),
            ("ours, from elsewhere", ours, IMAGE),
        ]
        for _, side, archive in sides:  # what is read for the first time counts for nobody
            await side.unpack(archive)
            await side.clear()
        taken: dict[str, list[float]] = {name: [] for name, _, _ in sides}
        for turn in range(ROUNDS):
            for name, side, archive in sides[::-1] if turn % 2 else sides:
                begun = time.monotonic()
                await side.unpack(archive)
                taken[name].append(time.monotonic() - begun)
                await side.clear()
        ratios = [mine / theirs for mine, theirs in zip(taken["ours"], taken["plain tar"], strict=True)]
        return [
            f"A first version, {IMAGE.stat().st_size >> 20} MiB packed ({ROUNDS} each):",
            *(spread(f"  {name}", seconds) for name, seconds in taken.items()),
            *await next_version(ours, plain, directory, mounted),
            result("import.first.time", statistics.median(ratios), TIME_TARGET),
        ]
    finally:
        await ours.close()


async def next_version(ours: Ours, plain: Plain, directory: Path, mounted: Path) -> list[str]:
    """What a next version takes."""
    staged = mounted / "storage" / "staging" / "next.tar.zst"
    changes = change(IMAGE, staged, directory / "next.tar")
    await ours.unpack(IMAGE)
    before = used(mounted)
    begun = time.monotonic()
    await plain.unpack(staged)
    plainly = time.monotonic() - begun
    metadata = used(mounted)["Metadata"] - before["Metadata"]
    await plain.clear()
    before = used(mounted)
    begun = time.monotonic()
    await ours.unpack(staged)
    took = time.monotonic() - begun
    after = used(mounted)
    more = {kind: after[kind] - before[kind] for kind in after}
    return [
        f"A next version: {changes.files} files changed, new or gone, {changes.size >> 10} KiB of blocks:",
        f"  it took {took:.2f} s, plain tar {plainly:.2f} s",
        f"  data {more['Data'] >> 10} KiB, metadata {more['Metadata'] >> 10} KiB (tar: {metadata >> 10} KiB)",
        result("import.next.room", sum(more.values()) / (changes.size + metadata), ROOM_TARGET),
        result("import.next.data", more["Data"] / changes.size, ROOM_TARGET),
    ]


@dataclass(slots=True)
class Changes:
    """How the next version differs."""

    files: int = 0
    size: int = 0
    """Bytes of all blocks that differ."""


def change(archive: Path, target: Path, plain: Path) -> Changes:
    """Pack the next version of an archive."""
    dice, changes = random.Random(1), Changes()
    with plain.open("wb") as stream:
        subprocess.run(["zstd", "-dc", str(archive)], stdout=stream, check=True)
    packing = subprocess.Popen(["zstd", "-q", "-f", "-o", str(target)], stdin=subprocess.PIPE)
    assert packing.stdin is not None
    with tarfile.open(plain) as old, tarfile.open(fileobj=packing.stdin, mode="w|") as new:
        linked = {member.linkname for member in old if member.islnk()}
        for number, member in enumerate(old):
            content = old.extractfile(member) if member.isreg() else None
            if content is None or member.size <= BLOCK or member.name in linked:
                new.addfile(member, content)
                continue
            if number % 100 == 7:
                changes.files += 1
                continue
            held = bytearray(content.read())
            if member.size > LARGE and number % 3 == 0:
                places = {dice.randrange(member.size) // BLOCK for _ in range(8)}
            elif number % 20 == 3:
                places = set(range(-(-member.size // BLOCK)))
            else:
                places = set()
            for place in places:
                held[place * BLOCK] ^= 1
                changes.size += BLOCK
            changes.files += bool(places)
            new.addfile(member, io.BytesIO(held))
        for number in range(20):
            fresh = tarfile.TarInfo(f"usr/share/new{number}")
            fresh.size = 64 * BLOCK
            changes.files += 1
            changes.size += fresh.size
            new.addfile(fresh, io.BytesIO(dice.randbytes(fresh.size)))
    packing.stdin.close()
    assert packing.wait() == 0
    plain.unlink()
    return changes


def used(mounted: Path) -> dict[str, int]:
    """Bytes of data and of metadata that the pool holds."""
    command("btrfs", "filesystem", "sync", str(mounted))
    words = ["btrfs", "filesystem", "df", "--raw", str(mounted)]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return {kind: int(number) for kind, number in USED.findall(told)}


class Ours:
    """Imports into an installation on the pool."""

    def __init__(self, store: Store, node: Path, mounted: Path) -> None:
        self._store = store
        self._settings = read_file(node)
        self._mounted = mounted

    @classmethod
    async def open(cls, directory: Path, mounted: Path) -> Ours:
        """An installation with one OSF, whose database is beside the pool as everything else."""
        node = directory / "node.conf"
        node.write_text(
            "nodename = bench\nvm.hypervisor = lxc\nvm.network.ip.start = 10.9.0.2\nvm.network.netmask = 29\n"
            f"vm.network.gateway = 10.9.0.1\npath.run = {directory}/run\n"
            f"path.storage.root = {mounted}/storage\n"
        )
        for words in (("admin", "init", "--yes"), ("osf", "add", "name=small")):
            command(str(BIN / "qa"), "--config", str(node), *words)
        store = await Store.open(read_file(node)[DATABASE_URL], SystemClock())
        return cls(store, node, mounted)

    async def unpack(self, archive: Path) -> Di:
        """One import."""
        async with self._store.read() as tx:
            osf = await osfs.named(tx, "small")
        di, _ = await image_add.add(
            self._store, self._settings, osf, archive, version=None, by="bench", report=lambda *_: None
        )
        return di

    async def clear(self) -> None:
        """Delete all images, and wait until the pool has forgotten them."""
        async with self._store.write() as tx:
            gone, _ = await image_trash.retire(tx, self._settings, Filter(), by="bench")
        await image_trash.purge(self._store, self._settings, [di.id for di in gone], by="bench")
        await asyncio.to_thread(settle, self._mounted)

    async def close(self) -> None:
        """Let go of the database."""
        await self._store.close()


class Plain:
    """`tar`, and nothing else."""

    def __init__(self, mounted: Path) -> None:
        self._mounted = mounted
        self._target = mounted / "plain"

    async def unpack(self, archive: Path) -> None:
        """Into a fresh subvolume, and to the disk."""
        command("btrfs", "-q", "subvolume", "create", str(self._target))
        words = ("tar", "-xpf", str(archive), "--numeric-owner", "--xattrs", "-C", str(self._target))
        unpacking = await asyncio.create_subprocess_exec(*words)
        assert await unpacking.wait() == 0
        command("btrfs", "filesystem", "sync", str(self._mounted))

    async def clear(self) -> None:
        """Delete it, and wait until the pool has forgotten it."""
        command("btrfs", "-q", "subvolume", "delete", str(self._target))
        await asyncio.to_thread(settle, self._mounted)


def settle(mounted: Path) -> None:
    """Wait until what was deleted is gone."""
    command("btrfs", "filesystem", "sync", str(mounted))
    command("btrfs", "subvolume", "sync", str(mounted))


if __name__ == "__main__":
    sys.exit(main())
