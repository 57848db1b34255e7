"""Whole trees: looked at strictly, and packed at random."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st

BLOCK = 4096
BLOCKS = tuple(random.Random(number).randbytes(BLOCK) for number in range(5))
CAPABILITY = "security.capability"
ABLE = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
"""cap_net_bind_service, effective."""
DAY = 86_400
NOW = -1
FOLDERS = (".", "sbin", "d", "d/e")
PLACES = ("f", "g", "d/f", "d/g", "d/e/f", "d/e", "s", "s/f", "s/e/f")
"""Few, so that members meet: `s` may become a link to `d`, and then `s/f` is `d/f`."""
TARGETS = ("d", "f", "d/f", "nowhere", "e", "../g")


@dataclass(frozen=True, slots=True)
class Entry:
    """All that a file, directory or link has which an import decides."""

    kind: int
    mode: int
    owner: tuple[int, int]
    modified: int
    """In nanoseconds; `NOW` for what has its time from its making, not from an archive."""
    size: int
    links: int
    same_as: str
    """The first name of the same inode."""
    content: str
    """Its digest, or where a link leads."""
    xattrs: Mapping[str, bytes]


def tree(top: Path) -> dict[str, Entry]:
    """Every entry below `top` and itself, by path."""
    found, first = dict[str, Entry](), dict[int, str]()
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in (".", *sorted((*folders, *files))) if folder == str(top) else sorted((*folders, *files)):
            path = Path(folder) / name
            relative = str(path.relative_to(top))
            found[relative] = _entry(path, first.setdefault(path.lstat().st_ino, relative))
    return found


def _entry(path: Path, same_as: str) -> Entry:
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    content = ""
    if kind == stat.S_IFREG:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    elif kind == stat.S_IFLNK:
        content = str(path.readlink())
    names = os.listxattr(path, follow_symlinks=False)
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        modified=status.st_mtime_ns if status.st_mtime < 10 * DAY else NOW,
        size=status.st_size,
        links=status.st_nlink,
        same_as=same_as,
        content=content,
        xattrs={name: os.getxattr(path, name, follow_symlinks=False) for name in names},
    )


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive."""

    name: str
    kind: bytes = tarfile.REGTYPE
    content: bytes = field(default=b"", repr=False)
    blocks: tuple[int, ...] = ()
    tail: int = 0
    """At random: which of `BLOCKS`, and how many bytes after them."""
    link: str = ""
    mode: int = 0o644
    owner: int = 0
    modified: float = 0.0
    able: bool = False

    @property
    def holds(self) -> bytes:
        """The content of a file."""
        return self.content or b"".join(BLOCKS[number] for number in self.blocks) + BLOCKS[0][: self.tail]


def members() -> st.SearchStrategy[list[Member]]:
    """Some members of a root, in any order, one over the other."""
    blocks = st.lists(st.integers(0, len(BLOCKS) - 1), max_size=6).map(tuple)
    tails = st.sampled_from((0, 1, 20, 32, 2048, 2049, 4095))
    names = st.sampled_from(PLACES)
    modes = st.sampled_from((0o644, 0o400, 0o4755, 0o2711, 0o1777, 0))
    owners = st.sampled_from((0, 1, 1000))
    times = st.sampled_from((DAY, 2.0 * DAY + 0.25))
    files = st.builds(
        Member,
        name=names,
        blocks=blocks,
        tail=tails,
        mode=modes,
        owner=owners,
        modified=times,
        able=st.booleans(),
    )
    folders = st.builds(Member, name=names, kind=st.just(tarfile.DIRTYPE), mode=modes, modified=times)
    links = st.builds(
        Member,
        name=names,
        kind=st.sampled_from((tarfile.SYMTYPE, tarfile.LNKTYPE)),
        link=st.sampled_from((*TARGETS, *PLACES)),
        modified=times,
    )
    pipes = st.builds(Member, name=names, kind=st.just(tarfile.FIFOTYPE), modified=times)
    return st.lists(st.one_of(files, files, files, links, folders, pipes), max_size=9)


def pack(archive: Path, wanted: Sequence[Member]) -> Path:
    """An archive of a root with these members."""
    base = [Member(name, tarfile.DIRTYPE, mode=0o755) for name in FOLDERS]
    init = Member("sbin/init", content=b"#!/bin/sh\n", mode=0o755)
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for member in (*base, init, *wanted):
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname, info.mode = member.kind, member.link, member.mode
            info.uid = info.gid = member.owner
            info.mtime, info.size = member.modified, len(member.holds)
            if member.able:
                info.pax_headers = {f"SCHILY.xattr.{CAPABILITY}": ABLE.decode("latin-1")}
            tar.addfile(info, io.BytesIO(member.holds))
    return archive
