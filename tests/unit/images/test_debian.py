"""What goes into the image: where packages come from; the same files wherever it is built."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from images.debian import (
    BuildError,
    Root,
    archive_lines,
    digest,
    mmdebstrap_command,
    overlay_tar,
    release_epoch,
)

LISTS = "/var/lib/apt/lists"
TARGETS = f"""\
Debian|http://archive.example/debian/|bookworm|main|{LISTS}/archive.example_debian_dists_bookworm_main_binary-amd64_Packages
Debian|http://archive.example/debian/|bookworm|contrib|{LISTS}/archive.example_debian_dists_bookworm_contrib_binary-amd64_Packages
Debian|http://archive.example/debian-security/|bookworm-security|main|{LISTS}/x
Someone|https://packages.example|stable|main|{LISTS}/y
"""


def test_only_debian_s_own_archive_is_used() -> None:
    keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert archive_lines(TARGETS) == [
        f"deb {keyring} http://archive.example/debian/ bookworm main contrib",
        f"deb {keyring} http://archive.example/debian-security/ bookworm-security main",
    ]


def test_the_image_is_as_old_as_the_newest_release_file(tmp_path: Path) -> None:
    for suite, day in (("bookworm", 3), ("bookworm-updates", 5)):
        release = tmp_path / f"archive_dists_{suite}_InRelease"
        release.write_text(f"Origin: Debian\nDate: Sat, {day:02} Jan 2026 10:00:00 UTC\n")
    targets = "\n".join(
        f"Debian|http://archive|{suite}|main|{tmp_path}/archive_dists_{suite}_main_Packages"
        for suite in ("bookworm", "bookworm-updates")
    )
    assert release_epoch(targets) == int(datetime(2026, 1, 5, 10, tzinfo=UTC).timestamp())


def test_without_release_files_there_is_a_remedy() -> None:
    with pytest.raises(BuildError, match="apt-get update"):
        release_epoch(TARGETS.replace(LISTS, "/nowhere"))


def lay(directory: Path, mode: int) -> Path:
    script = directory / "usr/lib/qvd/boot"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700 | mode)
    (directory / "etc").mkdir(mode=0o700)
    (directory / "etc/inittab").write_text("lines\n")
    (directory / "etc/inittab").chmod(0o600 | mode & 0o066)
    return directory


def test_the_overlay_does_not_depend_on_umask_or_age(tmp_path: Path) -> None:
    extra = {"usr/lib/qvd/qvd-vma.pyz": b"zip"}
    strict = overlay_tar([lay(tmp_path / "a", 0)], extra, epoch=1000)
    lax = overlay_tar([lay(tmp_path / "b", 0o077)], extra, epoch=1000)
    assert strict == lax


def test_the_overlay_is_roots(tmp_path: Path) -> None:
    packed = overlay_tar([lay(tmp_path / "a", 0)], {"usr/lib/qvd/qvd-vma.pyz": b"zip"}, epoch=1000)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        entries = {entry.name: entry for entry in tar.getmembers()}
    assert list(entries) == sorted(entries)
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries.values()} == {(0, 0, 1000)}
    assert {name: entry.mode for name, entry in entries.items()} == {
        "etc": 0o755,
        "etc/inittab": 0o644,
        "usr": 0o755,
        "usr/lib": 0o755,
        "usr/lib/qvd": 0o755,
        "usr/lib/qvd/boot": 0o755,
        "usr/lib/qvd/qvd-vma.pyz": 0o644,
    }


def test_inputs_cannot_be_shifted_into_one_another() -> None:
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])
    assert digest([b"ab", b"c"]) == digest([b"ab", b"c"])


def test_a_later_overlay_wins(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "motd").write_text(name)
    packed = overlay_tar([tmp_path / "a", tmp_path / "b"], {}, epoch=0)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        file = tar.extractfile("motd")
        assert file is not None
        assert file.read() == b"b"


def test_the_command_makes_what_the_recipe_says(tmp_path: Path) -> None:
    root = Root(packages=["a", "b"], overlays=(), extra={}, finish="true;", form="directory")
    command = mmdebstrap_command(root, tmp_path / "list", tmp_path / "o v.tar", tmp_path / "tree")
    assert "--format=directory" in command
    assert "--include=a,b" in command
    assert f"--customize-hook=tar-in '{tmp_path}/o v.tar' /" in command
    assert any(word.startswith("--customize-hook=true; ") for word in command)
