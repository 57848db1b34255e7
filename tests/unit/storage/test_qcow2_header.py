"""Disk images by their first bytes alone."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.errors import ImageError
from appliance.storage.qcow2_header import (
    BOOT_BYTES,
    ESP,
    HEAD,
    DiskFormat,
    Verdict,
    check_boot,
    format_of,
    judge,
    virtual_size,
)

LARGEST = 64 << 30
GIB = 1 << 30


def header(*, version: int = 3, extensions: bytes = b"", **fields: int) -> bytes:
    """A qcow2 header, sound but for `fields`."""
    values = {
        "backing_at": 0,
        "backing_length": 0,
        "cluster_bits": 16,
        "size": 10 * GIB,
        "encryption": 0,
        "features": 0,
        "length": 104,
    } | fields
    head = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        values["backing_at"],
        values["backing_length"],
        values["cluster_bits"],
        values["size"],
        values["encryption"],
        *(20, 3 << 16, 1 << 16, 1, 0, 0),
    )
    if version >= 3:
        head += struct.pack(">QQQII", values["features"], 0, 0, 4, values["length"])
    return (head + extensions).ljust(1 << 16, b"\0")


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)


def judged(head: bytes, *, file_size: int = GIB) -> Verdict:
    return judge(head, file_size=file_size, largest=LARGEST)


@pytest.mark.parametrize("version", [2, 3])
def test_a_whole_image_is_taken(version: int) -> None:
    names = extension(0x6803F857, b"dirty bit".ljust(48, b"\0"))
    assert judged(header(version=version, extensions=names)) == Verdict(DiskFormat.QCOW2, 10 * GIB)
    assert virtual_size(header(version=version)) == 10 * GIB


def test_known_features_are_taken() -> None:
    assert judged(header(features=8 | 16)).format is DiskFormat.QCOW2


def test_a_raw_disk_is_as_large_as_its_file() -> None:
    assert judged(bytes(HEAD), file_size=3 * GIB) == Verdict(DiskFormat.RAW, 3 * GIB)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (header(backing_at=512, backing_length=11), "has a backing file"),
        (header(backing_at=512), "has a backing file"),
        (header(backing_length=1), "has a backing file"),
        (header(version=2, backing_at=512, backing_length=11), "has a backing file"),
        (header(encryption=1), "encrypted"),
        (header(features=4), "external file"),
        (header(features=1), "not closed properly"),
        (header(features=2), "marked as corrupt"),
        (header(features=32), "not known here: 0x20"),
        (header(features=1 << 63 | 8), "not known here: 0x8000000000000000"),
        (header(version=1), "of version 1"),
        (header(version=4), "of version 4"),
        (header(cluster_bits=8), "no clusters"),
        (header(cluster_bits=22), "no clusters"),
        (header(size=0), "is empty"),
        (header(size=LARGEST + 1), "may have 64"),
        (header(size=(1 << 64) - 1), "may have 64"),
        (header(length=100), "no such length"),
        (header(length=108), "no such length"),
        (header(length=1 << 20), "no such length"),
        (header(extensions=extension(0xE2792ACA, b"raw")), "format of a backing file"),
        (header(extensions=extension(0x44415441, b"/etc/shadow")), "external data file"),
        (header(extensions=extension(0x0537BE77, bytes(16))), "encrypted"),
        (header(extensions=extension(7, b"x") + extension(0x44415441, b"/etc/shadow")), "external data file"),
        (header(extensions=struct.pack(">II", 7, 1 << 20)), "has no end"),
        (header()[:71], "cut off within"),
        (header()[:103], "cut off within"),
        (b"QFI\xfb", "cut off"),
        (b"", "is empty"),
    ],
)
def test_what_is_refused_is_refused_for_one_clear_reason(head: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        judged(head, file_size=max(len(head), 4 << 16) if head else 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file_size", [1 << 16, 2 << 16, (3 << 16) + 159])
def test_a_file_that_ends_before_its_tables_is_cut_off(file_size: int) -> None:
    with pytest.raises(ImageError, match="is cut off: its tables"):
        judged(header(), file_size=file_size)
    judged(header(), file_size=(3 << 16) + 160)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"KDMV", "VMDK"),
        (b"# Disk DescriptorFile\nversion=1", "VMDK"),
        (b"conectix", "VHD"),
        (b"vhdxfile", "VHDX"),
        (bytes(0x40) + b"\x7f\x10\xda\xbe", "VDI"),
        (b"LUKS\xba\xbe", "encrypted"),
        (b"\x1f\x8b\x08", "gzip"),
        (bytes(257) + b"ustar", "tar archive"),
    ],
)
def test_other_formats_are_named(head: bytes, kind: str) -> None:
    with pytest.raises(ImageError, match=kind):
        format_of(head.ljust(HEAD, b"\0"))


def disk(*, code: bytes = b"", signed: bool = True, gpt: bytes = b"") -> bytes:
    boot = code.ljust(510, b"\0") + (b"\x55\xaa" if signed else b"\0\0")
    return (boot + gpt).ljust(BOOT_BYTES, b"\0")


def gpt(kind: bytes, *, place: int = 3, sector: int = 2, number: int = 128, length: int = 128) -> bytes:
    head = b"EFI PART".ljust(72, b"\0") + struct.pack("<QII", sector, number, length)
    entries = bytearray(max(0, sector - 2) * 512 + 32 * 512)
    at = (sector - 2) * 512 + place * 128
    entries[at : at + 16] = kind
    return head.ljust(512, b"\0") + bytes(entries)


@pytest.mark.parametrize("good", [disk(code=b"\xeb\x63"), disk(code=b"\xeb\x63", gpt=gpt(ESP))])
def test_a_disk_with_boot_code_can_boot(good: bytes) -> None:
    check_boot(good)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (disk(code=b"\xeb\x63", signed=False), "no boot record"),
        (b"", "no boot record"),
        (disk(), "holds no code"),
        (disk(gpt=gpt(ESP)), "by UEFI only"),
        (disk(gpt=gpt(ESP, place=0)), "by UEFI only"),
        (disk(gpt=gpt(bytes(16))), "holds no code"),
        (disk(gpt=gpt(ESP, length=0)), "holds no code"),
        (disk(gpt=gpt(ESP, number=2)), "holds no code"),
        (disk(gpt=gpt(ESP))[:600], "holds no code"),
    ],
)
def test_a_disk_that_cannot_boot_is_told(bad: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=f"cannot boot: .*{reason}"):
        check_boot(bad)


@given(st.binary(max_size=400), st.integers(0, 1 << 64))
@example(b"QFI\xfb", 1)
def test_any_garbage_gets_a_verdict_or_is_an_image_error(head: bytes, size: int) -> None:
    for begun in (head, b"QFI\xfb" + head, b"QFI\xfb\0\0\0\3" + bytes(16) + head, header()[:108] + head):
        with suppress(ImageError):
            assert 0 < judged(begun, file_size=size).size <= LARGEST


@given(st.dictionaries(st.integers(4, 120), st.integers(0, 255), min_size=1, max_size=12))
def test_a_sound_header_with_some_bytes_changed_never_names_another_file(changed: dict[int, int]) -> None:
    head = bytearray(header())
    for place, value in changed.items():
        head[place] = value
    try:
        judged(bytes(head))
    except ImageError:
        return
    assert head[8:20] == bytes(12)
    assert head[4:8] == b"\0\0\0\2" or not head[79] & 4


@given(st.binary(max_size=300), st.binary(max_size=200))
def test_any_beginning_of_a_disk_can_boot_or_cannot(code: bytes, table: bytes) -> None:
    for begun in (code + table, disk(gpt=b"EFI PART" + table), disk(gpt=gpt(ESP)[:72] + table)):
        with suppress(ImageError):
            check_boot(begun)
