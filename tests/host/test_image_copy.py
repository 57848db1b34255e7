"""Copies of images on btrfs: duplicates take next to no room, and exported ones come in as any other."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.model import DiId
from appliance.ops import image_archive
from appliance.storage import shared_file, subvolumes
from appliance.storage.paths import Paths
from appliance.storage.shared_file import Shared
from tests.support.archives import HOSTILE, pack
from tests.support.pool import tiny_root
from tests.support.qa import Installation

pytestmark = pytest.mark.host

BULK = os.urandom(8 << 20).hex()
"""Something that no file system makes smaller."""
MOST = 1 << 20
"""Bytes that a duplicate may take: trees of metadata, and no content."""


@pytest.fixture
def qa(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Installation]:
    """An installation on the pool with two OSFs of containers, and an image of the first."""
    root = pool / f"copy-{uuid.uuid4().hex[:8]}"
    made = Installation(tmp_path, capsys)
    made.write_config(vm__hypervisor="lxc", path__storage__root=str(root))
    try:
        made.ok("admin", "init", "--yes")
        for name in ("desktop", "sales"):
            made.ok("osf", "add", f"name={name}")
        archive = tiny_root(tmp_path / "tiny.tar.gz", programs={"usr/bulk": BULK})
        made.ok("di", "add", f"path={archive}", "osf=desktop", "version=one")
        yield made
    finally:
        for base in (root / "basefs").glob("*"):
            subvolumes.delete(base)
        shutil.rmtree(root)


def free(path: Path) -> int:
    subvolumes.commit(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def test_a_duplicate_takes_no_room_and_outlives_the_first(qa: Installation) -> None:
    paths = Paths(qa.settings)
    before = free(paths.root)
    said = qa.ok("di", "duplicate", "di_id=1", "osf=sales")
    assert "two names" not in said.err
    assert before - free(paths.root) < MOST
    archive, copy = paths.images / "1-tiny.tar.gz", paths.images / "2-tiny.tar.gz"
    assert (archive.stat().st_ino, archive.stat().st_nlink) != (copy.stat().st_ino, 2)
    assert copy.stat().st_mode & 0o777 == 0o400
    qa.ok("di", "del", "-f", "id=1")
    qa.ok("di", "purge", "-f", "id=1")
    base = paths.basefs(DiId(2))
    assert (base / "usr/bulk").read_text() == BULK
    assert (base / "sbin/init").is_symlink()
    with pytest.raises(OSError, match="Read-only"):
        (base / "x").touch()
    assert [path.name for path in paths.all_basefs.iterdir()] == ["2"]
    assert [path.name for path in paths.images.iterdir()] == [copy.name]


def test_an_image_that_is_not_unpacked_any_more_is_not_duplicated(qa: Installation) -> None:
    paths = Paths(qa.settings)
    subvolumes.delete(paths.basefs(DiId(1)))
    said = qa("di", "duplicate", "di_id=1", "osf=sales")
    assert (said.status, "basefs/1 is gone" in said.err) == (1, True)
    assert [path.name for path in paths.images.iterdir()] == ["1-tiny.tar.gz"]
    assert list(paths.all_basefs.iterdir()) == []


def test_where_blocks_cannot_be_shared_the_file_gets_a_second_name(pool: Path) -> None:
    for folder, shared in ((Path("/dev/shm"), Shared.FILE), (pool, Shared.BLOCKS)):
        source = folder / f"share-{uuid.uuid4().hex}"
        copy = source.with_suffix(".copy")
        try:
            source.write_bytes(b"content" * 1000)
            assert shared_file.share(source, copy) is shared
            assert copy.read_bytes() == source.read_bytes()
        finally:
            source.unlink(missing_ok=True)
            copy.unlink(missing_ok=True)


def test_an_exported_image_comes_in_as_any_other(qa: Installation, tmp_path: Path) -> None:
    paths = Paths(qa.settings)
    archive = qa.ok("di", "export", "di_id=1", f"path={tmp_path}", "-o", "json").json["path"]
    qa.ok("di", "import", f"path={archive}", "osf=branch", "make_osf=yes")
    base = paths.basefs(DiId(2))
    assert (base / "usr/bulk").read_text() == BULK
    with pytest.raises(OSError, match="Read-only"):
        (base / "x").touch()
    assert list(paths.staging.iterdir()) == []


def test_a_hostile_image_in_an_honest_archive_is_refused_as_by_itself(
    qa: Installation, tmp_path: Path
) -> None:
    paths = Paths(qa.settings)
    evil = pack(tmp_path / "evil.tar", HOSTILE[0].pack).read_bytes()
    honest = Path(qa.ok("di", "export", "di_id=1", f"path={tmp_path}", "-o", "json").json["path"])
    with honest.open("rb") as stream:
        manifest = image_archive.read(stream).manifest
    wrong = replace(manifest, sha256=hashlib.sha256(evil).hexdigest(), size=len(evil))
    head = image_archive.head(wrong, datetime(2030, 1, 31, tzinfo=UTC))
    (tmp_path / "wrong.tar").write_bytes(head + evil + image_archive.padding(len(evil)))
    said = qa("di", "import", f"path={tmp_path}/wrong.tar", "osf=branch", "make_osf=yes")
    assert (said.status, HOSTILE[0].said in said.err) == (1, True)
    assert sorted(osf["name"] for osf in qa.listed("osf")) == ["desktop", "sales"]
    assert [path.name for path in paths.all_basefs.iterdir()] == ["1"]
    assert [path.name for path in paths.images.iterdir()] == ["1-tiny.tar.gz"]
    assert list(paths.staging.iterdir()) == []
