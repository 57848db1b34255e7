"""Homes in other hands, on real disks: what follows, what does not, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.model import FIRST_USER_UID, DiId, InstallationId, Mark, VmId
from appliance.storage import marks, root_lock, subvolumes
from appliance.storage.homes import Account, check_free, pass_on
from tests.support.qa import Installation, identity

pytestmark = pytest.mark.host

ALICE = Account("alice", FIRST_USER_UID + 1, FIRST_USER_UID + 1)
BOB = Account("bob", FIRST_USER_UID + 2, FIRST_USER_UID + 2)
KILLED = """
import os, signal, sys
from appliance.storage import homes
homes.os = Fatal = type("Fatal", (), {"__getattr__": lambda self, name: getattr(os, name)})()
left = int(sys.argv.pop(1))
def chown(*words, **options):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.chown(*words, **options)
Fatal.chown = chown
from appliance.qa.main import main
sys.exit(main())
"""
"""`qa`, killed before it changes the owner of the next file."""


@pytest.fixture
def qa(on_btrfs: Installation) -> Installation:
    """Alice with a stopped VM that has been used, and bob."""
    on_btrfs.with_vm().ok("user", "add", "login=bob", "password=x")
    furnish(on_btrfs, on_btrfs.storage / "homefs/1-fs")
    return on_btrfs


def furnish(qa: Installation, home: Path) -> None:
    """A home as a guest leaves it: the user's files, root's, and what was made to do harm."""
    subvolumes.create(home)
    (vm,) = qa.listed("vm")
    marks.set_mark(home, Mark(installation=identity(qa), vm_id=VmId(1), vm_uuid=vm["uuid"], di_id=DiId(1)))
    populate(home)


def populate(home: Path) -> None:
    """Alice's home with forty files, links out of it, and files of others."""
    mine = home / "alice"
    for folder in (mine, mine / "deep", mine / "deep/er"):
        folder.mkdir()
    for number in range(40):
        (mine / f"deep/er/{number}").write_text("x")
    (mine / "out").symlink_to("/etc/passwd")
    (mine / "folder-out").symlink_to("/etc")
    (mine / "loop").symlink_to(".")
    os.mkfifo(mine / "pipe")
    for path in (mine, *mine.rglob("*")):
        os.chown(path, ALICE.uid, ALICE.gid, follow_symlinks=False)
    (home / "shared").mkdir()
    (mine / "of-root").write_text("root's")


def owners(top: Path) -> dict[str, tuple[int, int]]:
    """Whose everything below a directory is."""
    found = {}
    for path in (top, *top.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(top))] = (status.st_uid, status.st_gid)
    return found


def check_is_bobs(home: Path) -> None:
    """All that was alice's is bob's, where he will look for it; nothing else has changed."""
    assert sorted(path.name for path in home.iterdir()) == ["bob", "shared"]
    found = owners(home / "bob")
    assert len(found) == 48
    assert found.pop("of-root") == (0, 0)
    assert set(found.values()) == {(BOB.uid, BOB.gid)}
    assert owners(home / "shared") == {".": (0, 0)}
    assert Path("/etc").stat().st_uid == 0
    assert Path("/etc/passwd").stat().st_uid == 0


def test_the_home_follows(qa: Installation) -> None:
    qa.ok("user", "give", "user=alice", "to=bob", "vm=web-1")
    check_is_bobs(qa.storage / "homefs/1-fs")
    qa.ok("user", "give", "user=bob", "to=alice", "vm=web-1")
    assert (qa.storage / "homefs/1-fs/alice/deep/er/7").stat().st_uid == ALICE.uid


@pytest.mark.parametrize("files", [0, 1, 20, 46])
def test_a_killed_handover_is_finished_by_the_next(qa: Installation, files: int) -> None:
    words = ["--config", str(qa.config), "user", "give", "user=alice", "to=bob", "vm=web-1"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(files), *words], capture_output=True, check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert qa.listed("vm")[0]["user"] == "bob"
    assert "is being handed over to bob" in qa("vm", "start", "-f", "name=web-1").err
    said = qa("user", "give", "user=alice", "to=bob", "vm=web-1")
    assert "A handover that was killed is finished: web-1" in said.err
    check_is_bobs(qa.storage / "homefs/1-fs")
    qa.ok("vm", "start", "-f", "name=web-1")


def test_another_login_takes_the_home_along(qa: Installation) -> None:
    qa.ok("user", "edit", "login=alicia", "-f", "login=alice")
    home = qa.storage / "homefs/1-fs"
    assert sorted(path.name for path in home.iterdir()) == ["alicia", "shared"]
    assert (home / "alicia/deep").stat().st_uid == ALICE.uid


def test_a_kept_root_knows_the_old_login(qa: Installation) -> None:
    (qa.storage / "rootfs/1-fs").mkdir()
    said = qa("user", "edit", "login=alicia", "-f", "login=alice")
    assert said.status == 1
    assert "web-1 keeps its root" in said.err
    assert qa.listed("user")[0]["login"] == "alice"


def test_what_bob_has_there_is_not_lost(qa: Installation) -> None:
    home = qa.storage / "homefs/1-fs"
    (home / "bob").mkdir()
    before = owners(home)
    said = qa("user", "give", "user=alice", "to=bob", "vm=web-1")
    assert said.status == 1
    assert "holds both alice and bob" in said.err
    assert owners(home) == before
    assert qa.listed("vm")[0]["user"] == "alice"
    qa.ok("vm", "start", "-f", "name=web-1")


def test_a_stranger_s_home_is_left_alone(qa: Installation) -> None:
    home = qa.storage / "homefs/1-fs"
    stranger = Mark(installation=InstallationId("ffffffff"), vm_id=VmId(1), vm_uuid="u", di_id=DiId(1))
    marks.set_mark(home, stranger)
    said = qa("user", "give", "user=alice", "to=bob", "vm=web-1")
    assert said.status == 1
    assert "is not that of web-1" in said.err
    assert (home / "alice").exists()


def test_a_root_in_use_refuses_whatever_the_row_says(qa: Installation) -> None:
    with root_lock.locked(qa.storage / "rootfs/1.lock"):
        said = qa("user", "give", "user=alice", "to=bob", "vm=web-1")
    assert said.status == 1
    assert "web-1 runs, or somebody else works on it" in said.err
    assert qa.listed("vm")[0]["user"] == "alice"


def test_directories_are_followed_however_deep(tmp_path: Path) -> None:
    """Deeper than a path may be long, and than descriptors may be open."""
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=folder)
        os.chown("d", ALICE.uid, ALICE.gid, dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    assert pass_on(tmp_path, ALICE, BOB).changed == 3000
    assert pass_on(tmp_path, ALICE, BOB).changed == 0
    assert (tmp_path / "d/d/d").stat().st_uid == BOB.uid
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_a_link_in_the_place_of_a_home_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    os.chown(outside, ALICE.uid, ALICE.gid)
    home = tmp_path / "home"
    home.mkdir()
    (home / "alice").symlink_to(outside)
    check_free(home, ALICE, BOB)
    pass_on(home, ALICE, BOB)
    assert (home / "bob").is_symlink()
    assert outside.stat().st_uid == ALICE.uid


def test_a_read_only_snapshot_of_the_user_s_keeps_its_owner_and_stops_nothing(pool: Path) -> None:
    home = pool / "snapshots"
    for folder in (home, home / "alice"):
        subvolumes.create(folder)
    try:
        (home / "alice/file").touch()
        for path in (home / "alice", home / "alice/file"):
            os.chown(path, ALICE.uid, ALICE.gid)
        subprocess.run(
            ["btrfs", "-q", "subvolume", "snapshot", "-r", home / "alice", home / "alice/yesterday"],
            check=True,
        )
        passed = pass_on(home, ALICE, BOB)
        assert (passed.changed, passed.kept) == (2, 2)
        assert (home / "bob/file").stat().st_uid == BOB.uid
    finally:
        subvolumes.delete(home)
