"""A btrfs pool on a loop file, and the smallest root that boots, for tests on real disks."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
APPLETS = """
ash cat chown echo getty id ifconfig ip kill ln login ls mkdir mount nc
ping poweroff ps reboot rm sh sleep stty touch true wget
"""
INITTAB = """\
::sysinit:/bin/echo the tiny root has booted
tty1::respawn:/bin/sh
"""
FOLDERS = "bin dev etc home proc root run sbin sys tmp usr var"


@contextmanager
def pool(size: str = "1G") -> Iterator[Path]:
    """A mounted btrfs file system behind a closed door, unmounted and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="qvdt-pool-"))
    mounted = folder / "pool"
    try:
        mounted.mkdir()
        _tool("truncate", "-s", size, str(folder / "image"))
        _tool("mkfs.btrfs", "-q", str(folder / "image"))
        _tool("mount", "-o", "loop", str(folder / "image"), str(mounted))
        yield mounted
    finally:
        if mounted.is_mount():
            _tool("umount", str(mounted))
        shutil.rmtree(folder)


def tiny_root(
    archive: Path,
    *,
    inittab: str = INITTAB,
    without: str = "",
    prefix: str = "",
    programs: Mapping[str, str] | None = None,
) -> Path:
    """Pack a root of busybox alone: an init, a shell on tty1, a user with uid 1000; and scripts by path."""
    files = {
        "bin/busybox": (BUSYBOX.read_bytes(), 0o755, 0),
        "etc/inittab": (inittab.encode(), 0o644, 0),
        "etc/passwd": (b"root::0:0:root:/root:/bin/sh\nuser::1000:1000::/home:/bin/sh\n", 0o644, 0),
        "etc/group": (b"root:x:0:\nuser:x:1000:\n", 0o644, 0),
        "etc/hosts": (b"127.0.0.1\tlocalhost\n10.9.8.7\tprinter\n", 0o644, 0),
        "usr/owned": (b"by user\n", 0o640, 1000),
        **{path: (script.encode(), 0o755, 0) for path, script in (programs or {}).items()},
    }
    links = {f"bin/{applet}": "busybox" for applet in APPLETS.split()} | {"sbin/init": "../bin/busybox"}
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for folder in FOLDERS.split():
            tar.addfile(_member(f"{prefix}{folder}", tarfile.DIRTYPE, 0o755))
        for name, (content, mode, owner) in files.items():
            member = _member(f"{prefix}{name}", tarfile.REGTYPE, mode, owner)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            if name != without:
                member = _member(f"{prefix}{name}", tarfile.SYMTYPE, 0o777)
                member.linkname = target
                tar.addfile(member)
    return archive


def _member(name: str, kind: bytes, mode: int, owner: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.uid, member.gid = kind, mode, owner, owner
    return member


def _tool(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
