"""Snapshots of homes on real disks: taken before an image changes, put back whole, never somebody else's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from appliance.clock import SystemClock
from appliance.errors import VolumeError
from appliance.model import FIRST_USER_UID, DiId, Kept, KeptKind, Mark, VmId
from appliance.ops import home_snapshots
from appliance.runtime.traces import HALF
from appliance.storage import marks, root_lock, subvolumes
from appliance.storage.btrfs import BtrfsDisks
from appliance.storage.migrate import upgrade
from appliance.storage.store import Store
from tests.support.lxc_rig import Site, site
from tests.support.qa import Installation, identity
from tests.support.store import furnish, url

pytestmark = pytest.mark.host

ONE, DI, NEXT_DI, THIRD_DI = VmId(1), DiId(1), DiId(2), DiId(3)


@dataclass(frozen=True)
class Ground:
    """The disks of an installation and its rows; no guest and no daemon."""

    site: Site
    store: Store
    disks: BtrfsDisks

    def mark(self, di_id: DiId) -> Mark:
        return Mark(installation=self.site.installation, vm_id=ONE, vm_uuid="uuid-1", di_id=di_id)

    @property
    def home(self) -> Path:
        return self.site.paths.homefs(ONE)

    async def start(self, di_id: DiId, *, most: int = 3, size_mib: int | None = None) -> None:
        """What a start does to the home."""
        await self.before(di_id, most=most)
        await self.disks.ensure_home(self.mark(di_id), size_mib=size_mib)

    async def before(self, di_id: DiId, *, most: int = 3) -> None:
        """As much of it as a start does that is killed then."""
        await home_snapshots.before_image(self.store, self.disks, self.mark(di_id), most=most)

    async def snapshots(self) -> list[Kept]:
        async with self.store.read() as tx:
            return await tx.kept.snapshots(ONE)

    async def due(self) -> list[Kept]:
        async with self.store.read() as tx:
            return await tx.kept.due()

    def use(self, word: str) -> None:
        """What a user does."""
        (self.home / "file").write_text(word)


@pytest.fixture
def installed(pool: Path) -> Iterator[Site]:
    with site(pool) as made:
        yield made


@pytest.fixture
async def ground(installed: Site, tmp_path: Path) -> AsyncIterator[Ground]:
    upgrade(url(tmp_path))
    store = await Store.open(url(tmp_path), SystemClock())
    try:
        async with store.write() as tx:
            await furnish(tx)
        yield Ground(installed, store, BtrfsDisks(installed.paths, installed.installation))
    finally:
        await store.close()


class TestBeforeAnImageChanges:
    async def test_the_home_is_kept_read_only_with_its_mark(self, ground: Ground) -> None:
        await ground.start(DI)
        ground.use("before")
        await ground.start(DI)
        assert await ground.snapshots() == []
        await ground.start(NEXT_DI)
        (kept,) = await ground.snapshots()
        assert (kept.kind, kept.from_di_id, kept.to_di_id) == (KeptKind.SNAPSHOT, DI, NEXT_DI)
        assert kept.until is None
        path = Path(kept.path)
        assert (path / "file").read_text() == "before"
        assert marks.mark_of(path) == ground.mark(DI)
        assert marks.mark_of(ground.home) == ground.mark(NEXT_DI)
        with pytest.raises(OSError, match="Read-only"):
            (path / "file").write_text("after")

    async def test_a_start_that_is_repeated_takes_one(self, ground: Ground) -> None:
        await ground.start(DI)
        ground.use("before")
        for _ in range(3):
            await ground.before(NEXT_DI)
        await ground.before(THIRD_DI)
        (kept,) = await ground.snapshots()
        assert kept.to_di_id == THIRD_DI
        ground.use("after all")
        await ground.before(NEXT_DI)
        *_, newest = await ground.snapshots()
        assert newest.id != kept.id, "the home has changed, and no commit told of it yet"
        assert (Path(newest.path) / "file").read_text() == "after all"

    async def test_what_a_kill_left_of_a_row_is_forgotten(self, ground: Ground) -> None:
        await ground.start(DI)
        async with ground.store.write() as tx:
            await tx.kept.add(
                KeptKind.SNAPSHOT,
                ground.site.paths.kept / "1-home-20300101T000000Z",
                vm_id=ONE,
                vm="web-1",
                owner="alice",
                reason="",
                until=None,
                from_di_id=DI,
            )
        await ground.start(NEXT_DI)
        (kept,) = await ground.snapshots()
        assert Path(kept.path).exists()

    async def test_the_newest_are_kept_and_none_if_so_wanted(self, ground: Ground) -> None:
        await ground.start(DI)
        for di_id in (NEXT_DI, DI, NEXT_DI):
            await ground.start(di_id, most=2)
        assert [kept.from_di_id for kept in await ground.snapshots()] == [NEXT_DI, DI]
        assert [(kept.from_di_id, kept.is_given_up) for kept in await ground.due()] == [(DI, True)]
        await ground.start(DI, most=0)
        assert len(await ground.snapshots()) == 2
        assert marks.mark_of(ground.home) == ground.mark(DI)

    async def test_without_the_snapshot_there_is_no_start_and_no_row(self, ground: Ground) -> None:
        await ground.start(DI)
        ground.use("before")
        kept = ground.site.paths.kept
        subprocess.run(["chattr", "+i", kept], check=True)
        try:
            with pytest.raises(VolumeError, match="no snapshot of the home of VM 1 can be taken"):
                await ground.start(NEXT_DI)
        finally:
            subprocess.run(["chattr", "-i", kept], check=True)
        assert await ground.snapshots() == []
        assert marks.mark_of(ground.home) == ground.mark(DI)
        await ground.start(NEXT_DI)
        (taken,) = await ground.snapshots()
        assert (Path(taken.path) / "file").read_text() == "before"

    async def test_a_strangers_home_is_not_kept(self, ground: Ground) -> None:
        await ground.start(DI)
        stranger = replace(ground.mark(NEXT_DI), vm_uuid="u-2")
        with pytest.raises(VolumeError, match="has another owner"):
            await home_snapshots.before_image(ground.store, ground.disks, stranger, most=3)
        assert await ground.snapshots() == []

    async def test_only_snapshots_are_kept_without_an_end(self, ground: Ground) -> None:
        with pytest.raises(IntegrityError):
            async with ground.store.write() as tx:
                await tx.kept.add(
                    KeptKind.HOME, Path("/x"), vm_id=ONE, vm="", owner="", reason="", until=None
                )


STARTED = """
import asyncio, os, sys
from appliance.clock import SystemClock
from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.ops import home_snapshots
from appliance.storage import btrfs_calls
from appliance.storage.btrfs import BtrfsDisks
from appliance.storage.paths import Paths
from appliance.storage.store import Store
from appliance.config import Settings
from tests.support.faulty_qa import steps, watch
root, database, installation = sys.argv[1:]
disks = BtrfsDisks(Paths(Settings({"path.storage.root": root})), installation)
libc = btrfs_calls._LIBC
async def start(fatal, mark):
    store = await Store.open(database, SystemClock())
    step = steps(fatal, os.open(os.devnull, os.O_WRONLY))
    class Calls:
        def __getattr__(self, name):
            def call(*words):
                step(name, "")
                done = getattr(libc, name)(*words)
                step(name + " done", "")
                return done
            return call
    btrfs_calls._LIBC = Calls()
    watch(step)
    await home_snapshots.before_image(store, disks, mark, most=2)
    await disks.ensure_home(mark, size_mib=None)
    os._exit(0)
for line in sys.stdin:
    fatal = int(line)
    child = os.fork()
    if not child:
        mark = Mark(installation=installation, vm_id=1, vm_uuid="uuid-1", di_id=fatal + 1)
        asyncio.run(start(fatal, mark))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""What the Nth start does to the home, with DI N + 1, killed at its Nth step; for each N that it reads."""


async def test_a_start_killed_at_any_step_and_repeated_takes_one_snapshot(
    ground: Ground, tmp_path: Path
) -> None:
    await ground.start(DI)
    words = (str(ground.site.paths.root), url(tmp_path), ground.site.installation)
    killed = subprocess.Popen(
        [sys.executable, "-c", STARTED, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with killed:
        assert killed.stdin
        assert killed.stdout
        for fatal in range(1, 99):
            ground.use(str(fatal))
            print(fatal, file=killed.stdin, flush=True)
            status = int(killed.stdout.readline())
            await ground.start(DiId(fatal + 1), most=2)
            *before, newest = await ground.snapshots()
            assert (newest.from_di_id, newest.to_di_id) == (fatal, fatal + 1)
            assert (Path(newest.path) / "file").read_text() == str(fatal)
            assert [kept.to_di_id for kept in before] == ([fatal] if fatal > 1 else [])
            rows = {Path(kept.path) for kept in (*before, newest, *await ground.due())}
            assert rows == set(ground.site.paths.kept.iterdir()), (
                "the removed are still there, with their rows"
            )
            if status == 0:
                break
            assert status == -signal.SIGKILL
        killed.stdin.close()
    assert fatal > 6


KILLED = """
import os, sys
from appliance.qa.main import main
from appliance.storage import btrfs_calls
from tests.support.faulty_qa import steps, watch
import appliance.qa.home, appliance.storage.btrfs, appliance.storage.qcow2, appliance.storage.store
record, libc = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND), btrfs_calls._LIBC
def run(fatal):
    step = steps(fatal, record)
    class Calls:
        def __getattr__(self, name):
            def call(*words):
                step(name, "")
                done = getattr(libc, name)(*words)
                step(name + " done", "")
                return done
            return call
    btrfs_calls._LIBC = Calls()
    watch(step)
    sys.exit(main())
for line in sys.stdin:
    child = os.fork()
    if not child:
        run(int(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""`qa`, killed at its Nth step, before and after each call of btrfs among them; for each N that it reads."""


@pytest.fixture
def qa(on_btrfs: Installation) -> Installation:
    """Alice with a stopped VM that has been used with DI 1, and bob."""
    on_btrfs.with_vm().ok("user", "add", "login=bob", "password=x")
    (vm,) = on_btrfs.listed("vm")
    home = home_of(on_btrfs)
    subvolumes.create(home, Mark(installation=identity(on_btrfs), vm_id=ONE, vm_uuid=vm["uuid"], di_id=DI))
    (home / "alice").mkdir()
    use(on_btrfs, "first")
    return on_btrfs


def home_of(qa: Installation) -> Path:
    return qa.storage / "homefs/1-fs"


def use(qa: Installation, word: str, login: str = "alice") -> None:
    """What a user does."""
    (home_of(qa) / login / "file").write_text(word)
    for path in (home_of(qa) / login, home_of(qa) / login / "file"):
        os.chown(path, FIRST_USER_UID + 1, FIRST_USER_UID + 1)


def word(qa: Installation, login: str = "alice") -> str:
    """What a user finds."""
    return (home_of(qa) / login / "file").read_text()


def snapshots(qa: Installation) -> list[dict[str, Any]]:
    """The snapshots that `qa home list` tells of, the oldest first."""
    return [line for line in qa.listed("home", "vm=web-1") if line["snapshot"] is not None]


def kept(qa: Installation) -> int:
    """The number of a snapshot that is taken now."""
    assert qa.ok("home", "snapshot", "-f", "vm=web-1").out == "Kept 1 homes as they are.\n"
    return int(snapshots(qa)[-1]["snapshot"])


def restored(qa: Installation, number: int) -> str:
    """Put back; returns what was noted."""
    return qa.ok("home", "restore", "vm=web-1", f"snapshot={number}", "--yes").err


def check_whole(qa: Installation) -> None:
    """Every snapshot has a row and every row its snapshot; nothing half made is there."""
    rows = {Path(row["path"]) for row in qa.listed("kept")}
    assert set((qa.storage / "kept").iterdir()) == rows
    assert [path.name for path in (qa.storage / "homefs").iterdir()] == ["1-fs"]
    assert not (qa.storage / "rootfs/1.lock").exists()


class TestRestore:
    def test_a_home_is_put_back_and_that_is_undone(self, qa: Installation) -> None:
        number = kept(qa)
        use(qa, "second")
        (home_of(qa) / "alice/new").touch()
        said = restored(qa, number)
        assert word(qa) == "first"
        assert not (home_of(qa) / "alice/new").exists()
        assert (home_of(qa) / "alice/file").stat().st_uid == FIRST_USER_UID + 1
        home, first, undo = qa.listed("home")
        assert (home["snapshot"], home["di_id"], home["restorable"]) == (None, DI, False)
        assert (first["reason"], undo["reason"]) == ("by hand", "before a restore")
        assert (undo["next_di_id"], undo["restorable"]) == (DI, True)
        assert f"snapshot={undo['snapshot']}" in said
        check_whole(qa)
        use(qa, "third")
        restored(qa, undo["snapshot"])
        assert word(qa) == "second"
        assert (home_of(qa) / "alice/new").exists()

    def test_the_mark_tells_with_which_image_the_home_was_used(self, qa: Installation) -> None:
        number = kept(qa)
        mark = marks.mark_of(home_of(qa))
        assert mark is not None
        marks.set_mark(home_of(qa), replace(mark, di_id=NEXT_DI))
        restored(qa, number)
        assert marks.mark_of(home_of(qa)) == mark

    def test_a_home_that_is_gone_comes_back(self, qa: Installation) -> None:
        number = kept(qa)
        subvolumes.delete(home_of(qa))
        assert qa.listed("home") == []
        assert "To undo" not in restored(qa, number)
        assert word(qa) == "first"

    def test_it_asks_and_only_for_what_there_is(self, qa: Installation) -> None:
        number = kept(qa)
        use(qa, "second")
        assert qa("home", "restore", "vm=web-1", f"snapshot={number}").status == 1
        for words, why in (
            (("vm=web-1", "snapshot=99"), "has no such snapshot"),
            (("vm=web-9", f"snapshot={number}"), "there is no VM 'web-9'"),
        ):
            said = qa("home", "restore", *words, "--yes")
            assert (said.status, why in said.err) == (1, True), said.err
        assert qa("home", "restore", "vm=web-1", "snapshot=x", "--yes").status == 2
        qa.ok("vm", "add", "name=web-2", "user=alice", "osf=desktop")
        said = qa("home", "restore", "vm=web-2", f"snapshot={number}", "--yes")
        assert "the home of web-2 has no such snapshot" in said.err
        assert word(qa) == "second"
        assert len(snapshots(qa)) == 1

    def test_not_while_it_runs_or_somebody_works_on_it(self, qa: Installation) -> None:
        number = kept(qa)
        with root_lock.locked(qa.storage / "rootfs/1.lock"):
            for words in (("restore", "vm=web-1", f"snapshot={number}", "--yes"), ("snapshot", "--yes")):
                assert "web-1 runs, or somebody else works on it" in qa("home", *words).err
        (qa.storage / "rootfs/1.lock").unlink()
        qa.ok("vm", "start", "--yes")
        for words in (("restore", "vm=web-1", f"snapshot={number}", "--yes"), ("snapshot", "--yes")):
            said = qa("home", *words)
            assert (said.status, "only stopped VMs" in said.err) == (1, True), said.err

    def test_what_no_snapshot_holds_is_not_lost(self, qa: Installation) -> None:
        number = kept(qa)
        subprocess.run(["btrfs", "-q", "subvolume", "create", home_of(qa) / "alice/own"], check=True)
        said = qa("home", "restore", "vm=web-1", f"snapshot={number}", "--yes")
        assert (said.status, "subvolumes were made in it" in said.err) == (1, True), said.err
        assert (home_of(qa) / "alice/own").is_dir()
        check_whole(qa)

    def test_another_login_finds_it_under_its_name(self, qa: Installation) -> None:
        number = kept(qa)
        qa.ok("user", "edit", "login=alicia", "-f", "login=alice")
        use(qa, "second", "alicia")
        restored(qa, number)
        assert word(qa, "alicia") == "first"
        assert [path.name for path in home_of(qa).iterdir()] == ["alicia"]

    def test_whoever_was_given_the_vm_does_not_get_older_files(self, qa: Installation) -> None:
        number = kept(qa)
        qa.ok("user", "give", "user=alice", "to=bob", "vm=web-1")
        (line,) = snapshots(qa)
        assert (line["owner"], line["restorable"]) == ("alice", False)
        assert line["until"] is not None
        said = qa("home", "restore", "vm=web-1", f"snapshot={number}", "--yes")
        assert "of a home of alice, not of bob" in said.err
        assert word(qa, "bob") == "first"
        qa.ok("user", "give", "user=bob", "to=alice", "vm=web-1")
        restored(qa, number)
        assert word(qa) == "first"

    def test_a_deleted_vm_takes_its_snapshots_along(self, qa: Installation) -> None:
        kept(qa)
        qa.ok("vm", "del", "--yes")
        assert {row["kind"]: row["until"] for row in qa.listed("kept")}.keys() == {"home", "snapshot"}
        assert len({row["until"] for row in qa.listed("kept")}) == 1

    def test_and_at_once_if_so_wanted(self, qa: Installation) -> None:
        kept(qa)
        qa.ok("vm", "del", "purge_home=yes", "--yes")
        assert all(row["until"] <= row["at"] for row in qa.listed("kept"))


def test_a_reset_takes_them_along(qa: Installation) -> None:
    kept(qa)
    said = qa.ok("admin", "reset", "name=node1", "--yes")
    assert "1 roots, homes and snapshots of homes that were kept" in said.out + said.err
    assert list(qa.storage.iterdir()) == []


def check_killed(qa: Installation, record: Path) -> str:
    """Whether everything is one way or the other; returns what the home holds."""
    found, mark = word(qa), marks.mark_of(home_of(qa))
    assert mark is not None
    assert (found in ("first", "second"), mark.di_id) == (True, DI)
    rows = {Path(row["path"]) for row in qa.listed("kept")}
    assert set((qa.storage / "kept").iterdir()) - rows == set(), record.read_text()
    if found == "first":
        *_, undo = [Path(row["path"]) for row in snapshots(qa) if Path(row["path"]).exists()]
        assert (undo / "alice/file").read_text() == "second"
    return found


def test_a_kill_at_any_step_leaves_the_old_home_or_the_new(qa: Installation, tmp_path: Path) -> None:
    """And after the next survey, every snapshot has its row and every row its snapshot."""
    qa.ok("config", "set", "storage.homes.snapshots=99")
    number, record = kept(qa), tmp_path / "steps"
    words = ["--config", str(qa.config), "home", "restore", "vm=web-1", f"snapshot={number}", "--yes"]
    outcomes = set()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(record), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as killed:
        assert killed.stdin
        assert killed.stdout
        for fatal in range(1, 200):
            use(qa, "second")
            print(fatal, file=killed.stdin, flush=True)
            while not re.fullmatch(r"-?\d+\n", line := killed.stdout.readline()):
                assert line.startswith("The home of"), line
            outcomes.add(check_killed(qa, record))
            if int(line) == 0:
                break
            assert int(line) == -signal.SIGKILL
        killed.stdin.close()
    assert outcomes == {"first", "second"}
    assert "renameat2" in record.read_text()
    assert fatal > 10, record.read_text()
    left = [path for path in (qa.storage / "homefs").iterdir() if path.name != "1-fs"]
    assert all(HALF.fullmatch(path.name) for path in left), "the survey would not know it"
    for path in left:
        subvolumes.delete(path)
