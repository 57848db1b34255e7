"""Roots and homes of virtual machines, as the real `qemu-img` sees them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.clock import ManualClock
from appliance.config import Settings
from appliance.errors import PoolFullError, VolumeError
from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.storage import marks, nocow, quotas, reflink
from appliance.storage.paths import HOME_SNAPSHOT, Paths
from appliance.storage.qcow2 import HALF, DiskFiles, Qcow2Disks, bases_in_use
from appliance.storage.qcow2_empty import LARGEST, LONGEST_NAME, Backing, layout
from appliance.storage.qcow2_header import HEAD, DiskFormat, virtual_size
from tests.support import disks as images
from tests.support import pool as pools
from tests.support.contract import BackendContract, Rig
from tests.support.fake_backend import FakeBackend
from tests.support.faulty_qa import AUDITED, steps

pytestmark = pytest.mark.kvm

MIB = 1 << 20
ONE, DI, NEXT_DI = VmId(1), DiId(1), DiId(2)
MARK = Mark(installation=InstallationId("0a1b2c3d"), vm_id=ONE, vm_uuid="u-1", di_id=DI)
NEXT = replace(MARK, di_id=NEXT_DI)
NOW = datetime(2030, 1, 31, 18, 0, tzinfo=UTC)


def paths_in(storage: Path) -> Paths:
    """Where everything is, with a qcow2 image of 2 MiB as DI 1 and a raw one of 1 MiB as DI 2."""
    paths = Paths(Settings({"path.storage.root": str(storage), "path.run": str(storage / "run")}))
    paths.images.mkdir(parents=True)
    images.qcow2(paths.image(DI, "a desktop,v1:x.qcow2"), mib=2).chmod(0o400)
    images.raw(paths.image(NEXT_DI, "disk.img")).chmod(0o400)
    return paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return paths_in(tmp_path / "storage")


@pytest.fixture
async def disks(paths: Paths) -> Qcow2Disks:
    made = Qcow2Disks(paths, MARK.installation, calendar=ManualClock(NOW))
    await made.check()
    return made


def size(file: Path) -> int:
    with file.open("rb") as stream:
        return virtual_size(stream.read(HEAD))


def written(file: Path) -> Path:
    """As after a run in which the guest has written."""
    images.img("bench", "-q", "-f", "qcow2", "-w", "-c", "1", "-s", "4096", "--pattern=7", file)
    return file


def content(file: Path) -> bytes:
    """The first sectors of the disk that the guest sees."""
    out = file.with_name("out")
    images.img("dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=8", f"if={file}", f"of={out}")
    try:
        return out.read_bytes()
    finally:
        out.unlink()


class TestContract(BackendContract):
    """The laws, on real disks with guests that are not there."""

    @pytest.fixture
    def rig(self, disks: Qcow2Disks) -> Rig:
        fake = FakeBackend()

        async def end(vm_id: VmId) -> None:
            fake.depart(vm_id)

        return Rig(
            backend=fake,
            disks=disks,
            fences=fake,
            installation=MARK.installation,
            end=end,
            has_console=True,
            keeps_homes=True,
        )


class TestRoots:
    async def test_a_fresh_root_is_a_marked_overlay(self, disks: Qcow2Disks, paths: Paths) -> None:
        root = await disks.clone_root(MARK, keep=False)
        assert root == paths.overlays / "1-1-overlay.qcow2"
        assert marks.mark_of(root) == MARK
        assert root.stat().st_mode & 0o777 == 0o600
        assert size(root) == 2 * MIB
        assert content(root)[:2] == b"\xeb\xfe", "it shows the image"
        assert content(written(root))[:2] == b"\x07\x07"
        assert content(await disks.clone_root(MARK, keep=False))[:2] == b"\xeb\xfe"

    async def test_the_image_never_changes(self, disks: Qcow2Disks, paths: Paths) -> None:
        image = next(paths.images.glob("1-*"))
        before = image.read_bytes()
        written(await disks.clone_root(MARK, keep=False))
        assert image.read_bytes() == before

    async def test_a_raw_image_is_a_base_as_well(self, disks: Qcow2Disks, paths: Paths) -> None:
        root = await disks.clone_root(NEXT, keep=False)
        assert content(root)[:2] == b"\xeb\xfe"
        assert '"backing-filename-format": "raw"' in images.img(
            "info", "-f", "qcow2", "--output=json", str(root)
        )

    async def test_a_root_has_the_size_of_its_limit_if_that_is_more(self, disks: Qcow2Disks) -> None:
        assert size(await disks.clone_root(MARK, keep=False, limit_mib=1)) == 2 * MIB
        assert size(await disks.clone_root(MARK, keep=False, limit_mib=5000)) == 5000 * MIB

    async def test_a_kept_root_stays_and_grows(self, disks: Qcow2Disks) -> None:
        written(await disks.clone_root(MARK, keep=True))
        root = await disks.clone_root(MARK, keep=True, limit_mib=10)
        assert content(root)[:2] == b"\x07\x07"
        assert size(root) == 10 * MIB
        assert size(await disks.clone_root(MARK, keep=True, limit_mib=3)) == 10 * MIB

    async def test_a_root_of_another_image_is_put_aside(self, disks: Qcow2Disks, paths: Paths) -> None:
        written(await disks.clone_root(MARK, keep=True))
        root = await disks.clone_root(NEXT, keep=True)
        aside = paths.overlays / "1-20300131T180000Z.qcow2"
        assert [file.name for file in sorted(paths.overlays.iterdir())] == [aside.name, root.name]
        assert content(aside)[:2] == b"\x07\x07"
        assert marks.mark_of(aside) == MARK

    async def test_a_strangers_root_is_not_touched(self, disks: Qcow2Disks, paths: Paths) -> None:
        root = await disks.clone_root(MARK, keep=False)
        stranger = replace(MARK, installation=InstallationId("ffffffff"))
        others = Qcow2Disks(paths, stranger.installation)
        with pytest.raises(VolumeError, match="belongs to another installation"):
            await others.clone_root(stranger, keep=False)
        await others.erase_root(ONE)
        assert not await others.put_aside(ONE, paths.overlays / "x")
        assert marks.mark_of(root) == MARK

    async def test_what_has_no_mark_is_put_aside_and_never_erased(
        self, disks: Qcow2Disks, paths: Paths
    ) -> None:
        images.blank(paths.overlay(DI, ONE))
        await disks.erase_root(ONE)
        assert paths.overlay(DI, ONE).exists()
        root = await disks.clone_root(MARK, keep=False)
        assert marks.mark_of(root) == MARK
        assert (paths.overlays / "1-20300131T180000Z.qcow2").exists()

    async def test_without_its_image_there_is_no_root(self, disks: Qcow2Disks, paths: Paths) -> None:
        with pytest.raises(VolumeError, match="image 9 is not on this host"):
            await disks.clone_root(replace(MARK, di_id=DiId(9)), keep=False)
        assert list(paths.overlays.iterdir()) == []

    async def test_the_backend_is_told_every_file_and_format(self, disks: Qcow2Disks, paths: Paths) -> None:
        root = await disks.clone_root(MARK, keep=False)
        base = next(paths.images.glob("1-*"))
        assert disks.files(MARK) == DiskFiles(base=base, base_format="qcow2", overlay=root, home=None)
        home = await disks.ensure_home(MARK, size_mib=10)
        assert disks.files(MARK).home == home
        assert disks.files(NEXT).base_format == "raw"
        with pytest.raises(VolumeError, match="another owner"):
            disks.files(replace(MARK, vm_uuid="u-2"))

    async def test_it_is_known_who_needs_an_image(self, disks: Qcow2Disks, paths: Paths) -> None:
        root = await disks.clone_root(MARK, keep=False)
        assert bases_in_use(paths, [DI, NEXT_DI]) == {DI: [root]}
        aside = disks.aside(ONE, NOW)
        await disks.put_aside(ONE, aside)
        assert bases_in_use(paths, [DI, NEXT_DI]) == {DI: [aside]}
        assert bases_in_use(paths, [NEXT_DI]) == {}


class TestHomes:
    async def test_a_home_is_a_blank_disk_of_the_size_that_was_asked_for(
        self, disks: Qcow2Disks, paths: Paths
    ) -> None:
        home = await disks.ensure_home(MARK, size_mib=5 << 20)
        assert home == paths.homes / "1-data.qcow2"
        assert size(home) == 5 << 40, "5 TiB: more than 32 bits of MiB in bytes"
        assert home.stat().st_blocks * 512 < 4 * MIB
        assert "backing" not in images.img("info", "-f", "qcow2", str(home))

    async def test_without_shared_blocks_there_is_a_note_and_no_snapshot(
        self, disks: Qcow2Disks, paths: Paths, caplog: pytest.LogCaptureFixture
    ) -> None:
        home = await disks.ensure_home(MARK, size_mib=10)
        if reflink.copy(home, home.with_name("copy")):
            pytest.skip("this file system shares blocks")
        with caplog.at_level(logging.WARNING):
            assert not await disks.snapshot_home(MARK, disks.home_aside(ONE, NOW))
        assert [record.message for record in caplog.records] == [
            "no snapshot of a home: its file system cannot share blocks vm=1"
        ]
        assert list(paths.homes.iterdir()) == [home]

    async def test_it_stays_with_its_owner_whatever_the_image(self, disks: Qcow2Disks) -> None:
        home = written(await disks.ensure_home(MARK, size_mib=10))
        assert await disks.ensure_home(NEXT, size_mib=10) == home
        with pytest.raises(VolumeError, match="has another owner"):
            await disks.ensure_home(replace(MARK, vm_uuid="u-2"), size_mib=10)
        await disks.erase_root(ONE)
        assert content(home)[:2] == b"\x07\x07"

    async def test_it_grows_and_never_shrinks(
        self, disks: Qcow2Disks, caplog: pytest.LogCaptureFixture
    ) -> None:
        home = written(await disks.ensure_home(MARK, size_mib=10))
        await disks.ensure_home(MARK, size_mib=20)
        assert size(home) == 20 * MIB
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                await disks.ensure_home(MARK, size_mib=10)
        assert [record.message for record in caplog.records] == [
            "a home disk is larger than its OSF says, and stays so vm=1"
        ]
        assert size(home) == 20 * MIB
        assert content(home)[:2] == b"\x07\x07"

    async def test_without_a_size_there_is_none_and_that_is_said_once(
        self, disks: Qcow2Disks, paths: Paths, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            await disks.ensure_home(MARK, size_mib=None)
        assert list(paths.homes.iterdir()) == []
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        home = await disks.ensure_home(MARK, size_mib=10)
        await disks.ensure_home(MARK, size_mib=None)
        assert disks.files(MARK).home == home, "nobody's home goes with a setting"

    async def test_what_is_no_disk_any_more_is_told(self, disks: Qcow2Disks) -> None:
        home = await disks.ensure_home(MARK, size_mib=10)
        home.write_bytes(b"x" * 200)
        with pytest.raises(VolumeError, match=r"1-data\.qcow2 cannot be used: it is no qcow2 file any more"):
            await disks.ensure_home(MARK, size_mib=10)

    async def test_a_size_that_no_disk_can_have_is_told_and_leaves_nothing(
        self, disks: Qcow2Disks, paths: Paths
    ) -> None:
        with pytest.raises(VolumeError, match=r"1-data\.qcow2 cannot be made: .*"):
            await disks.ensure_home(MARK, size_mib=1 << 40)
        assert list(paths.homes.iterdir()) == []


class TestEmpty:
    """What is made without `qemu-img` is what `qemu-img` makes."""

    @pytest.mark.parametrize("size_mib", [1, 512, 513, 1 << 22, (1 << 22) + 1, 1 << 26])
    @pytest.mark.parametrize("backing", [None, "qcow2", "raw"])
    def test_an_empty_disk_is_as_qemu_img_makes_it(
        self, tmp_path: Path, size_mib: int, backing: str | None
    ) -> None:
        base = images.raw(tmp_path / "base") if backing == "raw" else images.qcow2(tmp_path / "base", mib=1)
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        over = () if backing is None else ("-b", str(base), "-F", backing)
        images.img("create", "-q", "-f", "qcow2", *over, str(theirs), f"{size_mib}M")
        made = layout(size_mib * MIB, Backing(bytes(base), DiskFormat(backing)) if backing else None)
        with ours.open("wb") as file:
            for place, piece in made.pieces:
                file.seek(place)
                file.write(piece)
            file.truncate(made.length)
        images.img("check", "-q", "-f", "qcow2", ours)
        assert information(ours) == information(theirs)
        assert content(ours) == content(theirs)
        assert content(written(ours)) == content(written(theirs))
        images.img("check", "-q", "-f", "qcow2", ours)

    @pytest.mark.parametrize("size", [0, LARGEST + 1])
    def test_no_disk_has_such_a_size(self, size: int) -> None:
        with pytest.raises(ValueError, match="no disk can have"):
            layout(size)

    def test_a_disk_has_whole_sectors(self) -> None:
        assert layout(513) == layout(1024)

    def test_names_have_a_length_that_qemu_takes(self) -> None:
        layout(512, Backing(b"/" * LONGEST_NAME, DiskFormat.RAW))
        with pytest.raises(ValueError, match="too long"):
            layout(512, Backing(b"/" * (LONGEST_NAME + 1), DiskFormat.RAW))


def information(file: Path) -> dict[str, object]:
    """What `qemu-img` knows of a disk but for what holds of its file."""
    told = json.loads(images.img("info", "-f", "qcow2", "--output=json", str(file)))
    return {key: value for key, value in told.items() if key not in ("filename", "actual-size", "children")}


Work = Callable[[Qcow2Disks], Awaitable[object]]


async def _prepared(disks: Qcow2Disks) -> None:
    """A VM that has run: a root that was written, and a home."""
    written(await disks.clone_root(MARK, keep=True))
    written(await disks.ensure_home(MARK, size_mib=10))


@pytest.mark.parametrize(
    ("prepare", "work"),
    [
        (False, lambda disks: disks.clone_root(MARK, keep=False)),
        (True, lambda disks: disks.clone_root(MARK, keep=False)),
        (True, lambda disks: disks.clone_root(MARK, keep=True, limit_mib=10)),
        (True, lambda disks: disks.clone_root(NEXT, keep=True)),
        (False, lambda disks: disks.ensure_home(MARK, size_mib=10)),
        (True, lambda disks: disks.ensure_home(MARK, size_mib=20)),
        (True, lambda disks: disks.erase_root(ONE)),
    ],
    ids=["first root", "fresh root", "kept root grows", "other image", "first home", "home grows", "erase"],
)
def test_killed_at_any_step_it_is_done_again(tmp_path: Path, prepare: bool, work: Work) -> None:
    """What has its name is whole and marked, whenever the daemon dies; the next one does the rest."""
    paths, step = paths_in(tmp_path / "storage"), 0

    def disks() -> Qcow2Disks:
        return Qcow2Disks(paths, MARK.installation, calendar=ManualClock(NOW))

    async def clear() -> None:
        for file in (*paths.overlays.iterdir(), *paths.homes.iterdir()):
            file.unlink()
        if prepare:
            await _prepared(disks())

    asyncio.run(disks().check())
    while True:
        step += 1
        asyncio.run(clear())
        survived = _killed_at(step, lambda: work(disks()), tmp_path / "record")
        _check_whole(paths, homes_written=prepare)
        asyncio.run(disks().check())
        assert not [file for file in paths.overlays.iterdir() if HALF.fullmatch(file.name)]
        asyncio.run(_once(work, disks()))
        _check_whole(paths, homes_written=prepare)
        if survived:
            break
    assert step > 1


async def _once(work: Work, disks: Qcow2Disks) -> None:
    await work(disks)


def _check_whole(paths: Paths, *, homes_written: bool) -> None:
    for file in (*paths.overlays.iterdir(), *paths.homes.iterdir()):
        if not HALF.fullmatch(file.name):
            mark = marks.mark_of(file)
            assert mark is not None
            assert (mark.installation, mark.vm_id) == (MARK.installation, ONE)
            images.img("check", "-q", "-f", "qcow2", file)
    if homes_written:
        assert content(paths.home_disk(ONE))[:2] == b"\x07\x07"


def _killed_at(step: int, work: Callable[[], Awaitable[object]], record: Path) -> bool:
    """Do it in a child that is killed at a step; whether it got through."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            count = steps(step, os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))

            def audited(name: str, arguments: tuple[object, ...]) -> None:
                if name in AUDITED:
                    count(name, arguments[0])

            async def do() -> None:
                await work()

            sys.addaudithook(audited)
            asyncio.run(do())
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, 9), record.read_text()
    return status == 0


class TestPool:
    """On btrfs."""

    @pytest.fixture
    def paths(self) -> Iterator[Paths]:
        with pools.pool("256M") as mounted:
            yield paths_in(mounted / "storage")

    async def test_disks_are_written_in_place(self, disks: Qcow2Disks, paths: Paths) -> None:
        assert nocow.is_set(await disks.clone_root(MARK, keep=False))
        assert nocow.is_set(await disks.ensure_home(MARK, size_mib=10))
        assert not nocow.is_set(next(paths.images.glob("1-*")))
        await disks.check()

    async def test_a_home_is_kept_and_put_back(self, disks: Qcow2Disks, paths: Paths) -> None:
        home = written(await disks.ensure_home(MARK, size_mib=10))
        aside = disks.home_aside(ONE, NOW)
        assert aside == paths.homes / "1-home-20300131T180000Z.qcow2"
        assert HOME_SNAPSHOT.fullmatch(aside.name)
        assert await disks.snapshot_home(MARK, aside)
        assert disks.home_aside(ONE, NOW) != aside
        assert (aside.stat().st_mode & 0o777, marks.mark_of(aside)) == (0o400, MARK)
        await disks.ensure_home(NEXT, size_mib=10)
        assert await disks.is_home_as_in(NEXT, aside)
        images.img("bench", "-q", "-f", "qcow2", "-w", "-c", "1", "-s", "4096", "--pattern=9", home)
        assert not await disks.is_home_as_in(NEXT, aside)
        assert content(home)[:2] == b"\x09\x09"
        assert content(aside)[:2] == b"\x07\x07"
        with pytest.raises(VolumeError, match="is not of VM 1"):
            await disks.restore_home(replace(MARK, vm_uuid="u-2"), aside, lambda _: None)
        await disks.restore_home(MARK, aside, lambda _: None)
        assert content(home)[:2] == b"\x07\x07"
        assert (home.stat().st_mode & 0o777, nocow.is_set(home)) == (0o600, True)
        assert await disks.home_used_with(NEXT) == DI
        assert sorted(paths.homes.iterdir()) == [home, aside]
        await disks.ensure_home(MARK, size_mib=20)
        assert size(home) == 20 * MIB

    async def test_a_home_in_use_is_neither_kept_nor_put_back(self, disks: Qcow2Disks, paths: Paths) -> None:
        home = await disks.ensure_home(MARK, size_mib=10)
        aside = disks.home_aside(ONE, NOW)
        assert await disks.snapshot_home(MARK, aside)
        again = disks.home_aside(ONE, NOW)
        with images.running(home):
            for refused in (disks.snapshot_home(MARK, again), disks.restore_home(MARK, aside, str)):
                with pytest.raises(VolumeError, match="a guest still runs"):
                    await refused
        assert sorted(paths.homes.iterdir()) == [home, aside]

    async def test_all_guests_together_leave_the_host_its_part(self, disks: Qcow2Disks, paths: Paths) -> None:
        if not quotas.can_group(quotas.mode(paths.root)):
            pytest.skip("Linux before 6.9 keeps no reserve")
        await disks.clone_root(MARK, keep=False)
        home = await disks.ensure_home(MARK, size_mib=2000)
        with pytest.raises(OSError, match="quota"):
            _fill(home, mib=300)
        with pytest.raises(PoolFullError, match=r"2-data\.qcow2 cannot be made: the storage pool is full"):
            await disks.ensure_home(replace(MARK, vm_id=VmId(2)), size_mib=10)
        assert [file.name for file in paths.homes.iterdir()] == ["1-data.qcow2"]
        _fill(paths.root / "the database", mib=8)
        await disks.keep_reserve()
        await Qcow2Disks(paths, MARK.installation).check()


def _fill(file: Path, *, mib: int) -> None:
    with file.open("ab") as stream:
        for _ in range(mib):
            stream.write(os.urandom(MIB))
            os.fsync(stream.fileno())
