"""Disk images that differ from the built one in a few files, made in a second."""

from __future__ import annotations

import io
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
        _tool("cp", "--reflink=auto", str(self._plain), str(scratch))
        with tarfile.open(self._plain) as tar:
            there = {member.name: member for member in tar}
        gone = [f"./{path}" for path in (*files, *without) if f"./{path}" in there]
        assert len(gone) >= len(without)
        if gone:
            _tool("tar", "--delete", "--file", str(scratch), *gone)
        with tarfile.open(scratch, "a") as tar:
            for path, content in files.items():
                entry = there.get(f"./{path}") or tarfile.TarInfo(f"./{path}")
                entry.size = len(content.encode())
                tar.addfile(entry, io.BytesIO(content.encode()))
        _tool("zstd", "-q", "-1", "--rm", str(scratch), "-o", str(made))
        return made

    def content(self, path: str) -> str:
        """What a file of the image holds."""
        with tarfile.open(self._plain) as tar:
            file = tar.extractfile(f"./{path}")
            assert file is not None
            return file.read().decode()


def _tool(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{words}: {done.stderr}"
