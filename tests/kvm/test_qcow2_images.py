"""`qa di add` of disks: what is honest is registered as it is, the rest leaves no trace."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance import proc
from appliance.errors import ImageError
from appliance.model import DiId, KeptKind, Mark, VmId, VmState
from appliance.storage.disk_image import inspect
from appliance.storage.jail import SHOWN, confined
from appliance.storage.paths import Paths
from appliance.storage.qcow2 import Qcow2Disks
from appliance.storage.qcow2_header import DiskFormat
from appliance.storage.schema import operations, vm_runtimes
from tests.support import disks as images
from tests.support.qa import Installation, identity

pytestmark = pytest.mark.kvm

LARGEST = 64 << 30


@pytest.fixture
def qa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    """An installation with an OSF of virtual machines, and one of containers."""
    made = Installation(tmp_path, capsys)
    made.ok("admin", "init")
    made.ok("osf", "add", "name=machines", "backend=kvm", "user_storage_size=4t")
    made.ok("osf", "add", "name=containers", "backend=lxc", "user_storage_size=4t")
    return made


def inside(qa: Installation) -> list[str]:
    return sorted(str(file.relative_to(qa.storage)) for file in qa.storage.rglob("*") if file.is_file())


@pytest.mark.parametrize("name", ["desktop.qcow2", "small.qcow2", "desktop.img"])
def test_an_honest_disk_is_registered_as_it_is(qa: Installation, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    match name:
        case "desktop.qcow2":
            images.qcow2(file, mib=8)
        case "small.qcow2":
            images.qcow2(file, "-c", "-o", "compression_type=zstd,extended_l2=on,cluster_size=128k", mib=8)
        case _:
            images.raw(file, mib=40)
    di = qa.ok("di", "add", f"path={file}", "osf=machines", "-o", "json").json
    kept = qa.storage / "images" / f"1-{name}"
    assert kept.read_bytes() == file.read_bytes()
    assert di["sha256"] == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert di["size_bytes"] == kept.stat().st_size
    assert kept.stat().st_mode & 0o777 == 0o400
    assert kept.stat().st_blocks * 512 < 2 << 20, "holes stay holes"
    qa.ok("di", "del", "--yes")
    qa.ok("di", "purge", "--yes")
    assert not kept.exists()


def test_a_disk_is_duplicated_and_goes_to_another_osf_by_an_archive(qa: Installation, tmp_path: Path) -> None:
    file = images.qcow2(tmp_path / "desktop.qcow2", mib=8)
    qa.ok("di", "add", f"path={file}", "osf=machines", "version=one")
    qa.ok("di", "duplicate", "di_id=1", "version=two")
    said = qa("di", "duplicate", "di_id=1", "osf=containers")
    assert (said.status, "DI 1 is for kvm" in said.err) == (1, True)
    archive = tmp_path / "out.tar"
    qa.ok("di", "export", "di_id=2", f"path={archive}")
    qa.ok("di", "import", f"path={archive}", "osf=others", "make_osf=yes")
    assert [osf["backend"] for osf in qa.listed("osf", "name=others")] == ["kvm"]
    for number in (2, 3):
        kept = qa.storage / "images" / f"{number}-desktop.qcow2"
        assert kept.read_bytes() == file.read_bytes()
        assert kept.stat().st_mode & 0o777 == 0o400
    assert qa.listed("di", "id=3")[0]["version"] == "two"


def test_what_is_hostile_or_broken_is_refused_in_a_line_and_changes_nothing(
    qa: Installation, tmp_path: Path
) -> None:
    before = inside(qa)
    wrong = []
    for hostile in images.HOSTILE:
        file = tmp_path / "evil.img"
        hostile.make(file)
        said = qa("di", "add", f"path={file}", "osf=machines")
        message = said.err.strip().splitlines()[-1]
        if said.status != 1 or hostile.said not in message or "evil.img" not in message:
            wrong.append(f"{hostile.name}: {said.status} {said.err}")
        assert inside(qa) == before
        file.unlink()
    assert wrong == []
    assert qa.listed("di") == []

    async def unfinished() -> list[object]:
        async with qa.write() as tx:
            rows = await tx.connection.execute(operations.select().where(operations.c.ended.is_(None)))
            return list(rows)

    assert asyncio.run(unfinished()) == []


def test_each_kind_of_osf_refuses_the_images_of_the_other(qa: Installation, tmp_path: Path) -> None:
    disk = images.qcow2(tmp_path / "disk.qcow2")
    said = qa("di", "add", f"path={disk}", "osf=containers")
    assert said.status == 1
    assert "a qcow2 image for virtual machines, and containers boot from" in said.err
    said = qa("di", "add", f"path={images.raw(tmp_path / 'disk.img')}", "osf=containers")
    assert "a raw disk image" in said.err
    archive = tmp_path / "root.tar.gz"
    archive.write_bytes(b"\x1f\x8b\x08" + bytes(600))
    said = qa("di", "add", f"path={archive}", "osf=machines")
    assert said.status == 1
    assert "compressed with gzip, and virtual machines boot from a qcow2 or raw image" in said.err
    assert qa.listed("di") == []


def test_what_changes_while_it_is_copied_is_judged_as_it_was_copied(tmp_path: Path) -> None:
    """The copy is looked over again, whole, whatever the source was found to be."""
    for hostile in images.HOSTILE:
        file = tmp_path / "evil.img"
        hostile.make(file)
        with pytest.raises(ImageError, match="evil") as caught:
            asyncio.run(inspect(file, "evil", largest=LARGEST))
        assert hostile.said in str(caught.value)
        assert str(caught.value).isprintable()
        file.unlink()


def test_an_honest_disk_is_told_by_its_size(tmp_path: Path) -> None:
    verdict = asyncio.run(inspect(images.qcow2(tmp_path / "a.qcow2", mib=8), "a", largest=8 << 20))
    assert (verdict.format, verdict.size) == (DiskFormat.QCOW2, 8 << 20)
    with pytest.raises(ImageError, match=r"storage\.import\.max_size"):
        asyncio.run(inspect(tmp_path / "a.qcow2", "a", largest=(8 << 20) - 1))


def test_the_jail_holds_whatever_the_eye_overlooks(tmp_path: Path) -> None:
    """QEMU, confined, finds no file of the host behind an image that names one; without a jail it does."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"treasure".ljust(512))
    file = images.blank(tmp_path / "evil.qcow2", "-u", "-b", str(secret), "-F", "raw", size="1M")
    read = ["qemu-io", "-r", "-f", "qcow2", "-c", "read -v 0 512"]
    free = asyncio.run(proc.run([*read, str(file)], check=False))
    assert b"treasure" in free.stdout
    jailed = confined([*read, SHOWN], target=None, capabilities=(), longest_file=1 << 20, shown=file)
    held = asyncio.run(proc.run(jailed, check=False))
    assert b"treasure" not in held.stdout
    assert b"No such file" in held.stderr
    write = confined(
        ["qemu-io", "-f", "qcow2", "-c", "write 0 512", SHOWN],
        target=None,
        capabilities=(),
        longest_file=1 << 20,
        shown=images.qcow2(tmp_path / "good.qcow2"),
    )
    assert asyncio.run(proc.run(write, check=False)).status != 0


class TestBases:
    """No root loses the image under it."""

    @pytest.fixture
    def used(self, qa: Installation, tmp_path: Path) -> Installation:
        qa.ok("user", "add", "login=alice", f"password-file={qa.password('x')}")
        qa.ok("vm", "add", "name=big", "user=alice", "osf=machines", "di_tag=none")
        qa.ok("di", "add", f"path={images.qcow2(tmp_path / 'a.qcow2')}", "osf=machines")
        return qa

    def root(self, qa: Installation) -> tuple[Qcow2Disks, Path]:
        disks = Qcow2Disks(Paths(qa.settings), identity(qa))
        mark = Mark(installation=identity(qa), vm_id=VmId(1), vm_uuid="u", di_id=DiId(1))

        async def make() -> Path:
            await disks.check()
            return await disks.clone_root(mark, keep=True)

        return disks, asyncio.run(make())

    def test_an_image_under_a_root_that_runs_stays(self, used: Installation) -> None:
        self.root(used)

        async def run() -> None:
            async with used.write() as tx:
                await tx.connection.execute(
                    update(vm_runtimes).values(vm_state=VmState.RUNNING, host_id=1, current_di_id=1)
                )

        asyncio.run(run())
        said = used("di", "del", "--yes")
        assert (said.status, "DI 1 is run by 1 VMs: big" in said.err) == (1, True)

    def test_an_image_under_a_root_that_survives_restarts_stays(self, used: Installation) -> None:
        _, root = self.root(used)
        used.ok("config", "set", "vm.overlay.persistent=1", "--yes")
        said = used("di", "del", "--yes")
        assert said.status == 1
        assert f"DI 1 is under 1 roots that survive restarts: {root.name}" in said.err
        assert [di["id"] for di in used.listed("di")] == [1]
        used.ok("config", "set", "vm.overlay.persistent=0", "--yes")
        used.ok("di", "del", "--yes")

    def test_an_image_under_a_root_that_was_put_aside_goes_when_that_is_given_up(
        self, used: Installation
    ) -> None:
        disks, _ = self.root(used)

        async def put_aside() -> None:
            async with used.write() as tx:
                aside = disks.aside(VmId(1), tx.at)
                await tx.kept.add(
                    KeptKind.ROOT,
                    aside,
                    vm_id=VmId(1),
                    vm="big",
                    owner="alice",
                    reason="",
                    until=tx.at + timedelta(days=7),
                )
            assert await disks.put_aside(VmId(1), aside)

        asyncio.run(put_aside())
        (thing,) = used.ok("kept", "list", "-o", "json").json
        assert 0 < thing["size_bytes"] < 1 << 20
        said = used("di", "del", "--yes")
        assert said.status == 1
        assert "qa kept del -f 'id in (1)'" in said.err
        used.ok("kept", "del", "-f", "id in (1)", "--yes")
        used.ok("di", "del", "--yes")

    def test_the_home_of_a_deleted_vm_is_kept(self, used: Installation) -> None:
        disks, _ = self.root(used)
        mark = Mark(installation=identity(used), vm_id=VmId(1), vm_uuid="u", di_id=DiId(1))
        home = asyncio.run(disks.ensure_home(mark, size_mib=4 << 20))
        used.ok("vm", "del", "--yes")
        (thing,) = used.ok("kept", "list", "-o", "json").json
        assert (thing["kind"], thing["path"]) == ("home", str(home))
        assert home.exists()
