"""`qa admin reset` on real disks: all that is ours goes, nothing else does, and a killed one goes on."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.storage import marks, root_lock, subvolumes
from tests.support.pool import tiny_root
from tests.support.qa import Installation, identity

pytestmark = pytest.mark.host

NAME = ("name=node1", "--yes")
KILLED = """
import os, signal, sys
from appliance.storage import volumes
left, delete = int(sys.argv.pop(1)), volumes.delete
def fatal(path):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    delete(path)
volumes.delete = fatal
from appliance.qa.main import main
sys.exit(main())
"""
"""`qa`, killed before it deletes the next subvolume."""


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def qa(on_btrfs: Installation) -> Installation:
    """An installation with an image, a VM with root and home, a kept root; and what others put beside it."""
    qa = on_btrfs.with_vm()
    tiny_root(qa.storage / "staging/tiny.tar.gz")
    qa.ok("di", "add", "path=tiny.tar.gz", "osf=desktop")
    ours = Mark(installation=identity(qa), vm_id=VmId(1), vm_uuid="u", di_id=DiId(1))
    for place in ("rootfs/1-fs", "homefs/1-fs", "kept/1-20300131T180000Z"):
        subvolumes.create(qa.storage / place, ours)
        (qa.storage / place / "file").touch()
    subvolumes.create(qa.storage / "homefs/1-fs/nested")
    stranger = Mark(installation=InstallationId("ffffffff"), vm_id=VmId(9), vm_uuid="u", di_id=DiId(1))
    subvolumes.create(qa.storage / "homefs/9-fs", stranger)
    subvolumes.create(qa.storage / "homefs/precious")
    (qa.storage / "notes.txt").write_text("mine")
    (qa.storage / "qvd.db.schema-0001").write_text("from before a migration")
    return qa


def left(qa: Installation) -> list[str]:
    """What is in the storage, two levels deep."""
    entries = [*qa.storage.glob("*"), *qa.storage.glob("*/*")]
    return sorted(str(entry.relative_to(qa.storage)) for entry in entries)


FOREIGN = ["homefs", "homefs/9-fs", "homefs/precious", "notes.txt", "staging", "staging/tiny.tar.gz"]


def test_ours_goes_and_what_others_made_stays(qa: Installation) -> None:
    said = qa.ok("admin", "reset", *NAME)
    assert left(qa) == FOREIGN
    assert marks.mark_of(qa.storage / "homefs/9-fs") is not None
    for word in ("1 homes of users: web-1 of alice", "1 roots", "1 unpacked images", "qvd.db"):
        assert word in said.err
    assert all(str(qa.storage / name) in said.err for name in ("homefs/9-fs", "notes.txt"))
    qa.ok("admin", "init", "--yes")
    assert qa.listed("vm") == []
    assert "homefs/9-fs" in left(qa)


def test_a_second_reset_has_nothing_to_do(qa: Installation) -> None:
    qa.ok("admin", "reset", *NAME)
    assert "Nothing to do" in qa.ok("admin", "reset", *NAME).out
    assert left(qa) == FOREIGN


@pytest.mark.parametrize("volumes", range(4))
def test_a_killed_reset_is_finished_by_the_next(qa: Installation, volumes: int) -> None:
    words = ["--config", str(qa.config), "admin", "reset", *NAME]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(volumes), *words], capture_output=True, check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    said = qa("admin", "init", "--yes")
    assert said.status == 1
    assert "a reset of this host was not finished" in said.err
    qa.ok("admin", "reset", *NAME)
    assert left(qa) == FOREIGN


def test_without_a_database_no_home_is_ours(qa: Installation) -> None:
    for file in qa.storage.glob("qvd.db*"):
        file.unlink()
    said = qa.ok("admin", "reset", *NAME)
    assert "homefs/1-fs" in said.err
    assert {"homefs/1-fs", "homefs/9-fs", "rootfs/1-fs", "kept/1-20300131T180000Z"} <= {*left(qa)}


def test_a_database_that_cannot_be_read_stops_it(qa: Installation) -> None:
    for file in qa.storage.glob("qvd.db*"):
        file.unlink()
    (qa.storage / "qvd.db").write_text("rubbish")
    before = left(qa)
    assert qa("admin", "reset", *NAME).status == 1
    assert left(qa) == before


def test_not_while_a_guest_runs(qa: Installation) -> None:
    before = left(qa)
    with root_lock.locked(qa.storage / "rootfs/1.lock"):
        said = qa("admin", "reset", *NAME)
    assert said.status == 1
    assert "1 guests run: web-1 of alice" in said.err
    assert {*left(qa)} - {"rootfs/1.lock"} == {*before}
    assert qa.listed("vm") != []


def test_not_while_an_init_outlives_its_monitor(qa: Installation) -> None:
    (top,) = [
        path
        for path in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
        if (path / "cgroup.procs").exists()
    ][:1]
    group = top / f"lxc.payload.qvd-{identity(qa)}-1"
    group.mkdir()
    with subprocess.Popen(["sleep", "60"]) as orphan:
        try:
            (group / "cgroup.procs").write_text(str(orphan.pid))
            said = qa("admin", "reset", *NAME)
        finally:
            orphan.kill()
            orphan.wait()
            group.rmdir()
    assert said.status == 1
    assert "1 guests run: web-1 of alice" in said.err


def test_not_while_the_daemon_runs(qa: Installation) -> None:
    with root_lock.locked(qa.storage / "hkd.lock"):
        said = qa("admin", "reset", *NAME)
    assert said.status == 1
    assert "the daemon of this installation runs" in said.err
    assert qa.listed("vm") != []


def test_the_name_must_be_written(qa: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    before = left(qa)
    assert "this host is not node2" in qa("admin", "reset", "name=node2", "--yes").err
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        for words in ((), ("--yes",), ("name=node1",)):
            said = qa("admin", "reset", *words)
            assert said.status == 1
            assert "name=HOST --yes" in said.err
    assert left(qa) == before
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    said = qa("admin", "reset", "--yes")
    assert said.status == 1
    assert "Nothing was done" in said.err
    assert "rootfs/1-fs" in left(qa)
    monkeypatch.setattr("sys.stdin", Terminal("node1\n"))
    qa.ok("admin", "reset")
    assert left(qa) == FOREIGN
