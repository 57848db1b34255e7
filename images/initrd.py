"""The first root of a virtual machine: busybox and the few kernel modules without which there is no disk.

It is made here because the distribution's own takes seconds to unpack and to run where nothing speeds up the
machine. Everything is computed from bytes: the same modules give the same archive.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

MODULES = (
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",  # no program waits for randomness
    "evdev",  # the power button reaches busybox's acpid
    "button",
)
SEEK_TENTHS_S = 300

INIT = """\
#!/bin/busybox sh
# Loads what reaches the disk, mounts it, and makes room for the real init. root= and init= are the kernel's.
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
root=/dev/vda1 init=/sbin/init
read -r line </proc/cmdline
for word in $line; do
    case $word in
    root=*) root=${word#root=} ;;
    init=*) init=${word#init=} ;;
    esac
done
while read -r module; do
    /bin/busybox insmod "/modules/$module.ko"
done </modules/order
tries=0
until [ -b "$root" ]; do
    if [ $((tries += 1)) -gt @SEEK@ ]; then
        echo "initrd: there is no disk $root: the image needs a virtio disk" >/dev/console
        exec /bin/busybox poweroff -f
    fi
    /bin/busybox usleep 100000
done
/bin/busybox mount -t ext4 -o discard "$root" /root || {
    echo "initrd: $root cannot be mounted" >/dev/console
    exec /bin/busybox poweroff -f
}
/bin/busybox mount --move /dev /root/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root "$init" </dev/console >/dev/console 2>&1
""".replace("@SEEK@", str(SEEK_TENTHS_S))


def load_order(dependencies: str, builtin: str, wanted: Sequence[str] = MODULES) -> list[str]:
    """The paths of `wanted` modules in an order in which insmod takes them, each after those that it needs.

    The texts are the kernel's `modules.dep` and `modules.builtin`. Raises KeyError on an unknown module.
    """
    needs = {}
    for line in dependencies.splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    places = {module_name(path): path for path in needs}
    there = {module_name(path) for path in builtin.split()}
    order: dict[str, None] = {}
    for name in wanted:
        if name not in there:
            path = places[name]
            order |= dict.fromkeys([*reversed(needs[path]), path])  # depmod lists the innermost need last
    return list(order)


def module_name(path: str) -> str:
    """The kernel's name of a module file: `kernel/net/core/virtio-x.ko` is `virtio_x`."""
    return Path(path).name.partition(".")[0].replace("-", "_")


def archive(modules: Mapping[str, bytes], busybox: bytes) -> bytes:
    """The initrd: an uncompressed cpio archive. `modules` are names and contents, in the order of loading."""
    order = "".join(f"{name}\n" for name in modules)
    files: list[tuple[str, int, bytes]] = [
        *((name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "modules", "proc", "root")),
        ("bin/busybox", stat.S_IFREG | 0o755, busybox),
        ("init", stat.S_IFREG | 0o755, INIT.encode()),
        ("modules/order", stat.S_IFREG | 0o644, order.encode()),
        *((f"modules/{name}.ko", stat.S_IFREG | 0o644, data) for name, data in modules.items()),
    ]
    entries = [
        _entry("dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1), number=len(files) + 1),
        *(_entry(name, mode, data, number=index) for index, (name, mode, data) in enumerate(files, 1)),
    ]
    return b"".join([*entries[1:], entries[0], _entry("TRAILER!!!", 0, b"", number=0)])


def _entry(name: str, mode: int, data: bytes, *, number: int, device: tuple[int, int] = (0, 0)) -> bytes:
    """One entry of the `newc` format: thirteen fields of eight hexadecimal digits, name, content."""
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
