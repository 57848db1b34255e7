"""Reads in an unpacked root as if it were `/`: whatever cannot be read is not there. Nothing is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from appliance.storage import openat

MOST_NAMES = 10_000
"""Entries of one directory; a root with more there is none that anybody has made by hand."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class ImageRoot:
    """The root in a directory, which somebody else wrote."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def text(self, inside: str) -> str | None:
        """The first 64 KiB of a file, or None; links are followed as the guest would."""
        with suppress(OSError):
            if self.leads_to(inside):
                return openat.read_text(self._root, inside)
        return None

    def names(self, inside: str) -> Sequence[str]:
        """The names in a directory, in order; none if it is no directory."""
        with (
            suppress(OSError),
            openat.opened(self._root, inside, DIRECTORY) as descriptor,
            os.scandir(descriptor) as entries,
        ):
            return sorted(entry.name for entry in islice(entries, MOST_NAMES))
        return ()

    def link(self, folder: str, name: str) -> str | None:
        """What stands in the link `name` in a directory; None if that is no link."""
        with suppress(OSError), openat.opened(self._root, folder, DIRECTORY) as descriptor:
            return os.readlink(name, dir_fd=descriptor)
        return None

    def leads_to(self, inside: str) -> str | None:
        """The name of what a path leads to once all links are followed; None if it leads nowhere."""
        with suppress(OSError):
            return openat.resolved(self._root, inside).name
        return None
