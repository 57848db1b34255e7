"""Paths inside a directory that somebody else wrote lead nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.storage import openat


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    return victim


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "init").touch()
    return root


def test_absolute_links_are_the_roots_own(root: Path) -> None:
    (root / "sbin").symlink_to("/usr/bin")
    assert openat.resolved(root, "/sbin/init") == root / "usr" / "bin" / "init"


def test_a_link_to_nowhere_inside_is_missing(root: Path, outside: Path) -> None:
    (root / "init").symlink_to(outside)
    with pytest.raises(FileNotFoundError):
        openat.resolved(root, "/init")
    assert openat.read_text(root, "/init") == ""


def test_climbing_out_stays_inside(root: Path) -> None:
    (root / "up").symlink_to("../../../usr/bin/init")
    assert openat.resolved(root, "/../up") == root / "usr" / "bin" / "init"


def test_a_link_is_replaced_and_not_followed(root: Path, outside: Path) -> None:
    (root / "etc" / "hosts").symlink_to(outside)
    openat.write_text(root, "/etc", "hosts", "new\n")
    assert outside.read_text() == "untouched"
    assert not (root / "etc" / "hosts").is_symlink()
    assert openat.read_text(root, "/etc/hosts") == "new\n"
    assert (root / "etc" / "hosts").stat().st_mode & 0o777 == 0o644


def test_a_linked_directory_is_the_roots_own(root: Path, tmp_path: Path) -> None:
    (root / "etc").rmdir()
    (root / "etc").symlink_to(tmp_path)
    with pytest.raises(OSError, match="No such file or directory"):
        openat.write_text(root, "/etc", "hosts", "new\n")
    assert not (tmp_path / "hosts").exists()


def test_nothing_is_left_of_a_write_that_fails(root: Path) -> None:
    (root / "etc" / "hosts").mkdir()
    with pytest.raises(IsADirectoryError):
        openat.write_text(root, "/etc", "hosts", "new\n")
    assert [entry.name for entry in (root / "etc").iterdir()] == ["hosts"]


def test_only_regular_files_are_read(root: Path) -> None:
    os.mkfifo(root / "etc" / "hosts")
    with pytest.raises(OSError, match="not a regular file"):
        openat.read_text(root, "/etc/hosts")
