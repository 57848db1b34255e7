"""Disk images that differ from the built one in a few files, made in a second."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


class Variants:
    """Makes variants of an image, each once, in a directory of their own."""

    def __init__(self, image: Path, directory: Path) -> None:
        self._plain = directory / "plain.tar"
        self._directory = directory
        _tool("zstd", "-q", "-d", str(image), "-o", str(self._plain))

    def make(self, name: str, files: Mapping[str, str], *, without: Sequence[str] = ()) -> Path:
        """The image with other contents of some files, owners and modes kept, and without some others."""
        made = self._directory / f"{name}.tar.zst"
        if made.exists():
            return made
        scratch = self._directory / f"{name}.tar"
        with tarfile.open(self._plain) as tar:
            there = {member.name: member for member in tar}
            ends = [*(member.offset for member in there.values()), tar.offset][1:]
        gone = {f"./{path}" for path in (*files, *without)} & there.keys()
        assert len(gone) >= len(without)
        parts = zip(there.values(), ends, strict=True)
        self._copy(scratch, [(member.offset, end) for member, end in parts if member.name not in gone])
        with tarfile.open(scratch, "a") as tar:
            for path, content in files.items():
                entry = there.get(f"./{path}") or tarfile.TarInfo(f"./{path}")
                entry.size = len(content.encode())
                tar.addfile(entry, io.BytesIO(content.encode()))
        _tool("zstd", "-q", "-1", "--rm", str(scratch), "-o", str(made))
        return made

    def _copy(self, target: Path, parts: Sequence[tuple[int, int]]) -> None:
        """Write parts of the plain image, from byte to byte, one after the other, as an archive that goes on.

        tar(1) can delete members, too, but has left a damaged archive behind.
        """
        with self._plain.open("rb") as source, target.open("wb") as copy:
            for begin, end in parts:
                os.lseek(source.fileno(), begin, os.SEEK_SET)
                while begin < end:
                    begin += os.sendfile(copy.fileno(), source.fileno(), None, end - begin)
            copy.write(bytes(2 * tarfile.BLOCKSIZE))

    def content(self, path: str) -> str:
        """What a file of the image holds."""
        with tarfile.open(self._plain) as tar:
            file = tar.extractfile(f"./{path}")
            assert file is not None
            return file.read().decode()


def _tool(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{words}: {done.stderr}"
