"""The order of modules, and an archive that the kernel's unpacker reads."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator

import pytest

from images.initrd import INIT, archive, load_order, module_name

DEPENDENCIES = """\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/net/core/fail-over.ko:
"""


def test_a_module_comes_after_those_that_it_needs_and_once() -> None:
    assert [module_name(path) for path in load_order(DEPENDENCIES, "", ["virtio_ring", "virtio_blk"])] == [
        "virtio",
        "virtio_ring",
        "virtio_blk",
    ]


def test_names_are_the_kernel_s() -> None:
    assert load_order(DEPENDENCIES, "", ["fail_over"]) == ["kernel/net/core/fail-over.ko"]


def test_what_is_built_in_is_not_loaded() -> None:
    assert load_order(DEPENDENCIES, "kernel/x/button.ko\n", ["button"]) == []


def test_an_unknown_module_is_named() -> None:
    with pytest.raises(KeyError, match="button"):
        load_order(DEPENDENCIES, "", ["button"])


def entries(packed: bytes) -> Iterator[tuple[str, int, bytes, tuple[int, int]]]:
    """Name, mode, content and device number of each entry of a cpio archive."""
    file = io.BytesIO(packed)
    while True:
        head = file.read(110)
        assert head[:6] == b"070701"
        fields = [int(head[at : at + 8], 16) for at in range(6, 110, 8)]
        name = file.read(fields[11])
        file.seek(-file.tell() % 4, io.SEEK_CUR)
        data = file.read(fields[6])
        file.seek(-file.tell() % 4, io.SEEK_CUR)
        assert name.endswith(b"\0")
        yield name[:-1].decode(), fields[1], data, (fields[9], fields[10])
        if name == b"TRAILER!!!\0":
            assert not file.read()
            return


def test_the_archive_holds_what_init_needs() -> None:
    modules = {"virtio": b"one", "virtio_ring": b"three"}
    found = {name: (mode, data, device) for name, mode, data, device in entries(archive(modules, b"busybox"))}
    assert found["init"] == (stat.S_IFREG | 0o755, INIT.encode(), (0, 0))
    assert found["bin/busybox"] == (stat.S_IFREG | 0o755, b"busybox", (0, 0))
    assert found["modules/order"][1] == b"virtio\nvirtio_ring\n"
    assert found["modules/virtio_ring.ko"][1] == b"three"
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert stat.S_ISDIR(found["root"][0])


def test_directories_come_before_what_is_in_them() -> None:
    names = [name for name, *_ in entries(archive({"virtio": b""}, b""))]
    assert names.index("dev") < names.index("dev/console")
    assert names.index("modules") < names.index("modules/order")


def test_the_same_input_gives_the_same_bytes() -> None:
    assert archive({"a": b"x"}, b"y") == archive({"a": b"x"}, b"y")
