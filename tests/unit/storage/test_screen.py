"""What an archive may hold, told while it streams by."""

from __future__ import annotations

import io
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ImageError
from appliance.storage.screen import LONGEST_HEADER, Bounds, Screen
from tests.support.archives import FILES, HOSTILE, SIZE, Hostile, member, sign

BOUNDS = Bounds(size=SIZE, longest=SIZE, members=FILES)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=30).filter(
    lambda name: name not in (".", "..")
)


def archive(packing: Hostile) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        packing.pack(tar)
    return buffer.getvalue()


def verdict(data: bytes, step: int) -> str:
    screen = Screen(BOUNDS)
    try:
        for place in range(0, len(data), step):
            screen.feed(data[place : place + step])
    except ImageError as exc:
        return str(exc)
    return f"{screen.members} members"


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_every_hostile_archive_is_named_in_one_line(hostile: Hostile) -> None:
    said = verdict(archive(hostile), 1 << 20)
    assert hostile.said in said
    assert said.isprintable()
    assert len(said) < 300


@pytest.mark.parametrize("step", [1, 7, 511, 512, 513, 10_240])
@pytest.mark.parametrize("hostile", [each for each in HOSTILE if each.name != "zeros"], ids=lambda h: h.name)
def test_how_it_comes_in_pieces_changes_nothing(hostile: Hostile, step: int) -> None:
    data = archive(hostile)[: 8 * LONGEST_HEADER if step > 100 else 1 << 18]
    assert verdict(data, step) == verdict(data, len(data) or 1)


@given(
    names=st.lists(NAMES, min_size=1, max_size=20, unique=True),
    deep=st.integers(1, 30),
    size=st.integers(0, 3000),
    how=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_honest_archives_pass_and_every_member_is_counted(
    names: list[str], deep: int, size: int, how: int
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=how) as tar:
        for name in names:
            info = member("/".join([name] * deep))
            info.size = size
            tar.addfile(info, io.BytesIO(b"\xff" * size))
        tar.addfile(member("last", tarfile.SYMTYPE, link="/" + "away/" * 50))
    assert verdict(buffer.getvalue(), 4096) == f"{len(names) + 1} members"


@given(st.binary(max_size=4096), st.integers(1, 600))
def test_garbage_is_refused_or_passes_but_never_fails_otherwise(data: bytes, step: int) -> None:
    verdict(data, step)


@given(st.data())
def test_a_damaged_archive_is_refused_or_passes_but_never_fails_otherwise(data: st.DataObject) -> None:
    good = bytearray(archive(data.draw(st.sampled_from([h for h in HOSTILE if h.name != "zeros"]))))
    for place in data.draw(st.lists(st.integers(0, min(len(good), 3000) - 1), max_size=8)):
        good[place] = data.draw(st.integers(0, 255))
    verdict(bytes(good), 1000)


def test_sparse_files_keep_the_place() -> None:
    """GNU's old format has blocks of its own between header and content."""
    header = bytearray(member("sparse", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"%011o\0" % 700
    header[482] = 1
    sign(header)
    more, last = bytearray(512), bytearray(512)
    more[504] = 1
    screen = Screen(BOUNDS)
    screen.feed(bytes(header) + bytes(more) + bytes(last) + b"\xff" * 1024)
    screen.feed(member("next").tobuf())
    assert screen.members == 2


def test_devices_below_dev_are_counted() -> None:
    screen = Screen(BOUNDS)
    for name in ("./dev/null", "dev/tty"):
        screen.feed(member(name, tarfile.CHRTYPE).tobuf())
    assert screen.devices == 2


@pytest.mark.parametrize("size", [b"-0000000001\0", b"0o000000007\0", b"00000_00001\0", b"99999999999\0"])
def test_a_size_that_is_no_octal_number_is_damage(size: bytes) -> None:
    block = bytearray(member("x").tobuf())
    block[124:136] = size
    sign(block)
    assert "size is no number" in verdict(bytes(block), 512)


def test_sums_are_reckoned_as_new_and_old_tars_do() -> None:
    block = bytearray(member("\xe4" * 9).tobuf(tarfile.GNU_FORMAT, "utf-8"))
    signed = sum(byte - 256 * (byte > 127) for byte in (*block[:148], *b" " * 8, *block[156:]))
    assert verdict(bytes(block), 512) == "1 members"
    block[148:156] = b"%06o\0 " % signed
    assert verdict(bytes(block), 512) == "1 members"


@given(st.data())
def test_tar_sees_the_members_that_we_see(data: st.DataObject) -> None:
    """Headers of every kind with contents and extended headers at random: all seen alike, or refused."""
    blocks = [data.draw(HEADERS) for _ in range(data.draw(st.integers(1, 8)))]
    packed = b"".join(blocks) + bytes(1024)
    screen = Screen(Bounds(size=SIZE, longest=SIZE, members=FILES))
    try:
        screen.feed(packed)
    except ImageError:
        return
    done = subprocess.run(["tar", "-tf", "-"], input=packed, capture_output=True, check=False)
    assert len(done.stdout.splitlines()) == screen.members


def _header(kind: bytes, size: int, said: bytes) -> bytes:
    info = member("pax" if kind in b"xg" else "x", kind, link="y")
    info.size = len(said) if kind in b"xg" else size
    return info.tobuf(tarfile.GNU_FORMAT) + (said.ljust(512, b"\0") if kind in b"xg" else b"")


HEADERS = st.builds(
    _header,
    st.sampled_from([b"0", b"1", b"2", b"5", b"6", b"x", b"g"]),
    st.sampled_from([0, 1, 512, 600]),
    st.sampled_from(
        [b"10 size=0\n", b"12 size=512\n", b"10 path=a\n", b"13 comment=x\n", b"14 linkpath=y\n"]
    ),
)
