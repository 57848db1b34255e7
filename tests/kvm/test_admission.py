"""QEMU's user comes to the disks of its guests; nobody else does, and no other directory is opened for it."""

from __future__ import annotations

import pwd
import stat
from pathlib import Path

import pytest

from appliance.config import Settings
from appliance.errors import VolumeError
from appliance.storage.admission import Owner, admit
from appliance.storage.paths import Paths

pytestmark = pytest.mark.kvm


@pytest.fixture
def owner() -> Owner:
    user = pwd.getpwnam("libvirt-qemu")
    return user.pw_uid, user.pw_uid


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(Settings({"path.storage.root": str(tmp_path / "storage")}))
    for folder in (paths.root, paths.images, paths.overlays):
        folder.mkdir(mode=0o700)
    for file in (paths.images / "1-x", paths.overlays / "1-1-overlay.qcow2"):
        file.touch(mode=0o604)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o711)
    return paths


def mode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_gid


def test_the_group_gets_what_it_needs_and_all_others_nothing(paths: Paths, owner: Owner) -> None:
    image, overlay = paths.images / "1-x", paths.overlays / "1-1-overlay.qcow2"
    for _ in range(2):
        admit(paths, owner, reads=[image], writes=[overlay])
        assert mode(image) == (0o640, owner[1])
        assert mode(overlay) == (0o660, owner[1])
        assert {mode(folder) for folder in (paths.root, paths.images, paths.overlays)} == {(0o710, owner[1])}


def test_a_directory_that_is_not_ours_stays_closed_and_is_told(paths: Paths, owner: Owner) -> None:
    paths.root.parent.chmod(0o700)
    with pytest.raises(VolumeError, match="may not pass the directory") as told:
        admit(paths, owner, reads=[], writes=[paths.overlays / "1-1-overlay.qcow2"])
    assert told.value.hint == f"chmod o+x {paths.root.parent}"
    assert mode(paths.root.parent) == (0o700, 0)


def test_root_needs_nothing(paths: Paths) -> None:
    image = paths.images / "1-x"
    admit(paths, (0, 0), reads=[image], writes=[])
    assert mode(image) == (0o604, 0)
