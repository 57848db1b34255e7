"""The smallest virtual machine that boots by itself: GRUB, Debian's cloud kernel, and busybox in an initrd.

Its qcow2 image is made once, without a loop device, into `build/` (ignored by git), and made anew when this
files change. The guest says BOOTED on its serial line, gives a shell there, and powers off when its power
button is pressed. It knows its disks by their serials. If it is told an address by DHCP, it has the agent and
the graphical session of the quick guest: a VM with it runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support import quick_guest

BUILD = Path(__file__).resolve().parents[2] / "build" / "tiny-vm"
GRUB = Path("/usr/lib/grub/i386-pc")
BUSYBOX = Path("/bin/busybox")
MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"),
    *("failover", "net_failover", "virtio_net", "evdev", "button"),
)
FOLDERS = ("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "home", "modules", "proc", "run", "sys")
BOOTED = "the tiny guest has booted"
PROMPT = "tiny# "
INIT = f"""\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in {" ".join(MODULES)}; do insmod /modules/$module.ko; done
echo '#!/bin/sh
poweroff -f' >/etc/acpi/PWRF/00000080
chmod 755 /etc/acpi/PWRF/00000080
acpid -l /dev/null
{quick_guest.SERVERS}
ip link set lo up
udhcpc -f -q -t 1000 -T 1 -i eth0 -s /bin/addressed >/dev/null 2>&1 &
export PS1='{PROMPT}'
echo {BOOTED} >/dev/ttyS0
while :; do setsid cttyhack sh </dev/ttyS0 >/dev/ttyS0 2>&1; done
"""
PROGRAMS = {
    "init": INIT,
    "bin/addressed": """\
#!/bin/sh
case $1 in
deconfig) ip link set "$interface" up ;;
bound)
    ifconfig "$interface" "$ip" netmask "$subnet"
    ip route add default via "$router"
    hostname "$hostname" ;;
esac
""",
    "bin/vma": quick_guest.VMA.replace("kill -USR2 1", "poweroff -f"),
    "bin/xsession": quick_guest.XSESSION,
}
GRUB_CONFIG = """\
set root=(hd0,msdos1)
linux /vmlinuz console=ttyS0 quiet nokaslr mitigations=off net.ifnames=0 panic=-1
initrd /initrd
boot
"""
SECTOR = 512
FIRST_SECTOR = 2048
SIZE_MIB = 32


def tiny_image() -> Path:
    """The image, made if need be; several test runs at once make it once.

    :raises OSError: something that it is made of is not there
    """
    told = Path(__file__).read_bytes() + Path(quick_guest.__file__).read_bytes()
    inputs = hashlib.sha256(told).hexdigest()[:16]
    image = BUILD / f"tiny-{inputs}.qcow2"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            for old in BUILD.glob("tiny-*.qcow2"):
                old.unlink()
            with tempfile.TemporaryDirectory(dir=BUILD) as folder:
                _build(Path(folder), _kernel_package(), image)
    return image


def _kernel_package() -> Path:
    """The tree of Debian's present cloud kernel, unpacked beside the image and not installed."""
    needs = _output("apt-cache", "depends", "linux-image-cloud-amd64")
    package = next(line.split()[-1] for line in needs.splitlines() if "Depends: linux-image-" in line)
    tree = BUILD / package
    if not tree.is_dir():
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            _tool("apt-get", "download", "-q", package, where=Path(folder))
            (archive,) = Path(folder).glob("*.deb")
            _tool("dpkg", "-x", str(archive), str(Path(folder) / "tree"))
            (Path(folder) / "tree").rename(tree)
    return tree


def _build(work: Path, package: Path, image: Path) -> None:
    (kernel,) = (package / "boot").glob("vmlinuz-*")
    files = work / "files"
    files.mkdir()
    shutil.copy(kernel, files / "vmlinuz")
    (files / "initrd").write_bytes(b"".join(_archive(package)))
    (work / "grub.cfg").write_text(GRUB_CONFIG)
    core = work / "core.img"
    _tool(
        *("grub-mkimage", "-O", "i386-pc", "-d", str(GRUB), "-p", "/boot/grub", "-C", "xz"),
        *("-c", str(work / "grub.cfg"), "-o", str(core), "biosdisk", "part_msdos", "ext2", "linux"),
    )
    raw = work / "raw"
    with raw.open("wb") as disk:
        disk.truncate(SIZE_MIB << 20)
    _tool(
        *(
            "mke2fs",
            "-q",
            "-b",
            "4096",
            "-t",
            "ext2",
            "-d",
            str(files),
            "-E",
            f"offset={FIRST_SECTOR * SECTOR}",
        ),
        *(str(raw), f"{SIZE_MIB - FIRST_SECTOR * SECTOR // 2**20}m"),
    )
    with raw.open("r+b") as disk:
        disk.write((GRUB / "boot.img").read_bytes()[:440])
        disk.seek(446)
        count = (SIZE_MIB << 20) // SECTOR - FIRST_SECTOR
        disk.write(
            struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", FIRST_SECTOR, count)
        )
        disk.seek(510)
        disk.write(b"\x55\xaa")
        disk.write(core.read_bytes())
    _tool("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", str(raw), str(work / "image"))
    (work / "image").chmod(0o444)
    (work / "image").rename(image)


def _archive(package: Path) -> Iterator[bytes]:
    """The initrd as a cpio archive in the format newc."""
    (modules,) = (package / "lib" / "modules").iterdir()
    yield from (_entry(f, 0o040755) for f in FOLDERS)
    yield _entry("dev/console", 0o020600, device=(5, 1))
    for path, program in PROGRAMS.items():
        yield _entry(path, 0o100755, program.encode())
    yield _entry("bin/busybox", 0o100755, BUSYBOX.read_bytes())
    for applet in _output(str(BUSYBOX), "--list").split():
        if applet != "busybox":
            yield _entry(f"bin/{applet}", 0o120777, b"busybox")
    for name in MODULES:
        (module,) = modules.rglob(f"{name}.ko")
        yield _entry(f"modules/{name}.ko", 0o100644, module.read_bytes())
    yield _entry("TRAILER!!!", 0)


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _tool(*words: str, where: Path | None = None) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=where, env=os.environ)
    if done.returncode:
        raise OSError(f"{words[0]} failed: {done.stderr}")
