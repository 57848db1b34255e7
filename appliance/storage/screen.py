"""Looks at a tar archive as it streams by, and refuses what no root of a desktop holds.

Safety does not rest on this: tar unpacks in a jail (see jail). What this adds is an early end, before a
bomb has filled the pool, and one clear line that names the member and what is wrong with it. Pure:
bytes in, nothing or `ImageError` out; what it keeps in mind is bounded by `Bounds`.

What it sees must be what tar sees, or a bomb hides in what one of them skips. So whatever the two could
read in different ways is refused: sums that are wrong, contents of what has none, headers that contradict
or that are meant for all members.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.errors import ImageError

BLOCK = 512
LONGEST_PATH = 4095
LONGEST_NAME = 255
LONGEST_HEADER = 1 << 20
"""How much a member may say about itself, beside its header: long names and extended attributes."""
LONGEST_LENGTH = 9
MOST_LINKS = 1 << 26
"""How many bytes of links that lead out are kept in mind."""
SHOWN = 80

DEVICES = {b"3": "character device", b"4": "block device"}
HARD_LINK, SYMBOLIC_LINK = b"1", b"2"
OF_ONE = (b"path", b"linkpath", b"size")
SPARSE = b"GNU.sparse."
"""What a header may say of the next member, and of all at once may not."""
PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK, OLD_SPARSE = b"x", b"g", b"L", b"K", b"S"
CONTENT = b"0\0 7S"
REGULAR = b"0\0"
DIRECTORY = b"5"
KNOWN = CONTENT + b"123456"
DEV = "dev"
"""Below it a guest sees devices made at its start, whatever its image holds."""
LIMITS = "storage.import.max_size and storage.import.max_files say how much an image may be"


class TooBigError(ImageError):
    """All that the archive holds is more than it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much an archive may unpack to."""

    size: int
    """Bytes, of the archive without its compression and so of all files together."""
    longest: int
    """Bytes of one file, holes included."""
    members: int


@dataclass(slots=True)
class _Said:
    """What extended headers say about the member that follows."""

    path: str | None = None
    sparse_path: str | None = None
    link: str | None = None
    size: int | None = None
    real_size: int = 0
    is_sparse: bool = False
    by: bytes = b""
    """The kinds of those headers."""


class Keeper(Protocol):
    """Takes the contents of files out of the archive, and leaves something short in their place."""

    def takes(self, path: str, size: int) -> bool:
        """Whether it takes the content of the file that comes now."""

    def content(self, piece: memoryview) -> None:
        """The next piece of that content."""

    def stand_in(self) -> bytes:
        """What the file is to hold instead, now that all of its content is here: less than a block."""


class Screen:
    """Fed with the archive, in any pieces; tells what of it is to be passed on."""

    def __init__(self, bounds: Bounds, keeper: Keeper | None = None) -> None:
        self._bounds = bounds
        self._keeper = keeper
        self._held: bytes | None = None
        """The header of a file whose content is being taken out."""
        self._taken = 0
        """How much of that content is still to come, without its padding."""
        self._pending = bytearray()
        self._skip = 0
        """How many bytes of content and padding pass by unread."""
        self._extension: bytes | None = None
        """Kind of the extended header whose content is being collected."""
        self._wanted = BLOCK
        self._content_size = 0
        self._sparse_map = False
        self._said = _Said()
        self._ended = False
        self._links: dict[str, str] = {}
        """Symbolic links that lead out of the root, as seen by who unpacks it."""
        self._links_size = 0
        self._position = 0
        self.members = 0
        self.devices = 0
        """Devices below /dev, which are left out."""

    def feed(self, data: bytes) -> Sequence[memoryview | bytes]:
        """Look at the next piece; returns what is to be passed on, with a keeper in other pieces.

        :raises ImageError: the archive holds something that it may not, or more than it may
        """
        view, passing = memoryview(data), list[memoryview | bytes]()
        place, end = 0, len(data)
        while place < end and not self._ended:
            if self._skip:
                passed = min(self._skip, end - place)
                self._skip -= passed
                if self._keeper:
                    passing += self._content(self._keeper, view[place : place + passed])
            else:
                passed = min(self._wanted - len(self._pending), end - place)
                self._pending += view[place : place + passed]
            place += passed
            self._position += passed
            if len(self._pending) == self._wanted:
                block = bytes(self._pending)
                self._pending.clear()
                self._read(block)
                if self._held is None:
                    passing.append(block)
        self._position += end - place
        self._check_size(0)
        if not self._keeper:
            return (view,)
        return [*passing, view[place:]] if place < end else passing

    def rest(self) -> Sequence[memoryview | bytes]:
        """What a cut archive leaves to be passed on, so that whoever unpacks it sees that it is cut."""
        if not self._keeper:
            return ()
        return (self._held or b"", bytes(self._pending))

    def _content(self, keeper: Keeper, piece: memoryview) -> Sequence[memoryview | bytes]:
        if self._held is None:
            return (piece,)
        if taken := piece[: self._taken]:
            keeper.content(taken)
            self._taken -= len(taken)
        if self._skip:
            return ()
        header, self._held = self._held, None
        left = keeper.stand_in()
        return (_resized(header, len(left)), left.ljust(BLOCK, b"\0"))

    def _read(self, block: bytes) -> None:
        if self._sparse_map:
            self._sparse_map = block[504] != 0
            if not self._sparse_map:
                self._skip = _padded(self._content_size)
        elif self._extension is not None:
            kind, self._extension, self._wanted = self._extension, None, BLOCK
            self._note(kind, block[: self._content_size])
        elif block.count(0) == BLOCK:
            self._ended = True
        else:
            self._header(block)

    def _header(self, block: bytes) -> None:
        _check_sum(block)
        kind = block[156:157]
        size = _number(block[124:136])
        if kind in (PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK):
            if size > LONGEST_HEADER:
                raise ImageError(f"it says {size >> 10} KiB about one of its members before naming it")
            self._extension, self._content_size = kind, size
            self._wanted = _padded(size) or BLOCK
            if size == 0:
                self._extension, self._wanted = None, BLOCK
            return
        said, self._said = self._said, _Said()
        name = said.sparse_path or (_name(block) if said.path is None else said.path)
        path = self._member(kind, name, _text(block[157:257]) if said.link is None else said.link)
        if kind not in CONTENT and (said.size or (size and kind not in HARD_LINK + DIRECTORY)):
            raise ImageError(f"it is damaged: {shown(name)} is no file and has a content")
        stored = (size if said.size is None else said.size) if kind in CONTENT else 0
        real = max(stored, said.real_size, _number(block[483:495]) if kind == OLD_SPARSE else 0)
        if real > self._bounds.longest:
            raise ImageError(f"its file {shown(name)} has {real >> 20} MiB", hint=LIMITS)
        self._check_size(stored)
        self._content_size = stored
        if kind == OLD_SPARSE and block[482]:
            self._sparse_map = True
        else:
            self._skip = _padded(stored)
            plain = kind in REGULAR and said.size is None and not said.is_sparse
            if self._keeper and plain and stored and self._keeper.takes(path, stored):
                self._held, self._taken = block, stored

    def _check_size(self, more: int) -> None:
        if self._position + more > self._bounds.size:
            raise TooBigError(f"unpacked it has more than {self._bounds.size >> 20} MiB", hint=LIMITS)

    def _member(self, kind: bytes, name: str, link: str) -> str:
        """Look at a member; returns its name without its dots.

        :raises ImageError: it may not be there
        """
        self.members += 1
        if self.members > self._bounds.members:
            raise ImageError(f"it holds more than {self._bounds.members} files", hint=LIMITS)
        if kind not in KNOWN:
            raise ImageError(f"it holds {shown(name)} of the unknown kind {kind!r}")
        path = self._inside(name, "holds")
        if kind in DEVICES:
            if path.partition("/")[0] != DEV:
                raise ImageError(f"it holds {shown(name)}, a {DEVICES[kind]} outside /dev")
            self.devices += 1
        if kind == HARD_LINK:
            self._inside(link, f"has a hard link {shown(name)} to")
        self._links.pop(path, None)
        if kind == SYMBOLIC_LINK and _leads_out(path, link):
            self._links[path] = link
            self._links_size += len(path) + len(link)
            if self._links_size > MOST_LINKS:
                raise ImageError("it holds too many links that lead out of it")
        return path

    def _inside(self, name: str, verb: str) -> str:
        """A name without its dots.

        :raises ImageError: it leads out of the archive, by itself or through a link
        """
        if not name or "\0" in name:
            raise ImageError("it holds something without a name")
        if name.startswith("/"):
            raise ImageError(
                f"it {verb} {shown(name)}, an absolute name", hint="pack it with tar -C ROOT -c ."
            )
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise ImageError(f"it {verb} {shown(name)}, which leads out of it")
        length = len(os.fsencode(name))
        if length > LONGEST_PATH or (
            length > LONGEST_NAME and any(len(os.fsencode(part)) > LONGEST_NAME for part in parts)
        ):
            raise ImageError(f"it {verb} {shown(name)}, a name that is too long")
        if self._links:
            self._refuse_way_out(name, parts, verb)
        return "/".join(parts)

    def _refuse_way_out(self, name: str, parts: list[str], verb: str) -> None:
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above in self._links:
                raise ImageError(
                    f"it {verb} {shown(name)}, whose way leads through the link {shown(above)} "
                    f"to {shown(self._links[above])}"
                )

    def _note(self, kind: bytes, content: bytes) -> None:
        if kind == PAX_GLOBAL:
            for key, _ in _records(content):
                if key in OF_ONE or key.startswith(SPARSE):
                    raise ImageError(f"it says {shown(os.fsdecode(key))} of all its members at once")
            return
        if kind in self._said.by:
            raise ImageError("it is damaged: a member has two extended headers of one kind")
        self._said.by += kind
        if kind == PAX:
            for key, value in _records(content):
                self._note_record(key, value)
        elif PAX in self._said.by:
            raise ImageError("it is damaged: a member has extended headers of two kinds")
        elif kind == LONG_NAME:
            self._said.path = _text(content)
        elif kind == LONG_LINK:
            self._said.link = _text(content)

    def _note_record(self, key: bytes, value: bytes) -> None:
        self._said.is_sparse |= key.startswith(SPARSE)
        if key == b"path":
            self._said.path = os.fsdecode(value)
        elif key == b"GNU.sparse.name":
            self._said.sparse_path = os.fsdecode(value)
        elif key == b"linkpath":
            self._said.link = os.fsdecode(value)
        elif key == b"size":
            self._said.size = _decimal(value)
        elif key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
            self._said.real_size = _decimal(value)


def shown(name: str) -> str:
    """A name from an archive as it can stand in one line."""
    safe = "".join(char if char.isprintable() else "?" for char in name)
    return safe if len(safe) <= SHOWN else f"{safe[: SHOWN // 2]}…{safe[-SHOWN // 2 :]}"


def _leads_out(place: str, target: str) -> bool:
    """Whether a symbolic link at `place` points out of the root, as seen by who unpacks it."""
    if target.startswith("/"):
        return True
    depth = place.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


def _name(block: bytes) -> str:
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{_text(block[:100])}" if prefix else _text(block[:100])


def _text(field: bytes) -> str:
    return os.fsdecode(field.partition(b"\0")[0])


def _check_sum(block: bytes) -> None:
    """:raises ImageError: the sum in a header is not that of its bytes, its own field taken as blanks"""
    written = block[148:156].strip(b" \0")
    summed = block[:148] + b" " * 8 + block[156:]
    if written.strip(b"01234567"):
        raise ImageError("it is damaged: the sum of a header is wrong")
    said, found = int(written or b"0", 8), sum(summed)
    if said != found and said != found - 256 * sum(byte > 127 for byte in summed):  # as old tars reckoned
        raise ImageError("it is damaged: the sum of a header is wrong")


def _number(field: bytes) -> int:
    """A size as tar writes it: octal, or binary if it is long."""
    if field[0] in (0x80, 0xFF):
        number = int.from_bytes(field[1:], "big")
        if field[0] == 0xFF:
            raise ImageError("it is damaged: a member has a negative size")
        return number
    digits = field.strip(b" \0") or b"0"
    if digits.strip(b"01234567"):
        raise ImageError("it is damaged: a member's size is no number")
    return int(digits, 8)


def _resized(block: bytes, size: int) -> bytes:
    """A header that says another size."""
    fresh = bytearray(block)
    fresh[124:136] = b"%011o\0" % size
    fresh[148:156] = b" " * 8
    fresh[148:156] = b"%06o\0 " % sum(fresh)
    return bytes(fresh)


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise ImageError("it is damaged: a member's size is no number")
    return int(value)


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of an extended header: `LENGTH KEY=VALUE` and a line feed each."""
    place, end = 0, len(content.rstrip(b"\0"))
    while place < end:
        blank = content.find(b" ", place, place + LONGEST_LENGTH)
        length = content[place : max(place, blank)]
        after = place + int(length) if length.isdigit() else 0
        if not blank < after <= len(content):
            raise ImageError("it is damaged: an extended header cannot be read")
        key, _, value = content[blank + 1 : after - 1].partition(b"=")
        yield key, value
        place = after


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
