"""Roots, homes and images on a real btrfs pool."""

from __future__ import annotations

import asyncio
import gzip
import lzma
import os
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance import proc
from appliance.clock import ManualClock
from appliance.config import Settings
from appliance.errors import ImageError, VolumeError
from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.storage import marks, volumes
from appliance.storage.btrfs import BtrfsDisks, erase_di
from appliance.storage.importer import CAPABILITIES, TAR, Limits, import_di
from appliance.storage.jail import confined
from appliance.storage.paths import Paths
from tests.support import archives
from tests.support import pool as pools
from tests.support.archives import Hostile
from tests.support.pool import tiny_root

pytestmark = pytest.mark.host

ONE, DI, NEXT_DI = VmId(1), DiId(1), DiId(2)
MARK = Mark(installation=InstallationId("0a1b2c3d"), vm_id=ONE, vm_uuid="u-1", di_id=DI)
NOW = datetime(2030, 1, 31, 18, 0, tzinfo=UTC)


@pytest.fixture
def paths(pool: Path, tmp_path: Path) -> Iterator[Paths]:
    storage = pool / "disks"
    subprocess.run(["btrfs", "-q", "subvolume", "create", storage], check=True)
    yield Paths(Settings({"path.storage.root": str(storage), "path.run": str(tmp_path)}))
    volumes.delete(storage)


@pytest.fixture
async def disks(paths: Paths) -> BtrfsDisks:
    made = BtrfsDisks(paths, MARK.installation, calendar=ManualClock(NOW))
    await made.check()
    return made


@pytest.fixture
async def image(disks: BtrfsDisks, paths: Paths, tmp_path: Path) -> Path:
    archive = tiny_root(tmp_path / "tiny.tar.gz")
    await import_di(paths, DI, archive, lambda _: None)
    return archive


def fill(file: Path, *, mib: int) -> None:
    with file.open("wb") as stream:
        for _ in range(mib):
            stream.write(os.urandom(1 << 20))
            os.fsync(stream.fileno())


class TestRoots:
    async def test_a_fresh_root_is_a_marked_snapshot(self, disks: BtrfsDisks, image: Path) -> None:
        root = await disks.clone_root(MARK, keep=False)
        assert marks.mark_of(root) == MARK
        (root / "etc" / "new").touch()
        again = await disks.clone_root(MARK, keep=False)
        assert again == root
        assert not (root / "etc" / "new").exists()

    async def test_a_kept_root_stays_as_it_was(self, disks: BtrfsDisks, image: Path) -> None:
        root = await disks.clone_root(MARK, keep=True)
        (root / "etc" / "new").touch()
        await disks.clone_root(MARK, keep=True)
        assert (root / "etc" / "new").exists()

    async def test_a_root_of_another_image_is_put_aside(
        self, disks: BtrfsDisks, image: Path, paths: Paths
    ) -> None:
        await import_di(paths, NEXT_DI, image, lambda _: None)
        root = await disks.clone_root(MARK, keep=True)
        (root / "etc" / "new").touch()
        await disks.clone_root(replace(MARK, di_id=NEXT_DI), keep=True)
        assert not (root / "etc" / "new").exists()
        assert (paths.kept / "1-20300131T180000Z" / "etc" / "new").exists()

    async def test_a_strangers_root_is_not_touched(
        self, disks: BtrfsDisks, image: Path, paths: Paths
    ) -> None:
        root = await disks.clone_root(MARK, keep=False)
        (root / "etc" / "new").touch()
        stranger = replace(MARK, installation=InstallationId("ffffffff"))
        others = BtrfsDisks(paths, stranger.installation)
        with pytest.raises(VolumeError, match="belongs to another installation"):
            await others.clone_root(stranger, keep=False)
        await others.erase_root(ONE)
        assert (root / "etc" / "new").exists()

    async def test_without_its_image_there_is_no_root(self, disks: BtrfsDisks) -> None:
        with pytest.raises(VolumeError, match="image 1 is not unpacked"):
            await disks.clone_root(MARK, keep=False)

    async def test_erasing_takes_what_the_guest_made_and_may_be_repeated(
        self, disks: BtrfsDisks, image: Path
    ) -> None:
        root = await disks.clone_root(MARK, keep=False)
        subprocess.run(["btrfs", "-q", "subvolume", "create", root / "var" / "inner"], check=True)
        (root / "var" / "inner" / "file").touch()
        subprocess.run(
            ["btrfs", "-q", "subvolume", "snapshot", "-r", root / "var" / "inner", root / "var" / "ro"],
            check=True,
        )
        await disks.erase_root(ONE)
        assert not root.exists()
        await disks.erase_root(ONE)


class TestHomes:
    async def test_a_home_stays_with_its_owner(self, disks: BtrfsDisks, image: Path) -> None:
        home = await disks.ensure_home(MARK, size_mib=None)
        (home / "file").touch()
        moved = replace(MARK, di_id=NEXT_DI)
        assert await disks.ensure_home(moved, size_mib=None) == home
        assert (home / "file").exists()
        with pytest.raises(VolumeError, match="has another owner"):
            await disks.ensure_home(replace(MARK, vm_uuid="u-2"), size_mib=None)

    async def test_a_home_without_a_mark_is_nobodys(self, disks: BtrfsDisks, paths: Paths) -> None:
        subprocess.run(["btrfs", "-q", "subvolume", "create", paths.homefs(ONE)], check=True)
        with pytest.raises(VolumeError, match="has another owner"):
            await disks.ensure_home(MARK, size_mib=None)

    async def test_a_home_holds_no_more_than_its_size(self) -> None:
        with pools.pool("512M") as mounted:
            paths = Paths(Settings({"path.storage.root": str(mounted / "storage")}))
            disks = BtrfsDisks(paths, MARK.installation)
            await disks.check()
            home = await disks.ensure_home(MARK, size_mib=8)
            with pytest.raises(OSError, match="quota exceeded"):
                fill(home / "big", mib=20)
            assert await disks.ensure_home(MARK, size_mib=40) == home
            (home / "big").write_bytes(os.urandom(20 << 20))


class TestImports:
    @pytest.mark.parametrize("packer", ["cat", "gzip -c", "bzip2 -c", "xz -0 -c", "zstd -q -c"])
    async def test_every_compression_is_read(
        self, disks: BtrfsDisks, paths: Paths, tmp_path: Path, packer: str
    ) -> None:
        plain = tmp_path / "plain.tar"
        compressed = tiny_root(tmp_path / "tiny.tar.gz")
        subprocess.run(f"gzip -dc {compressed} > {plain}", shell=True, check=True)
        archive = tmp_path / "image-of-unknown-kind"
        subprocess.run(f"{packer} {plain} > {archive}", shell=True, check=True)
        seen: list[float] = []
        await import_di(paths, DI, archive, seen.append)
        base = paths.basefs(DI)
        assert seen[-1] == 1.0
        assert all(0.0 <= part <= 1.0 for part in seen)
        assert (base / "usr" / "owned").stat().st_uid == 1000
        with pytest.raises(OSError, match="Read-only"):
            (base / "file").touch()

    async def test_a_second_import_does_nothing(self, disks: BtrfsDisks, paths: Paths, image: Path) -> None:
        before = paths.basefs(DI).stat().st_ino
        await import_di(paths, DI, Path("/no/such/archive"), lambda _: None)
        assert paths.basefs(DI).stat().st_ino == before

    @pytest.mark.parametrize("kept", [0, 1, 300, 4000, 100_000])
    async def test_a_cut_archive_is_refused_in_one_line(
        self, disks: BtrfsDisks, paths: Paths, tmp_path: Path, kept: int
    ) -> None:
        archive = tiny_root(tmp_path / "tiny.tar.gz")
        os.truncate(archive, kept)
        with pytest.raises(ImageError, match=r"tiny\.tar\.gz is (damaged|unusable): \w") as caught:
            await import_di(paths, DI, archive, lambda _: None)
        assert "\n" not in str(caught.value)
        assert list(paths.all_basefs.iterdir()) == []

    async def test_flipped_bytes_are_noticed(self, disks: BtrfsDisks, paths: Paths, tmp_path: Path) -> None:
        archive = tiny_root(tmp_path / "tiny.tar.gz")
        with archive.open("r+b") as stream:
            stream.seek(50_000)
            stream.write(b"\0" * 1000)
        with pytest.raises(ImageError, match="is damaged"):
            await import_di(paths, DI, archive, lambda _: None)
        assert list(paths.all_basefs.iterdir()) == []

    async def test_something_else_is_not_an_archive(
        self, disks: BtrfsDisks, paths: Paths, tmp_path: Path
    ) -> None:
        text = tmp_path / "notes.txt"
        text.write_text("not an archive\n" * 100)
        with pytest.raises(ImageError, match="is not a tar archive"):
            await import_di(paths, DI, text, lambda _: None)
        with pytest.raises(ImageError, match="cannot be read: No such file"):
            await import_di(paths, DI, tmp_path / "missing.tar", lambda _: None)
        assert list(paths.all_basefs.iterdir()) == []

    async def test_an_archive_without_init_or_with_an_inner_root_is_refused(
        self, disks: BtrfsDisks, paths: Paths, tmp_path: Path
    ) -> None:
        without = tiny_root(tmp_path / "without.tar.gz", without="sbin/init")
        with pytest.raises(ImageError, match="no /sbin/init"):
            await import_di(paths, DI, without, lambda _: None)
        extended = tiny_root(tmp_path / "extended.tar.gz", prefix="rootfs/")
        with pytest.raises(ImageError, match=r"inside rootfs/.*tar -C rootfs"):
            await import_di(paths, DI, extended, lambda _: None)
        assert list(paths.all_basefs.iterdir()) == []

    @pytest.mark.parametrize("name", ["oci-layout", "manifest.json"])
    async def test_the_layers_of_an_oci_image_are_named_as_such(
        self, disks: BtrfsDisks, paths: Paths, tmp_path: Path, name: str
    ) -> None:
        archive = archives.pack(tmp_path / "saved.tar", archives.one(archives.member(name)))
        with pytest.raises(ImageError, match=r"layers of an OCI or Docker image.*podman export"):
            await import_di(paths, DI, archive, lambda _: None)
        assert list(paths.all_basefs.iterdir()) == []

    @pytest.mark.parametrize("hostile", archives.HOSTILE, ids=lambda hostile: hostile.name)
    async def test_a_hostile_archive_ends_as_one_line_and_leaves_nothing(
        self, disks: BtrfsDisks, paths: Paths, tmp_path: Path, hostile: Hostile
    ) -> None:
        archive = archives.pack(tmp_path / "evil.tar", hostile.pack)
        limits = Limits(size=archives.SIZE, files=archives.FILES)
        with pytest.raises(ImageError) as caught:
            await import_di(paths, DI, archive, lambda _: None, limits=limits)
        assert "evil.tar is refused: " in str(caught.value)
        assert hostile.said in str(caught.value)
        assert str(caught.value).isprintable()
        assert list(paths.all_basefs.iterdir()) == []
        assert not Path(archives.OUTSIDE).exists()

    @pytest.mark.parametrize("hostile", archives.HOSTILE, ids=lambda hostile: hostile.name)
    async def test_the_jail_holds_whatever_the_eye_overlooks(
        self, disks: BtrfsDisks, paths: Paths, tmp_path: Path, hostile: Hostile
    ) -> None:
        """tar alone, confined: it may unpack what it likes, but only there, and no device."""
        archive = archives.pack(tmp_path / "evil.tar", hostile.pack)
        target, outside = tmp_path / "target", tmp_path / "outside"
        target.mkdir()
        outside.mkdir()
        command = confined(TAR, target=target, capabilities=CAPABILITIES, longest_file=archives.SIZE)
        with archive.open("rb") as stream:
            await proc.run(command, stdin=stream.fileno(), check=False)
        made = [path for path in target.rglob("*") if not path.is_symlink()]
        assert not [path for path in made if path.is_block_device() or path.is_char_device()]
        assert [
            path.name for path in tmp_path.iterdir() if path.name not in ("evil.tar", "target", "outside")
        ] == []
        assert list(outside.iterdir()) == []
        assert not Path(archives.OUTSIDE).exists()
        assert not Path("/escaped").exists()

    async def test_complaints_without_end_cost_nobody_memory(
        self, disks: BtrfsDisks, paths: Paths, tmp_path: Path
    ) -> None:
        """tar tells of each member that it cannot make; eight kilobytes of archive hold megabytes of that."""
        name = "/".join(["\x01" * 250] * 16)
        many = [archives.member(f"bin/sh/{number}/{name}"[:4090]) for number in range(100)]
        archive = archives.pack(tmp_path / "loud.tar", archives.one(archives.member("bin/sh"), *many))
        target = tmp_path / "target"
        target.mkdir()
        command = confined(TAR, target=target, capabilities=CAPABILITIES, longest_file=archives.SIZE)
        with archive.open("rb") as stream:
            done = await proc.run(command, stdin=stream.fileno(), check=False, longest_stderr=4096)
        assert (done.status, len(done.stderr)) == (2, 4096)
        with pytest.raises(ImageError, match=r"loud\.tar is damaged: .*…") as caught:
            await import_di(paths, DI, archive, lambda _: None)
        assert len(str(caught.value)) < 400

    async def test_who_unpacks_has_little_memory(
        self, disks: BtrfsDisks, paths: Paths, tmp_path: Path
    ) -> None:
        """An xz archive says itself how much memory its reader needs."""
        greedy = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 3 << 29}]
        with lzma.open(tmp_path / "greedy.tar.xz", "wb", filters=greedy) as stream:
            stream.write(bytes(10_240))
        with pytest.raises(ImageError, match="Cannot allocate memory"):
            await import_di(paths, DI, tmp_path / "greedy.tar.xz", lambda _: None)

    async def test_who_unpacks_sees_neither_host_nor_network(self, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.mkdir()
        looks = (
            "cat /proc/1/environ; ls /etc /home /root /var; cat /sys/class/net/lo/address; touch /usr/x /x/y"
        )
        shown = "ls /; echo made > /target/file; id -u; ls /target"
        script = f"{looks}; {shown}; chroot /target; mount -t tmpfs x /target; mknod /target/n c 1 3"
        command = confined(
            ["sh", "-c", script], target=target, capabilities=CAPABILITIES, longest_file=1 << 20
        )
        done = await proc.run(command, check=False)
        top = set(done.stdout.decode().split())
        assert top <= {"bin", "lib", "lib32", "lib64", "libx32", "sbin", "target", "usr", "0", "file"}
        assert (target / "file").read_text() == "made\n"
        assert not (target / "n").exists()
        complaints = done.stderr.decode()
        for words in ("chroot: cannot change root", "/usr/x': Read-only", "n: Operation not permitted"):
            assert words in complaints

    async def test_what_a_root_needs_is_kept(self, disks: BtrfsDisks, paths: Paths, tmp_path: Path) -> None:
        plain, archive = tmp_path / "plain.tar", tmp_path / "whole.tar"
        packed = tiny_root(tmp_path / "tiny.tar.gz")
        plain.write_bytes(gzip.decompress(packed.read_bytes()))
        capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service, effective
        with tarfile.open(plain, "a", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(archives.member("bin/mine", mode=0o4755))
            tar.addfile(archives.member("run/pipe", tarfile.FIFOTYPE))
            tar.addfile(archives.device("dev/null", tarfile.CHRTYPE, 1, 3))
            tar.addfile(archives.member("etc/alternative", tarfile.SYMTYPE, link="/etc/passwd"))
            able = archives.member("bin/able", mode=0o755)
            able.pax_headers = {"SCHILY.xattr.security.capability": capability.decode("latin-1")}
            tar.addfile(able)
            tar.addfile(archives.member("bin/twice", mode=0o600))
            tar.addfile(archives.member("bin/twice", mode=0o700))
        plain.rename(archive)
        await import_di(paths, DI, archive, lambda _: None)
        base = paths.basefs(DI)
        assert (base / "bin" / "mine").stat().st_mode & 0o7777 == 0o4755
        assert (base / "run" / "pipe").is_fifo()
        assert (base / "etc" / "alternative").readlink() == Path("/etc/passwd")
        assert (base / "bin" / "twice").stat().st_mode & 0o777 == 0o700
        assert os.getxattr(base / "bin" / "able", "security.capability") == capability
        assert list((base / "dev").iterdir()) == []

    async def test_an_abandoned_import_ends_at_once_and_leaves_nothing(
        self, disks: BtrfsDisks, paths: Paths, tmp_path: Path
    ) -> None:
        archive = tiny_root(tmp_path / "tiny.tar.gz")
        seen: list[float] = []
        importing = asyncio.ensure_future(import_di(paths, DI, archive, seen.append))
        async with asyncio.timeout(20):
            while not seen:
                await asyncio.sleep(0)
        importing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await importing
        assert list(paths.all_basefs.iterdir()) == []

    async def test_a_full_pool_is_told_as_such(self, tmp_path: Path) -> None:
        archive = tmp_path / "big.tar"
        with tarfile.open(archive, "w") as tar:
            big = tarfile.TarInfo("big")
            big.size = 400 << 20
            with Path("/dev/urandom").open("rb") as noise:
                tar.addfile(big, noise)
        with pools.pool("256M") as mounted:
            paths = Paths(Settings({"path.storage.root": str(mounted / "storage")}))
            await BtrfsDisks(paths, MARK.installation).check()
            with pytest.raises(VolumeError, match=r"pool is full: big\.tar does not fit"):
                await import_di(paths, DI, archive, lambda _: None)
            assert list(paths.all_basefs.iterdir()) == []

    async def test_an_erased_image_is_gone_and_roots_live_on(
        self, disks: BtrfsDisks, paths: Paths, image: Path
    ) -> None:
        root = await disks.clone_root(MARK, keep=False)
        await erase_di(paths, DI)
        await erase_di(paths, DI)
        assert not paths.basefs(DI).exists()
        assert (root / "bin" / "busybox").exists()

    async def test_what_a_crash_left_half_made_is_removed(
        self, disks: BtrfsDisks, paths: Paths, image: Path
    ) -> None:
        root = await disks.clone_root(MARK, keep=False)
        home = await disks.ensure_home(MARK, size_mib=None)
        half = [
            *(paths.all_rootfs / ".1-fs.0a1b2c3d", paths.all_homefs / ".1-fs.0a1b2c3d"),
            *(paths.all_basefs / ".1.unpacking", paths.all_basefs / "..1.unpacking.0a1b2c3d"),
        ]
        for path in half:
            subprocess.run(["btrfs", "-q", "subvolume", "create", path], check=True)
        await disks.check()
        await erase_di(paths, DI)
        assert [path for path in half if path.exists()] == []
        assert root.exists()
        assert home.exists()

    async def test_a_pool_on_another_file_system_is_refused(self, tmp_path: Path) -> None:
        elsewhere = Paths(Settings({"path.storage.root": str(tmp_path / "storage")}))
        with pytest.raises(VolumeError, match="not on a btrfs file system"):
            await BtrfsDisks(elsewhere, MARK.installation).check()
