"""Reads in an unpacked root as if it were `/`: whatever cannot be read is not there. Nothing is written.

Whoever made the root may have made it so that reading never ends. So an `ImageRoot` reads so much, no more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from appliance.storage import openat

MOST_NAMES = 10_000
"""Entries of one directory; a root with more there is none that anybody has made by hand."""
MOST_BYTES = 32 << 20
"""Characters of files and of names in directories, and of what is made of them, all together."""
MOST_OPENED = 20_000
"""Paths that are walked, all together; a desktop of a distribution needs a tenth of it."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class TooMuchError(Exception):
    """There is more to read in a root than anybody would make by hand."""


class ImageRoot:
    """The root in a directory, which somebody else wrote.

    Every method raises `TooMuchError` once too much was read by all calls together.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bytes_left = MOST_BYTES
        self._opens_left = MOST_OPENED

    def text(self, inside: str) -> str | None:
        """The first 64 KiB of a regular file, or None; links are followed as the guest would."""
        if not self.leads_to(inside):
            return None
        self._open()
        with suppress(OSError, ValueError):
            text = openat.read_text(self._root, inside)
            self.take(len(text))
            return text
        return None

    def names(self, inside: str) -> Sequence[str]:
        """The names in a directory, in order; none if it is no directory."""
        self._open()
        with (
            suppress(OSError, ValueError),
            openat.opened(self._root, inside, DIRECTORY) as descriptor,
            os.scandir(descriptor) as entries,
        ):
            names = sorted(entry.name for entry in islice(entries, MOST_NAMES))
            self.take(sum(map(len, names)))
            return names
        return ()

    def link(self, folder: str, name: str) -> str | None:
        """What stands in the link `name` in a directory; None if that is no link."""
        self._open()
        with suppress(OSError, ValueError), openat.opened(self._root, folder, DIRECTORY) as descriptor:
            return os.readlink(name, dir_fd=descriptor)
        return None

    def leads_to(self, inside: str) -> str | None:
        """The name of what a path leads to once all links are followed; None if it leads nowhere."""
        self._open()
        with suppress(OSError, ValueError):
            return openat.resolved(self._root, inside).name
        return None

    def lacks(self, program: str) -> bool:
        """Whether a program by its whole path is not there; of one to be looked up, nothing is known."""
        return program.startswith("/") and "%" not in program and self.leads_to(program) is None

    def take(self, size: int) -> None:
        """Count what was read, or made of it and is kept."""
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise TooMuchError

    def _open(self) -> None:
        self._opens_left -= 1
        if self._opens_left < 0:
            raise TooMuchError
