"""The next version of an image: exactly what a fresh import makes, in blocks of the previous one."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings

from appliance.config import Settings
from appliance.errors import ApplianceError, ImageError, PoolFullError
from appliance.model import DiId
from appliance.storage import subvolumes, volumes
from appliance.storage.importer import Limits, import_di
from appliance.storage.paths import Paths
from appliance.storage.sharing import PreviousGoneError, sharing_with
from tests.support import archives, trees
from tests.support import pool as pools
from tests.support.archives import Hostile
from tests.support.trees import BLOCK, Entry, Member, tree

pytestmark = pytest.mark.host

BEFORE, ALONE, AFTER = DiId(1), DiId(2), DiId(3)
MIB = 1 << 20
Outcome = dict[str, Entry] | str


@pytest.fixture(scope="module")
def paths(pool: Path) -> Iterator[Paths]:
    """Storage on the pool, of which nothing is left."""
    storage = pool / "sharing"
    subvolumes.create(storage)
    try:
        yield laid_out(storage)
    finally:
        volumes.delete(storage)


@pytest.fixture(autouse=True)
def nothing_is_left(paths: Paths) -> Iterator[None]:
    yield
    clear(paths)


def laid_out(storage: Path) -> Paths:
    paths = Paths(Settings({"path.storage.root": str(storage)}))
    paths.all_basefs.mkdir(parents=True)
    return paths


def clear(paths: Paths) -> None:
    for base in paths.all_basefs.iterdir():
        volumes.delete(base)


async def imported(paths: Paths, di: DiId, archive: Path, previous: DiId | None = None) -> Path:
    await import_di(paths, di, archive, lambda _: None, previous=previous)
    return paths.basefs(di)


def outcome(paths: Paths, di: DiId, archive: Path, previous: DiId | None = None) -> Outcome:
    """The tree that an import makes, or why it makes none."""
    try:
        return tree(asyncio.run(imported(paths, di, archive, previous)))
    except ApplianceError as exc:
        return str(exc)


def exclusive(base: Path) -> int:
    """Bytes of a tree's files that no other tree has."""
    subprocess.run(["btrfs", "filesystem", "sync", base], check=True, capture_output=True)
    words = ["btrfs", "filesystem", "du", "--raw", "-s", str(base)]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return int(told.splitlines()[1].split()[1])


@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.generate])
@given(before=trees.members(), after=trees.members())
def test_any_tree_after_any_other_is_as_if_it_came_first(
    paths: Paths, tmp_path_factory: pytest.TempPathFactory, before: list[Member], after: list[Member]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    first, second = trees.pack(folder / "a.tar", before), trees.pack(folder / "b.tar", after)
    try:
        outcome(paths, BEFORE, first)
        alone = outcome(paths, ALONE, second)
        assert outcome(paths, AFTER, second, BEFORE) == alone
    finally:
        clear(paths)


async def test_what_has_not_changed_takes_no_room(paths: Paths, tmp_path: Path) -> None:
    """A large file with a few other blocks, one that grew, one that shrank, one of many that is new."""
    noise = random.Random(5)
    large, grown, shrunk = (noise.randbytes(8 * MIB) for _ in range(3))
    small = [Member(f"small{number}", content=noise.randbytes(5000)) for number in range(50)]
    before = [
        *(Member("large", content=large), Member("grown", content=grown), Member("shrunk", content=shrunk)),
        *small,
    ]
    patched = bytearray(large)
    for place in (0, 1 * MIB + 5, 3 * MIB + 4090, 8 * MIB - 1):
        patched[place] ^= 1
    after = [
        Member("large", content=bytes(patched)),
        Member("grown", content=grown + noise.randbytes(BLOCK)),
        Member("shrunk", content=shrunk[: 2 * MIB + 100]),
        Member("new", content=noise.randbytes(64 * BLOCK)),
        *small[:-1],
    ]
    await imported(paths, BEFORE, trees.pack(tmp_path / "a.tar", before))
    second = trees.pack(tmp_path / "b.tar", after)
    shared = await imported(paths, AFTER, second, BEFORE)
    alone = await imported(paths, ALONE, second)
    assert tree(shared) == tree(alone)
    changed = (4 + 1 + 1 + 64) * BLOCK
    assert changed <= exclusive(shared) + BLOCK
    assert exclusive(shared) <= 1.1 * changed
    assert exclusive(alone) >= 10 * MIB
    await asyncio.to_thread(volumes.delete, paths.basefs(BEFORE))
    assert tree(shared) == tree(alone), "what is shared outlives its first owner"
    with pytest.raises(OSError, match="Read-only"):
        (shared / "file").touch()


async def test_a_previous_version_that_is_deleted_meanwhile_is_done_without(
    paths: Paths, tmp_path: Path
) -> None:
    """It goes as soon as tar has unpacked what is to be filled from it."""
    content = random.Random(6).randbytes(64 * BLOCK)
    archive = trees.pack(tmp_path / "a.tar", [Member("f", content=content), Member("g", content=content)])
    await imported(paths, BEFORE, archive)
    unpacking = paths.all_basefs / f".{AFTER}.unpacking"

    def deleted() -> None:
        while not (unpacking / "g").exists() and not paths.basefs(AFTER).exists():
            pass
        volumes.delete(paths.basefs(BEFORE))

    deleting = asyncio.ensure_future(asyncio.to_thread(deleted))
    shared = await imported(paths, AFTER, archive, BEFORE)
    await deleting
    assert (shared / "f").read_bytes() == (shared / "g").read_bytes() == content


def test_a_previous_tree_that_is_gone_is_told_as_such(paths: Paths, tmp_path: Path) -> None:
    previous = paths.basefs(BEFORE)
    subvolumes.create(previous)
    (previous / "f").write_bytes(bytes(2 * BLOCK))
    with sharing_with(previous, paths.all_basefs) as sharing:
        assert sharing.takes("f", 2 * BLOCK)
        sharing.content(memoryview(bytes(2 * BLOCK)))
        (tmp_path / "f").write_bytes(sharing.stand_in())
        volumes.delete(previous)
        with pytest.raises(PreviousGoneError):
            sharing.fill(tmp_path)


@pytest.mark.parametrize("hostile", archives.HOSTILE, ids=lambda hostile: hostile.name)
async def test_a_hostile_next_version_is_refused_as_a_first_one_is(
    paths: Paths, tmp_path: Path, hostile: Hostile
) -> None:
    names = ("passwd", "etc/planted", "zeros", "x", "y")
    await imported(
        paths, BEFORE, trees.pack(tmp_path / "a.tar", [Member(n, content=bytes(9 * BLOCK)) for n in names])
    )
    archive = archives.pack(tmp_path / "evil.tar", hostile.pack)
    limits = Limits(size=archives.SIZE, files=archives.FILES)
    with pytest.raises(ImageError) as caught:
        await import_di(paths, AFTER, archive, lambda _: None, previous=BEFORE, limits=limits)
    assert "evil.tar is refused: " in str(caught.value)
    assert hostile.said in str(caught.value)
    assert [base.name for base in paths.all_basefs.iterdir()] == [str(BEFORE)]
    assert not Path(archives.OUTSIDE).exists()


@pytest.mark.parametrize("packer", ["cat", "gzip -1 -c", "zstd -q -c"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
async def test_a_next_version_that_is_cut_is_refused(
    paths: Paths, tmp_path: Path, packer: str, kept: float
) -> None:
    """Also within a file that the previous version has."""
    content = random.Random(7).randbytes(64 * BLOCK)
    plain = trees.pack(tmp_path / "plain.tar", [Member(name, content=content) for name in ("f", "g")])
    archive = tmp_path / "a.tar"
    subprocess.run(f"{packer} < {plain} > {archive}", shell=True, check=True)
    await imported(paths, BEFORE, archive)
    os.truncate(archive, int(archive.stat().st_size * kept))
    with pytest.raises(ImageError, match=r"a\.tar is damaged: \w"):
        await imported(paths, AFTER, archive, BEFORE)
    assert [base.name for base in paths.all_basefs.iterdir()] == [str(BEFORE)]


async def test_a_pool_that_has_no_room_for_the_changes_is_told_as_full(tmp_path: Path) -> None:
    noise = random.Random(8)
    names = [f"f{number}" for number in range(6)]
    with pools.pool("256M") as mounted:
        paths = laid_out(mounted / "storage")
        same = [Member(name, content=bytes(BLOCK)) for name in names]
        await imported(paths, BEFORE, trees.pack(tmp_path / "a.tar", same))
        other = [Member(name, content=noise.randbytes(20 * MIB)) for name in names]
        second = trees.pack(tmp_path / "b.tar", other)
        with pytest.raises(PoolFullError, match=r"b\.tar does not fit"):
            await imported(paths, AFTER, second, BEFORE)
        assert [base.name for base in paths.all_basefs.iterdir()] == [str(BEFORE)]
