"""A second name for what a file holds, without a second time its room."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from appliance.storage import reflink
from appliance.storage.volumes import explained


class Shared(StrEnum):
    """How two files share what they hold."""

    BLOCKS = "blocks"
    """Each is a file of its own; btrfs and XFS can."""
    FILE = "file"
    """They are one file with two names: for what nobody ever writes again."""


def share(source: Path, path: Path) -> Shared:
    """Let `path` hold what `source` holds, which must not change any more; it must be new.

    :raises VolumeError: it cannot be made
    """
    with explained(f"{path} cannot be made from {source}"):
        if not reflink.copy(source, path):
            path.hardlink_to(source)
            return Shared.FILE
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return Shared.BLOCKS
