"""Limits of guests and the host's reserve, on real pools."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.config import Settings
from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.storage import quotas, subvolumes
from appliance.storage.btrfs import BtrfsDisks, erase_di
from appliance.storage.importer import import_di
from appliance.storage.paths import Paths
from appliance.storage.quotas import Mode
from appliance.storage.shares import Policy
from appliance.values import Portion
from tests.support import pool as pools
from tests.support.pool import tiny_root

pytestmark = pytest.mark.host

MARK = Mark(installation=InstallationId("0a1b2c3d"), vm_id=VmId(1), vm_uuid="u-1", di_id=DiId(1))
OTHER = replace(MARK, vm_id=VmId(2), vm_uuid="u-2")
MIB = 1 << 20
NOW = datetime(2030, 1, 31, 18, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Bench:
    """A pool of its own with one image."""

    mounted: Path
    paths: Paths
    disks: BtrfsDisks

    @property
    def group(self) -> int:
        """The group of all guests."""
        return quotas.make_group(self.mounted, int(MARK.installation, 16))

    @property
    def is_simple(self) -> bool:
        """Whether what a home has written counts for it for as long as a snapshot holds it."""
        return quotas.mode(self.mounted) is Mode.SIMPLE

    def consistent(self) -> bool:
        """Whether the pool counts, after all that was done is on disk."""
        subvolumes.commit(self.mounted)
        return quotas.is_consistent(self.mounted)


@pytest.fixture(params=["qgroup", "simple"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    with pools.pool("512M") as mounted:
        paths = Paths(Settings({"path.storage.root": str(mounted / "s"), "path.run": str(tmp_path)}))
        disks = BtrfsDisks(paths, MARK.installation, policy=Policy(request.param, Portion(0.0, 100 * MIB)))
        await disks.check()
        await import_di(paths, MARK.di_id, tiny_root(tmp_path / "tiny.tar.gz"), lambda _: None)
        yield Bench(mounted, paths, disks)


async def test_a_new_pool_counts_simply_where_the_kernel_can(tmp_path: Path) -> None:
    with pools.pool("512M") as mounted:
        paths = Paths(Settings({"path.storage.root": str(mounted / "s"), "path.run": str(tmp_path)}))
        await BtrfsDisks(paths, MARK.installation).check()
        assert quotas.mode(mounted) is (Mode.SIMPLE if quotas.knows_simple() else Mode.QGROUP)


async def test_a_pool_with_homes_is_counted_in_full(tmp_path: Path) -> None:
    with pools.pool("512M") as mounted:
        paths = Paths(Settings({"path.storage.root": str(mounted / "s"), "path.run": str(tmp_path)}))
        uncounted = BtrfsDisks(paths, MARK.installation, policy=Policy("none"))
        await uncounted.check()
        await uncounted.ensure_home(MARK, size_mib=None)
        await BtrfsDisks(paths, MARK.installation).check()
        assert quotas.mode(mounted) is Mode.QGROUP


def written(file: Path, *, mib: int) -> int:
    """How many MiB of noise a file took before its quota or the pool was full."""
    done = 0
    with suppress(OSError), file.open("wb") as stream:
        for done in range(mib):  # noqa: B007  # how far it came is the result
            stream.write(os.urandom(MIB))
            stream.flush()
            os.fsync(stream.fileno())
        done = mib
    return done


def until_dropped(pool: Path) -> None:
    """Wait until nothing is left of deleted subvolumes."""
    while subprocess.run(["btrfs", "subvolume", "list", "-d", pool], check=True, capture_output=True).stdout:
        subvolumes.commit(pool)
        time.sleep(0.05)


class TestLimits:
    async def test_a_root_takes_as_much_as_it_may_beside_its_image(self, bench: Bench) -> None:
        root = await bench.disks.clone_root(MARK, keep=False, limit_mib=16)
        assert 14 <= written(root / "big", mib=40) <= 16
        (root / "big").unlink()
        assert bench.consistent()
        assert written(root / "again", mib=12) == 12

    async def test_a_changed_limit_counts_from_the_next_start(self, bench: Bench) -> None:
        root = await bench.disks.clone_root(MARK, keep=True, limit_mib=8)
        assert written(root / "one", mib=20) < 8
        await bench.disks.clone_root(MARK, keep=True, limit_mib=64)
        assert written(root / "two", mib=20) == 20
        await bench.disks.clone_root(MARK, keep=True, limit_mib=None)
        assert written(root / "three", mib=60) == 60

    async def test_a_home_grows_to_its_size_and_no_further(self, bench: Bench) -> None:
        home = await bench.disks.ensure_home(MARK, size_mib=16)
        assert 14 <= written(home / "big", mib=40) <= 16
        assert await bench.disks.ensure_home(MARK, size_mib=None) == home
        assert written(home / "more", mib=40) == 40

    async def test_a_full_home_changes_its_image(self, bench: Bench) -> None:
        home = await bench.disks.ensure_home(MARK, size_mib=16)
        assert written(home / "big", mib=40) <= 16
        aside = bench.disks.home_aside(MARK.vm_id, NOW)
        assert await bench.disks.snapshot_home(MARK, aside)
        await bench.disks.ensure_home(replace(MARK, di_id=DiId(2)), size_mib=16)
        assert await bench.disks.home_used_with(MARK) == DiId(2)
        assert bench.consistent()
        assert written(home / "more", mib=40) <= (16 if bench.is_simple else 2)

    async def test_what_is_deleted_is_free_though_a_snapshot_holds_it(self, bench: Bench) -> None:
        home = await bench.disks.ensure_home(MARK, size_mib=16)
        for number in range(2):
            assert written(home / "big", mib=12) == 12
            assert await bench.disks.snapshot_home(MARK, bench.disks.home_aside(MARK.vm_id, NOW))
            await bench.disks.ensure_home(replace(MARK, di_id=DiId(number)), size_mib=16)
            (home / "big").unlink()
            assert bench.consistent()
        assert written(home / "big", mib=12) == 12
        assert quotas.members(bench.mounted, bench.group) >= {
            subvolumes.id_of(path) for path in bench.paths.kept.iterdir()
        }

    async def test_what_moves_between_root_and_home_is_not_had_for_nothing(self, bench: Bench) -> None:
        """Data shared by reflinks belongs to both, so taking turns in owning it gains nothing."""
        root = await bench.disks.clone_root(MARK, keep=False, limit_mib=16)
        home = await bench.disks.ensure_home(MARK, size_mib=16)
        assert written(root / "one", mib=12) == 12
        subprocess.run(["cp", "--reflink=always", root / "one", home / "one"], check=True)
        assert bench.consistent()
        assert written(root / "two", mib=12) <= 4
        assert written(home / "two", mib=40) <= 16

    async def test_groups_of_what_is_gone_go_too(self, bench: Bench) -> None:
        root = await bench.disks.clone_root(MARK, keep=False, limit_mib=16)
        number = subvolumes.id_of(root)
        written(root / "big", mib=4)
        await bench.disks.erase_root(MARK.vm_id)
        until_dropped(bench.mounted)
        for group in quotas.orphans(bench.mounted):
            quotas.remove_group(bench.mounted, group)
        assert quotas.orphans(bench.mounted) == []
        assert quotas.use(bench.mounted, number) is None
        assert bench.consistent()


class TestReserve:
    async def test_guests_that_fill_all_leave_the_host_its_part(self, bench: Bench) -> None:
        root = await bench.disks.clone_root(MARK, keep=False)
        home = await bench.disks.ensure_home(OTHER, size_mib=None)
        await bench.disks.keep_reserve()
        assert 150 < written(root / "big", mib=500) < 400
        assert written(home / "more", mib=100) < 60
        host = bench.paths.root / "host"
        assert written(host, mib=40) == 40, "the host's own part is gone as well"
        assert bench.consistent()

    async def test_without_a_reserve_the_host_is_left_with_nothing(self, bench: Bench) -> None:
        careless = BtrfsDisks(bench.paths, MARK.installation, policy=Policy("none"))
        quotas.limit(bench.mounted, None, group=bench.group)
        home = await careless.ensure_home(MARK, size_mib=8)
        assert written(home / "big", mib=500) > 150
        assert written(bench.paths.root / "host", mib=40) < 40

    async def test_what_the_host_takes_is_taken_from_the_guests(self, bench: Bench) -> None:
        home = await bench.disks.ensure_home(MARK, size_mib=None)
        assert written(bench.paths.root / "host", mib=200) == 200
        subvolumes.commit(bench.mounted)
        await bench.disks.keep_reserve()
        assert written(home / "big", mib=500) < 200
        assert written(bench.paths.root / "more", mib=40) == 40

    async def test_every_start_and_end_keeps_the_count(self, bench: Bench) -> None:
        for mark in (MARK, OTHER, MARK, OTHER):
            root = await bench.disks.clone_root(mark, keep=False, limit_mib=32)
            await bench.disks.ensure_home(mark, size_mib=32)
            assert written(root / "big", mib=8) == 8
        await erase_di(bench.paths, MARK.di_id)
        await bench.disks.erase_root(MARK.vm_id)
        until_dropped(bench.mounted)
        assert bench.consistent()
        used = quotas.use(bench.mounted, bench.group)
        assert used is not None
        assert 8 * MIB <= used.referenced <= 16 * MIB


async def test_a_pool_that_did_not_count_is_counted_whole(tmp_path: Path) -> None:
    """A pool of an older version: images, roots and homes are there before the first count."""
    with pools.pool("512M") as mounted:
        paths = Paths(Settings({"path.storage.root": str(mounted / "s"), "path.run": str(tmp_path)}))
        before = BtrfsDisks(paths, MARK.installation, policy=Policy("none"))
        await before.check()
        assert quotas.mode(mounted) is Mode.NONE
        await import_di(paths, MARK.di_id, tiny_root(tmp_path / "tiny.tar.gz"), lambda _: None)
        root = await before.clone_root(MARK, keep=True, limit_mib=8)
        assert written(root / "big", mib=20) == 20
        after = BtrfsDisks(paths, MARK.installation)
        await after.check()
        assert quotas.mode(mounted) is Mode.QGROUP
        other = await after.clone_root(OTHER, keep=True, limit_mib=8)
        assert written(other / "big", mib=20) < 8
        subvolumes.commit(mounted)
        assert quotas.is_consistent(mounted)


async def test_a_pool_that_lost_count_counts_anew(tmp_path: Path) -> None:
    with pools.pool("512M") as mounted:
        paths = Paths(Settings({"path.storage.root": str(mounted / "s"), "path.run": str(tmp_path)}))
        disks = BtrfsDisks(paths, MARK.installation, policy=Policy("qgroup"))
        await disks.check()
        await import_di(paths, MARK.di_id, tiny_root(tmp_path / "tiny.tar.gz"), lambda _: None)
        home = await disks.ensure_home(MARK, size_mib=8)
        await disks.clone_root(MARK, keep=False)
        subprocess.run(
            ["btrfs", "-q", "subvolume", "snapshot", paths.basefs(MARK.di_id), mounted / "x"], check=True
        )
        subvolumes.commit(mounted)
        assert not quotas.is_consistent(mounted), "a foreign snapshot no longer makes the pool lose count"
        await disks.keep_reserve()
        quotas.await_rescan(mounted)
        assert quotas.is_consistent(mounted)
        assert written(home / "big", mib=20) < 8
