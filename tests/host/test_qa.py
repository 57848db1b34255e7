"""`qa` on real disks: the pool, images unpacked into subvolumes, and what a killed import leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.storage.subvolumes import is_btrfs
from tests.support.pool import tiny_root
from tests.support.qa import Installation

pytestmark = pytest.mark.host


@pytest.fixture
def bare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Installation]:
    """A host whose storage is on no btrfs yet."""
    installation = Installation(tmp_path, capsys)
    installation.write_config(
        vm__hypervisor="lxc", storage__pool__file=str(tmp_path / "pool"), storage__pool__size="1G"
    )
    yield installation
    if (tmp_path / "storage").is_mount():
        subprocess.run(["umount", tmp_path / "storage"], check=True)


@pytest.fixture
def qa(bare: Installation) -> Installation:
    """An installation on a pool of its own, with an OSF."""
    bare.ok("admin", "init", "--yes")
    bare.ok("osf", "add", "name=desktop")
    return bare


@pytest.fixture
def staging(qa: Installation) -> Path:
    return qa.directory / "storage/staging"


def volumes(qa: Installation) -> list[str]:
    return sorted(path.name for path in (qa.directory / "storage/basefs").iterdir())


def images(qa: Installation) -> list[str]:
    return sorted(path.name for path in (qa.directory / "storage/images").iterdir())


def test_makes_a_pool_once(bare: Installation) -> None:
    said = bare.ok("admin", "init", "--yes")
    assert "Pool" in said.out
    assert is_btrfs(bare.directory / "storage")
    assert "Nothing to do" in bare.ok("admin", "init").out


def test_makes_the_pool_that_a_killed_init_did_not_finish(
    bare: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killed = tmp_path / "tools" / "mkfs.btrfs"
    killed.parent.mkdir()
    killed.write_text('#!/bin/sh\nfor file; do :; done\ncp --sparse=always "$file" "$file.half"\nexit 1\n')
    killed.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{killed.parent}:{os.environ['PATH']}")
        assert bare("admin", "init", "--yes").status == 1
    (half,) = bare.directory.glob("pool*.half")
    half.rename(half.with_suffix(""))
    bare.ok("admin", "init", "--yes")
    assert is_btrfs(bare.directory / "storage")


def test_mounts_a_pool_that_is_there(qa: Installation) -> None:
    subprocess.run(["umount", qa.directory / "storage"], check=True)
    assert "mount the btrfs pool" in qa.ok("admin", "init", "--yes").out
    assert [osf["name"] for osf in qa.listed("osf")] == ["desktop"]


def test_asks_before_it_makes_a_pool(bare: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        said = bare("admin", "init")
    assert said.status == 1
    assert "btrfs pool of 1G" in said.err
    assert not (bare.directory / "pool").exists()


def test_does_not_hide_what_is_there(bare: Installation) -> None:
    (bare.directory / "storage").mkdir()
    (bare.directory / "storage/precious").touch()
    said = bare("admin", "init", "--yes")
    assert said.status == 1
    assert "not empty" in said.err
    assert not (bare.directory / "pool").exists()


def test_does_not_overwrite_a_file(bare: Installation) -> None:
    (bare.directory / "pool").write_text("precious")
    said = bare("admin", "init", "--yes")
    assert said.status == 1
    assert "holds no btrfs" in said.err
    assert (bare.directory / "pool").read_text() == "precious"


def test_a_pool_that_is_too_small_is_refused(bare: Installation) -> None:
    bare.write_config(
        vm__hypervisor="lxc", storage__pool__file=f"{bare.directory}/pool", storage__pool__size="1M"
    )
    assert "storage.pool.size = 1M is too small" in bare("admin", "init", "--yes").err


def test_a_pool_for_which_its_disk_has_no_room_is_refused(bare: Installation) -> None:
    bare.write_config(
        vm__hypervisor="lxc", storage__pool__file=f"{bare.directory}/pool", storage__pool__size="8192T"
    )
    assert "a pool of 8589934592 MiB does not fit" in bare("admin", "init", "--yes").err
    assert not list(bare.directory.glob("pool*"))


def test_missing_tools_are_named_at_once(bare: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = bare("admin", "init", "--yes")
    assert said.status == 1
    assert all(tool in said.err for tool in ("lxc-start", "mkfs.btrfs", "nft"))
    assert not (bare.directory / "storage").exists()


def test_an_image_becomes_a_read_only_subvolume(qa: Installation, staging: Path) -> None:
    tiny_root(staging / "tiny.tar.gz")
    qa.ok("di", "add", "path=tiny.tar.gz", "osf=desktop")
    base = qa.directory / "storage/basefs/1"
    assert (base / "sbin/init").is_symlink()
    with pytest.raises(OSError, match="Read-only"):
        (base / "x").touch()
    qa.ok("di", "del", "--yes")
    assert (base / "sbin/init").is_symlink()
    qa.ok("di", "purge", "--yes")
    assert (volumes(qa), images(qa)) == ([], [])


def test_a_corrupt_archive_leaves_nothing(qa: Installation, staging: Path) -> None:
    whole = tiny_root(staging / "tiny.tar.gz")
    (staging / "half.tar.gz").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    said = qa("di", "add", "path=half.tar.gz", "osf=desktop")
    assert said.status == 1
    assert "damaged" in said.err.splitlines()[-1]
    assert (qa.listed("di"), volumes(qa), images(qa)) == ([], [], [])


def test_an_archive_without_a_root_leaves_nothing(qa: Installation, staging: Path) -> None:
    subprocess.run(["tar", "-C", "/etc", "-cf", staging / "etc.tar", "hostname"], check=True)
    said = qa("di", "add", "path=etc.tar", "osf=desktop")
    assert said.status == 1
    assert "/sbin/init" in said.err
    assert (qa.listed("di"), volumes(qa), images(qa)) == ([], [], [])


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_an_import_can_be_ended_at_any_moment(
    qa: Installation, staging: Path, ending: signal.Signals
) -> None:
    tiny_root(staging / "tiny.tar.gz")
    with (staging / "big.tar").open("wb") as stream:
        stream.write(
            subprocess.run(["gzip", "-dc", staging / "tiny.tar.gz"], capture_output=True, check=True).stdout
        )
        stream.truncate(400 * 1024 * 1024)
    heeded = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # even in the background
    )
    command = f"{heeded}; import sys; from appliance.qa.main import main; sys.exit(main())"
    words = ["--config", str(qa.config), "di", "add", f"path={staging / 'big.tar'}", "osf=desktop"]
    adding = subprocess.Popen(
        [sys.executable, "-c", command, *words], stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert adding.stderr is not None
    assert adding.stderr.readline() == "unpacking …\n"
    time.sleep(0.05)
    adding.send_signal(ending)
    adding.stderr.read()
    adding.stderr.close()
    adding.wait(timeout=60)
    assert adding.returncode == (130 if ending == signal.SIGINT else -signal.SIGKILL)
    if ending == signal.SIGINT:
        assert (volumes(qa), images(qa)) == ([], [])
    assert qa.listed("di") == []
    qa.ok("di", "add", "path=tiny.tar.gz", "osf=desktop")
    waits = (
        [".1.part"] if ending == signal.SIGKILL else []
    )  # for a day, as the same import goes on from there
    assert (volumes(qa), images(qa)) == (["2"], [*waits, "2-tiny.tar.gz"])


def test_a_login_that_an_image_has_is_refused(qa: Installation, staging: Path) -> None:
    tiny_root(staging / "tiny.tar.gz")
    qa.ok("di", "add", "path=tiny.tar.gz", "osf=desktop")
    said = qa("user", "add", "login=user", "password=x")
    assert said.status == 1
    assert "the image desktop " in said.err
    assert "has an account of this name, with uid 1000" in said.err
    roster = qa.directory / "users.csv"
    roster.write_text("login,password\nalice,x\nuser,x\n")
    assert "line 3: login=user: the image" in qa("user", "add", f"csv={roster}").err
    assert qa.listed("user") == []


def test_an_image_with_a_user_s_login_is_warned_about(qa: Installation, staging: Path) -> None:
    qa.ok("user", "add", "login=user", "password=x")
    qa.ok("user", "add", "login=alice", "password=x")
    tiny_root(staging / "tiny.tar.gz")
    said = qa.ok("di", "add", "path=tiny.tar.gz", "osf=desktop")
    assert "accounts that are users, whose desktops cannot start: user\n" in said.err
