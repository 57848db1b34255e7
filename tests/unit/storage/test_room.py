"""What archives say of their own size."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import PoolFullError
from appliance.storage import room
from tests.support import archives

CONTENT = 3 << 20
# zstd of an empty-looking file of 3 MiB, as `zstd -1` and `zstd -1 < FILE` begin it.
ZSTD_KNOWN = b"\x28\xb5\x2f\xfd\xa4" + CONTENT.to_bytes(4, "little")
ZSTD_STREAMED = b"\x28\xb5\x2f\xfd\x04\x50" + bytes(10)


def tar(path: Path) -> bytes:
    archives.pack(path, archives.one(archives.member("file")))
    return (path.read_bytes() + os.urandom(CONTENT // 3)).ljust(CONTENT, b"\0")


@pytest.mark.parametrize("packed", [gzip.compress, lzma.compress, bytes], ids=["gzip", "xz", "plain"])
def test_most_kinds_tell_their_size(tmp_path: Path, packed: Callable[[bytes], bytes]) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(packed(tar(tmp_path / "plain.tar")))
    assert room.unpacked(archive).size == CONTENT


@pytest.mark.parametrize("content", [bz2.compress(b"x" * CONTENT), ZSTD_STREAMED])
def test_what_is_not_told_is_assumed_and_said_so(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    estimate = room.unpacked(archive)
    assert estimate.size == 3 * len(content)
    assert "assumed" in estimate.source


def test_zstd_tells_its_size_unless_it_was_streamed(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(ZSTD_KNOWN + bytes(CONTENT // 3))
    assert room.unpacked(archive).size == CONTENT


def test_what_no_archive_holds_is_not_believed(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(b"\x1f\x8b" + bytes(1000) + b"\xff\xff\xff\x7f")
    assert room.unpacked(archive).size == 3 * archive.stat().st_size


@pytest.mark.parametrize("length", range(1, 40))
def test_cut_archives_are_assumed_something_about(tmp_path: Path, length: int) -> None:
    archive = tmp_path / "archive"
    for whole in (lzma.compress(b"x"), gzip.compress(b"x"), ZSTD_KNOWN):
        archive.write_bytes(whole[: max(length, 6)])
        assert room.unpacked(archive).size >= 0


def test_a_refusal_has_its_numbers(tmp_path: Path) -> None:
    """More than any disk of a test has."""
    archive = tmp_path / "archive"
    with archive.open("wb") as stream:
        stream.write(b"\x1f\x8b")
        stream.truncate(1 << 43)
    with pytest.raises(PoolFullError, match=r"big does not fit: its copy needs 8388608 MiB, .* has \d+ MiB"):
        room.check(archive, "big", images=tmp_path, bases=tmp_path)
