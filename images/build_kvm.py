#!/usr/bin/python3
"""Build the small KVM desktop image: one command, one bootable qcow2 disk.

The image is the desktop of `build_lxc` with a kernel of its own, systemd as init and a serial console. Root
is needed for owners and device nodes; no loop device, network block device or mount is, so nothing of that
kind can be left behind.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from images import boot_disk, debian, initrd

PACKAGES = (
    *debian.DESKTOP,
    "e2fsprogs",  # the home disk's file system, and the root's growth
    "fdisk",  # sfdisk: the same for partitions
    "kmod",
    "linux-image-cloud-amd64",
    "mount",
    "systemd-sysv",
)
DEFAULT_SIZE_MIB = 4096
GRUB = Path("/usr/lib/grub") / boot_disk.GRUB_FORMAT
NAMES = uuid.UUID("0f3a6c1e-7f0c-4f5e-9f53-2d7b6a3c9e11")

ENABLED = {
    "qvd-vma.service": "sysinit.target",
    "qvd-network.service": "sysinit.target",
    "qvd-power.service": "multi-user.target",
    "qvd-grow-root.service": "multi-user.target",
    "serial-getty@.service": "getty.target",
}
INSTANCES = {"serial-getty@.service": "serial-getty@ttyS0.service"}
PACKAGES_OF_UNITS = ("systemd", "udev", "e2fsprogs", "util-linux", "apt", "dpkg")
KEPT_UNITS = (
    *("basic.target", "emergency.*", "final.target", "getty.target", "getty-pre.target", "graphical.target"),
    *("halt.target", "local-fs*.target", "multi-user.target", "network*.target", "nss-*.target"),
    *("paths.target", "poweroff.target", "reboot.target", "remote-fs*.target", "rescue.*", "rpcbind.target"),
    *("shutdown.target", "slices.target", "sockets.target", "swap.target", "sysinit.target"),
    *("systemd-halt.service", "systemd-journald*", "systemd-poweroff.service", "systemd-reboot.service"),
    *("systemd-sysctl.service", "systemd-tmpfiles-setup.service", "time-*.target", "timers.target"),
    *("umount.target", "user.slice"),
)
"""Of the units of those packages, the rest goes: init reads all of them, which takes seconds without KVM.

What goes would find devices (the initrd has loaded the drivers, the kernel makes the nodes), keep a history
of a root that is thrown away, tend it at night, or ask for passwords of disks.
"""
SOCKET_ACTIVATED = "systemd-journald.service"
"""Starts with the first message, so not before the agent."""
GENERATORS = (
    *("cryptsetup", "debug", "fstab", "getty", "gpt-auto", "hibernate-resume", "integritysetup"),
    *("rc-local", "run", "system-update", "sysv", "veritysetup"),
)
"""Programs of systemd's that would run before the first unit; what they would find is known beforehand."""


def finish() -> str:
    """The shell commands that enable units in the root `$1`, and drop what would only cost time at boot."""
    units, generators = '"$1/etc/systemd/system', '"$1/etc/systemd/system-generators'
    wants = sorted({*ENABLED.values(), "sysinit.target"})
    kept = "|".join(f"/lib/systemd/system/{name}|/lib/systemd/system/{name}.wants/*" for name in KEPT_UNITS)
    return " ".join(
        [
            f'chroot "$1" dpkg-query -L {" ".join(PACKAGES_OF_UNITS)} | grep "^/lib/systemd/system/." |',
            f"while read -r unit; do case $unit in {kept}) ;;",
            '*) [ -d "$1$unit" ] || rm -f "$1$unit";; esac; done;',
            *(f'mkdir -p {units}/{target}.wants";' for target in wants),
            f'mkdir -p {generators}";',
            *(
                f'ln -sf ../{unit} {units}/{target}.wants/{INSTANCES.get(unit, unit)}";'
                for unit, target in ENABLED.items()
            ),
            f'ln -sf /dev/null {units}/sysinit.target.wants/{SOCKET_ACTIVATED}";',
            *(f'ln -sf /dev/null {generators}/systemd-{name}-generator";' for name in GENERATORS),
            'ln -sf /lib/systemd/system/multi-user.target "$1/etc/systemd/system/default.target";',
            'rm -f "$1"/boot/System.map-* "$1/vmlinuz" "$1/vmlinuz.old" "$1"/boot/initrd.img-*;',
        ]
    )


def pack(tree: Path, epoch: int, size_mib: int) -> Path:
    """Make the disk from the root in `tree`; all that this needs lies beside it."""
    work = tree.parent
    kernel = add_initrd(tree)
    clamp(tree, epoch)
    raw, made = work / "disk.raw", work / "disk.qcow2"
    size = size_mib * 1024 * 1024
    lay_file_system(tree, raw, size, epoch)
    core = work / "core.img"
    config = work / "grub.cfg"
    config.write_text(boot_disk.grub_config(f"/boot/{kernel}", "/boot/initrd"))
    debian.run(
        [
            *("grub-mkimage", "-O", boot_disk.GRUB_FORMAT, "-d", str(GRUB), "-p", "/boot/grub"),
            *("-c", str(config), "-C", "xz", "-o", str(core), *boot_disk.GRUB_MODULES),
        ],
        epoch,
    )
    boot_code = GRUB / "boot.img"
    if not boot_code.exists():
        raise debian.BuildError(f"{boot_code} is missing: run scripts/setup")
    with raw.open("r+b") as disk:
        disk.write(boot_disk.head(boot_code.read_bytes(), core.read_bytes(), size))
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd"]
    debian.run([*convert, str(raw), str(made)], epoch)
    return made


def add_initrd(tree: Path) -> str:
    """Put the initrd beside the kernel; the kernel's file name."""
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise debian.BuildError(f"the root has {len(kernels)} kernels in /boot, not one")
    place = tree / "usr/lib/modules" / kernels[0].name.removeprefix("vmlinuz-")
    try:
        order = initrd.load_order(
            (place / "modules.dep").read_text(), (place / "modules.builtin").read_text()
        )
    except KeyError as exc:
        raise debian.BuildError(f"the kernel has no module {exc.args[0]}") from exc
    modules = {initrd.module_name(path): (place / path).read_bytes() for path in order}
    packed = initrd.archive(modules, (tree / "usr/bin/busybox").read_bytes())
    (tree / "boot/initrd").write_bytes(packed)
    return kernels[0].name


def clamp(tree: Path, epoch: int) -> None:
    """No file is younger than the archive that it came from."""
    for directory, subdirectories, files in os.walk(tree, topdown=False):
        for name in (*files, *subdirectories):
            path = os.path.join(directory, name)  # noqa: PTH118 - thousands of them
            if os.lstat(path).st_mtime > epoch:
                os.utime(path, (epoch, epoch), follow_symlinks=False)
    os.utime(tree, (epoch, epoch))


def lay_file_system(tree: Path, raw: Path, size: int, epoch: int) -> None:
    """Write the root file system into `raw`, behind the room for the boot loader."""
    with raw.open("wb") as disk:
        disk.truncate(size)
    identity = uuid.uuid5(NAMES, str(epoch))
    debian.run(
        [
            # GRUB 2.06 refuses the two features.
            *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-O", "^orphan_file,^metadata_csum_seed"),
            *("-U", str(identity), "-m", "1", "-d", str(tree)),
            *("-E", f"offset={boot_disk.START},root_owner=0:0,hash_seed={identity}"),
            *(str(raw), f"{(size - boot_disk.START) // 1024}k"),
        ],
        epoch,
        E2FSPROGS_FAKE_TIME=str(epoch),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Build the image named on the command line; 1 if that fails."""
    parser = argparse.ArgumentParser(description="Build the small KVM desktop image.")
    parser.add_argument("output", type=Path, metavar="OUTPUT.qcow2")
    parser.add_argument("--include", metavar="PKG,…", default="", help="further Debian packages")
    parser.add_argument(
        "--size", type=int, metavar="MIB", default=DEFAULT_SIZE_MIB, help="size of the disk in MiB [4096]"
    )
    parser.add_argument(
        "--without-vma", action="store_true", help="leave the VMA out (to test what then happens)"
    )
    options = parser.parse_args(argv)
    if not options.output.name.endswith(".qcow2"):
        parser.error(f"{options.output}: the name must end in .qcow2")
    root = debian.Root(
        packages=sorted({*PACKAGES, *filter(None, options.include.split(","))}),
        overlays=(debian.OVERLAY, debian.HERE / "overlay-kvm"),
        extra=debian.agent(not options.without_vma),
        finish=finish(),
        form="directory",
    )
    builders = [Path(module.__file__ or "") for module in (boot_disk, initrd)]
    make: Callable[[Path, int], Path] = lambda tree, epoch: pack(tree, epoch, options.size)  # noqa: E731
    os.environ["INITRD"] = "No"  # asks Debian's kernel package for none: the image has its own
    try:
        debian.build(options.output.resolve(), root, [Path(__file__), *builders], "tree", make)
    except (debian.BuildError, OSError, subprocess.CalledProcessError) as exc:
        print(f"build_kvm: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
