"""What an exported image may say and hold; everything else is refused in a line, whoever made it."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import ImageError
from appliance.model import AgeingPolicy, BackendKind
from appliance.ops import image_archive, image_manifest
from appliance.ops.image_archive import END, IMAGE, MANIFEST, padding
from appliance.ops.image_manifest import Manifest, ageing_of, decoded, encoded

NOW = datetime(2030, 1, 31, 18, 0, tzinfo=UTC)
CONTENT = b"what an image holds"
HONEST = Manifest(
    kind=BackendKind.LXC,
    file="desktop.tar.zst",
    sha256="0" * 64,
    size=len(CONTENT),
    version="2030-01-31-000",
    notes="New browser\nand fonts ✓",
    osf="office",
    policy={"memory_mib": 1024, "cpus": 0.5, "use_overlay": True, "user_storage_mib": None},
    ageing={"expire_idle": True, "expire_warn_s": 0},
)


def archive(manifest: Manifest = HONEST, content: bytes = CONTENT) -> bytes:
    return image_archive.head(manifest, NOW) + content + padding(len(content)) + END


def read(data: bytes, folder: Path) -> image_archive.Contents:
    file = folder / "archive"
    file.write_bytes(data)
    with file.open("rb") as stream:
        return image_archive.read(stream)


# --- the manifest ---------------------------------------------------------------------------------


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert decoded(encoded(HONEST)) == HONEST
    assert ageing_of(HONEST) == AgeingPolicy(expire_idle=True, expire_warn_s=0)


def said(**changes: Any) -> bytes:
    """The honest manifest, changed."""
    values = json.loads(encoded(HONEST))
    osf = changes.pop("osf", {})
    values |= changes
    values["osf"] = values["osf"] | osf if isinstance(osf, dict) else osf
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"9" * 5000, "no JSON"),
        (said(size=float("nan")), "no JSON"),
        (b"[]", "another format"),
        (said(format="zip"), "another format"),
        (said(format_version=2), "upgrade the appliance"),
        (said(format_version=True, more=1), "something unknown"),
        (said(kind="xen"), "kind is 'xen'"),
        (said(kind=[]), r"kind is \[\]"),
        (said(file="../../etc/passwd"), "file is"),
        (said(file="a/b"), "file is"),
        (said(file=".."), "file is"),
        (said(file="x" * 201), "file is"),
        (said(file="a\nb"), "file is"),
        (said(file="\ud800"), "file is"),
        (said(file=7), "file is 7"),
        (said(sha256="Z" * 64), "sha256 is"),
        (said(size=-1), "size is -1"),
        (said(size=True), "size is True"),
        (said(size=1.5), "size is 1.5"),
        (said(size=1 << 80), "size is"),
        (said(version="a,b"), "version is"),
        (said(version=""), "version is"),
        (said(notes="\x1b[2J"), "cannot be shown"),
        (said(notes="x" * 5000), "too many for notes"),
        (said(notes=[]), "notes is"),
        (said(osf=None), "osf is None"),
        (said(osf={"name": "x" * 65}), "osf.name is"),
        (said(osf={"memory_mib": 0}), "osf.memory_mib is 0"),
        (said(osf={"cpus": -1}), "osf.cpus is -1"),
        (said(osf={"use_overlay": 1}), "osf.use_overlay is 1"),
        (said(osf={"io_weight": 1001}), "osf.io_weight is 1001"),
        (said(osf={"postpone_s": 1 << 40}), "osf.postpone_s is"),
        (said(osf={"backend": "kvm"}), "something unknown: 'backend'"),
    ],
    ids=range(36),
)
def test_a_manifest_that_says_what_cannot_be_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decoded(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ),
    st.sampled_from(["format_version", "kind", "file", "sha256", "size", "version", "notes", "osf"]),
)
def test_no_value_ends_in_another_error(value: Any, key: str) -> None:
    with contextlib.suppress(ImageError):
        assert image_manifest.decoded(said(**{key: value})).size == len(CONTENT) or key == "size"


# --- the archive ----------------------------------------------------------------------------------


def test_an_archive_is_a_plain_tar_that_tells_where_its_image_is(tmp_path: Path) -> None:
    data = archive()
    contents = read(data, tmp_path)
    assert contents.manifest == HONEST
    assert data[contents.offset :].startswith(CONTENT)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [MANIFEST, IMAGE]
        image = tar.extractfile(IMAGE)
        assert image is not None
        assert image.read() == CONTENT


def packed(*members: tuple[str, bytes, bytes]) -> bytes:
    """A tar archive of names, kinds and contents."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = "/etc/shadow"
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


TEXT = encoded(HONEST)
FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: b"", "cut"),
        (lambda: b"\x1f\x8b" + bytes(600), "no archive of this kind"),
        (lambda: bytes(2048), "no archive of this kind"),
        (lambda: packed(("../../etc/cron.d/x", FILE, TEXT)), "something else"),
        (lambda: packed((MANIFEST, LINK, b"")), "something else"),
        (lambda: packed((MANIFEST, HARD, b"")), "something else"),
        (lambda: packed((MANIFEST, FILE, b"")), "0 bytes"),
        (lambda: packed((MANIFEST, FILE, b" " * (65 << 10))), "66560 bytes"),
        (lambda: packed((MANIFEST, FILE, TEXT)), "no archive of this kind"),
        (lambda: packed((MANIFEST, FILE, TEXT), (IMAGE, LINK, b"")), "something else"),
        (lambda: packed((MANIFEST, FILE, TEXT), ("/etc/passwd", FILE, CONTENT)), "something else"),
        (lambda: packed((MANIFEST, FILE, TEXT), (IMAGE, FILE, CONTENT * 2)), "38 bytes, and 19"),
        (
            lambda: packed((MANIFEST, FILE, TEXT), (IMAGE, FILE, CONTENT), ("more", FILE, b"x")),
            "more than an image",
        ),
        (lambda: archive() + bytes(1 << 20), "more than an image"),
        (lambda: archive(replace(HONEST, size=1 << 50)), "bytes are missing"),
        (lambda: archive()[: -len(END) - 512], "512 bytes are missing"),
    ],
    ids=range(16),
)
def test_a_hostile_archive_is_refused(made: Callable[[], bytes], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        read(made(), tmp_path)
    assert str(caught.value).isprintable()


def test_what_another_tar_has_packed_is_read(tmp_path: Path) -> None:
    assert read(packed((MANIFEST, FILE, TEXT), (IMAGE, FILE, CONTENT)), tmp_path).manifest == HONEST


@given(place=st.integers(0, len(archive()) - 1), byte=st.integers(0, 255), length=st.integers(0, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_spoilt_archive_ends_in_another_error(place: int, byte: int, length: int, tmp_path: Path) -> None:
    data = bytearray(archive())
    data[place : place + length] = bytes([byte]) * length
    try:
        contents = read(bytes(data), tmp_path)
    except ImageError:
        return
    assert contents.manifest.size == len(CONTENT)
