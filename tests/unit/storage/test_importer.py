"""What an archive is, by its first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ImageError
from appliance.storage.room import compression


def plain() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("etc"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("pack", "program"),
    [(bytes, ""), (gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")],
)
def test_every_kind_is_known(pack: Callable[[bytes], bytes], program: str) -> None:
    assert compression(pack(plain())[:512]) == program


def test_zstd_is_known_by_its_magic_number() -> None:
    assert compression(b"\x28\xb5\x2f\xfd rest") == "zstd"


@given(st.binary(max_size=512))
def test_anything_else_is_an_image_error(head: bytes) -> None:
    try:
        assert compression(head) in {"", "gzip", "bzip2", "xz", "zstd"}
    except ImageError as exc:
        assert "not a tar archive" in str(exc)  # noqa: PT017
