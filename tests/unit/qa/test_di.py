"""`qa di`: images become visible whole, tags move, and nothing is left of what failed."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import threading
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import select, update

from appliance.clock import ManualClock
from appliance.errors import ConflictError, ImageError, StoreError
from appliance.model import DiId, Osf, OsfId, VmState
from appliance.ops import image_add, images
from appliance.storage import console_login
from appliance.storage.intake import Intake
from appliance.storage.operations import ON_IMAGES, Kind, Operations
from appliance.storage.paths import Paths
from appliance.storage.schema import operations, tag_history, vm_runtimes
from tests.support.qa import Installation


@pytest.fixture
def osf(qa: Installation) -> Installation:
    """An installation with an OSF."""
    qa.ok("osf", "add", "name=desktop")
    return qa


def add(qa: Installation, *words: str) -> dict[str, Any]:
    added: dict[str, Any] = qa.ok(
        "di", "add", f"path={qa.archive()}", "osf=desktop", "-o", "json", *words
    ).json
    return added


def tags(qa: Installation) -> dict[int, set[str]]:
    return {di["id"]: set(di["tags"]) for di in qa.listed("di")}


def test_an_image_is_copied_and_registered(osf: Installation) -> None:
    di = add(osf)
    kept = osf.directory / "storage/images/1-desktop.tar"
    assert (di["id"], di["path"], di["osf"]) == (1, "1-desktop.tar", "desktop")
    assert di["sha256"] == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert di["size_bytes"] == kept.stat().st_size
    assert [file.name for file in kept.parent.iterdir()] == ["1-desktop.tar"]


def test_versions_count_within_the_day_and_are_fixed_tags(osf: Installation) -> None:
    first, second = add(osf), add(osf)
    assert (first["version"][-4:], second["version"][-4:]) == ("-000", "-001")
    said = osf("di", "tag", "di_id=2", f"tag={first['version']}")
    assert said.status == 1
    assert "fixed" in said.err
    assert osf("di", "untag", "di_id=1", f"tag={first['version']}").status == 1


def test_head_moves_and_default_stays(osf: Installation) -> None:
    add(osf, "version=one")
    add(osf, "version=two")
    assert tags(osf) == {1: {"one", "default"}, 2: {"two", "head"}}


def test_a_tag_moves_and_moves_back(osf: Installation) -> None:
    add(osf, "version=one")
    add(osf, "version=two")
    osf.ok("vm", "list")
    assert osf.ok("di", "tag", "di_id=2", "tag=default").out == "DI tagged\n"
    assert tags(osf) == {1: {"one"}, 2: {"two", "head", "default"}}
    osf.ok("di", "tag", "di_id=1", "tag=default")
    osf.ok("di", "untag", "di_id=1", "tag=default")
    assert tags(osf) == {1: {"one"}, 2: {"two", "head"}}

    async def history() -> list[tuple[int | None, int | None]]:
        where = tag_history.c.tag == "default"
        async with osf.write() as tx:
            rows = await tx.connection.execute(
                select(tag_history.c.from_di_id, tag_history.c.to_di_id)
                .where(where)
                .order_by(tag_history.c.id)
            )
            return [(row.from_di_id, row.to_di_id) for row in rows]

    assert asyncio.run(history()) == [(None, 1), (1, 2), (2, 1), (1, None)]


def test_a_tag_is_unique_within_its_osf_alone(osf: Installation) -> None:
    osf.ok("osf", "add", "name=other")
    add(osf, "version=one")
    osf.ok("di", "add", f"path={osf.archive()}", "osf=other", "version=one")
    assert tags(osf) == {1: {"one", "head", "default"}, 2: {"one", "head", "default"}}


@pytest.mark.parametrize("version", ["one", "pilot", "head", "default", "a,b", " x", ""])
def test_a_version_must_be_free_and_a_name(osf: Installation, version: str) -> None:
    add(osf, "version=one")
    osf.ok("di", "tag", "di_id=1", "tag=pilot")
    said = osf("di", "add", f"path={osf.archive()}", "osf=desktop", f"version={version}")
    assert said.status in (1, 2)
    assert list(tags(osf)) == [1]


def test_deletion_passes_head_and_default_on_to_the_newest(osf: Installation) -> None:
    for version in ("one", "two", "three"):
        add(osf, f"version={version}")
    osf.ok("di", "tag", "di_id=3", "tag=default")
    assert osf.ok("di", "del", "-f", "id=3").out == "Deleting 1 di(s)\n1 DIs deleted.\n"
    assert tags(osf) == {1: {"one"}, 2: {"two", "head", "default"}}
    assert sorted(file.name[0] for file in (osf.directory / "storage/images").iterdir()) == ["1", "2", "3"]
    osf.ok("di", "del", "--yes")
    osf.ok("di", "purge", "--yes")
    assert list((osf.directory / "storage/images").iterdir()) == []
    assert add(osf)["id"] == 4


def test_an_image_that_runs_is_not_deleted(osf: Installation) -> None:
    osf.ok("user", "add", "login=alice", "password=x")
    osf.ok("vm", "add", "name=web-1", "user=alice", "osf=desktop")
    add(osf, "version=one")
    add(osf, "version=two")

    async def run() -> None:
        async with osf.write() as tx:
            await tx.connection.execute(
                update(vm_runtimes).values(vm_state=VmState.RUNNING, host_id=1, current_di_id=1)
            )

    asyncio.run(run())
    said = osf("di", "del", "-f", "id=1")
    assert said.status == 1
    assert "DI 1 is run by 1 VMs: web-1" in said.err
    assert list(tags(osf)) == [1, 2]
    osf.ok("di", "tag", "di_id=2", "tag=default")
    (vm,) = osf.listed("vm")
    assert (vm["di"], vm["next_di"], vm["outdated"]) == ("one", "two", True)


def test_what_is_missing_is_named(osf: Installation) -> None:
    said = osf("di", "add", "path=no.tar", "osf=desktop")
    assert said.status == 1
    assert "staging" in said.err
    assert osf("di", "add", f"path={osf.archive()}", "osf=nobody").status == 1
    assert osf("di", "add", f"path={osf.archive()}").status == 2


def test_the_staging_directory_is_looked_at(osf: Installation) -> None:
    osf.archive().rename(osf.directory / "storage/staging/staged.tar")
    osf.ok("di", "add", "path=staged.tar", "osf_id=1")
    assert osf.listed("di")[0]["path"] == "1-staged.tar"


def test_an_image_that_does_not_fit_is_refused_before_it_is_copied(osf: Installation) -> None:
    huge = osf.directory / "huge.tar"
    with huge.open("wb") as stream:
        stream.truncate(2**43)
    said = osf("di", "add", f"path={huge}", "osf=desktop")
    assert said.status == 1
    assert "does not fit" in said.err
    assert list((osf.directory / "storage/images").iterdir()) == []


def test_an_import_that_fails_leaves_nothing(osf: Installation) -> None:
    class Broken(Exception):
        pass

    def report(step: str, share: float) -> None:
        raise Broken

    async def run() -> list[str | None]:
        async with osf.store() as store:
            async with store.read() as tx:
                desktop: Osf = await tx.osfs.get(OsfId(1))
            with pytest.raises(Broken):
                await image_add.add(
                    store, osf.settings, desktop, osf.archive(), version=None, by="test", report=report
                )
            async with store.read() as tx:
                return list(await tx.connection.scalars(select(operations.c.result)))

    assert asyncio.run(run()) == ["Broken"]
    assert list((osf.directory / "storage/images").iterdir()) == []
    assert osf.listed("di") == []
    assert add(osf)["id"] == 2


def test_what_a_killed_import_left_is_removed_and_what_is_under_way_is_not(osf: Installation) -> None:
    paths = Paths(osf.settings)

    async def begin(di_id: int) -> None:
        async with osf.write() as tx:
            await tx.images.reserve_id(OsfId(1))
            await tx.operations.begin(Kind.DI_ADD, di_id, owner="test", pid=1)
        paths.image_part(DiId(di_id)).write_bytes(b"half")
        paths.image(DiId(di_id), "a.tar").write_bytes(b"whole")

    for di_id in (1, 2):
        asyncio.run(begin(di_id))
    with paths.image_lock(DiId(2)).open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert add(osf)["id"] == 3
        assert sorted(file.name for file in paths.images.iterdir()) == [
            ".2.adding",
            ".2.part",
            "2-a.tar",
            "3-desktop.tar",
        ]
    add(osf)
    assert sorted(file.name for file in paths.images.iterdir()) == ["3-desktop.tar", "4-desktop.tar"]


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"QFI\xfb", "qcow2"),
        (b"PK\x03\x04", "zip"),
        (b"\x00" * 510 + b"\x55\xaa", "raw disk"),
        (b"vhdxfile", "VHDX"),
        (b"\x00" * 64 + b"\x7f\x10\xda\xbe", "VDI"),
        (b"Rar!\x1a\x07\x01", "RAR"),
        (b"070701", "cpio"),
        (b"\x04\x22\x4d\x18", "compressed with lz4"),
        (b"LZIP", "compressed with lzip"),
        (b"hello", "not a tar archive"),
        (b"", "not a tar archive"),
    ],
)
def test_what_is_no_archive_is_refused_with_the_reason(head: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        images.sniff(head, "x")


@pytest.mark.parametrize("head", [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"])
def test_compressed_archives_are_taken(head: bytes) -> None:
    images.sniff(head.ljust(512, b"\0"), "x")


def test_a_foreign_image_is_refused_for_containers(osf: Installation) -> None:
    osf.ok("osf", "add", "name=containers", "backend=lxc")
    file = osf.directory / "disk.qcow2"
    file.write_bytes(b"QFI\xfb" + os.urandom(600))
    said = osf("di", "add", f"path={file}", "osf=containers")
    assert said.status == 1
    assert "qcow2" in said.err
    assert said.err.count("\n") == 1
    assert osf.listed("di") == []


def test_a_storage_that_is_not_there_is_told(osf: Installation) -> None:
    (osf.directory / "storage/images").rmdir()
    said = osf("di", "add", f"path={osf.archive()}", "osf=desktop")
    assert said.status == 1
    assert "images" in said.err


def test_all_versions_of_a_day_can_be_used_up() -> None:
    day = date(2030, 1, 31)
    taken = {f"2030-01-31-{number:03}" for number in range(1000)}
    assert images.next_version(day, taken - {"2030-01-31-007"}) == "2030-01-31-007"
    with pytest.raises(ConflictError, match="2030-01-31"):
        images.next_version(day, taken)


@pytest.mark.parametrize("wish", ["yes", "no"])
def test_the_file_goes_after_its_import_if_that_is_wanted(osf: Installation, wish: str) -> None:
    source = osf.archive()
    osf.ok("di", "add", f"path={source}", "osf=desktop", f"delete={wish}")
    assert source.exists() is (wish == "no")
    assert (osf.directory / "storage/images/1-desktop.tar").exists()


def test_a_file_whose_import_fails_stays(osf: Installation) -> None:
    source = osf.archive()
    add(osf, "version=one")
    assert osf("di", "add", f"path={source}", "osf=desktop", "version=one", "delete=yes").status == 1
    assert source.exists()


def test_a_cancelled_import_ends_and_leaves_nothing(osf: Installation) -> None:
    """Somebody cancels while the archive is being copied, which goes on until that was noticed."""
    source = osf.archive()
    with source.open("r+b") as stream:
        stream.truncate(64 << 20)

    async def import_and_cancel() -> None:
        timers, copying, over = (
            ManualClock(datetime(2030, 1, 1, tzinfo=UTC)),
            asyncio.Event(),
            threading.Event(),
        )
        loop = asyncio.get_running_loop()

        def report(step: str, share: float) -> None:
            loop.call_soon_threadsafe(copying.set)
            over.wait(20)

        async with osf.store() as store:
            async with store.read() as tx:
                wanted = await tx.osfs.get(OsfId(1))
            importing = asyncio.ensure_future(
                image_add.add(
                    store, osf.settings, wanted, source, version=None, by="test", report=report, timers=timers
                )
            )
            await copying.wait()
            async with store.write() as tx:
                (begun,) = await tx.operations.unfinished(*ON_IMAGES)
                await tx.operations.cancel([begun.id])
            try:
                while not importing.cancelling():
                    await timers.advance(1)
                    await asyncio.sleep(0.01)
            finally:
                over.set()
            with pytest.raises(ConflictError, match="the import was cancelled"):
                await importing
            async with store.read() as tx:
                assert await tx.operations.unfinished(*ON_IMAGES) == []

    asyncio.run(import_and_cancel())
    assert osf.listed("di") == []
    assert list((osf.directory / "storage/images").iterdir()) == []


def opened() -> set[str]:
    """The names of the files that this process holds open."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return {link.readlink().name for link in links}


def test_an_import_that_cannot_begin_leaves_no_lock(
    osf: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> int:
        raise StoreError("the database refuses")

    async def run() -> None:
        async with osf.store() as store:
            async with store.read() as tx:
                desktop: Osf = await tx.osfs.get(OsfId(1))
            monkeypatch.setattr(Operations, "begin", refuse)
            importing = image_add.add(
                store, osf.settings, desktop, osf.archive(), version=None, by="test", report=lambda *_: None
            )
            with pytest.raises(StoreError, match="refuses"):
                await importing

    asyncio.run(run())
    assert list((osf.directory / "storage/images").iterdir()) == []
    assert ".1.adding" not in opened()


def test_an_import_that_is_cancelled_twice_cleans_up_under_its_lock(
    osf: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second cancellation comes while what was made is being removed."""
    lock = Paths(osf.settings).image_lock(DiId(1))
    held: list[bool] = []
    importing: list[asyncio.Future[Any]] = []

    async def undo(*_: object) -> None:
        importing[0].cancel()
        for _turn in range(10):
            await asyncio.sleep(0)
        held.append(lock.exists())

    async def run() -> None:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def report(step: str, share: float) -> None:
            loop.call_soon_threadsafe(begun.set)

        async with osf.store() as store:
            async with store.read() as tx:
                desktop: Osf = await tx.osfs.get(OsfId(1))
            importing.append(
                asyncio.ensure_future(
                    image_add.add(
                        store,
                        osf.settings,
                        desktop,
                        osf.archive(),
                        version=None,
                        by="test",
                        report=report,
                    )
                )
            )
            await begun.wait()
            importing[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await importing[0]

    monkeypatch.setattr(image_add, "undo", undo)
    asyncio.run(run())
    assert (held, lock.exists()) == ([True], False)


def test_a_copy_is_waited_for_however_often_it_is_cancelled() -> None:
    begun, over = threading.Event(), threading.Event()

    class Slow:
        def run(self, *_: object) -> None:
            begun.set()
            over.wait(20)

        def stop(self) -> None:
            pass

    async def run() -> None:
        taking = asyncio.ensure_future(image_add._take_in(cast("Intake", Slow()), None, lambda _: None))
        while not begun.is_set():
            await asyncio.sleep(0)
        for _ in range(3):
            taking.cancel()
            for _turn in range(5):
                await asyncio.sleep(0)
            assert not taking.done()
        over.set()
        with pytest.raises(asyncio.CancelledError):
            await taking

    try:
        asyncio.run(run())
    finally:
        over.set()


def test_an_image_that_nobody_understands_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(root: Path) -> None:
        raise UnicodeEncodeError("ascii", "\xe9", 0, 1, "ordinal not in range")

    monkeypatch.setattr(console_login, "missing", fail)
    assert asyncio.run(image_add._look_for_login(tmp_path)) is None
    assert "whether an image has a login on tty1 cannot be told" in caplog.text
