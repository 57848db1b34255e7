"""The owner's mark on a subvolume: an extended attribute that no guest can change.

`trusted.*` attributes are refused to processes without the host's own CAP_SYS_ADMIN, so a mark says
for certain which installation, VM and image a root or a home belongs to.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

from appliance.errors import VolumeError
from appliance.model import DiId, InstallationId, Mark, VmId

ATTRIBUTE = "trusted.qvd.mark"


def mark_of(path: Path) -> Mark | None:
    """The mark of a subvolume; None if it has none.

    :raises VolumeError: it cannot be read, or there is no such subvolume
    """
    try:
        text = os.getxattr(path, ATTRIBUTE, follow_symlinks=False)
    except OSError as exc:
        if exc.errno == errno.ENODATA:
            return None
        raise VolumeError(f"the mark of {path} cannot be read: {exc.strerror}") from exc
    try:
        return decoded(text)
    except ValueError as exc:
        raise VolumeError(f"the mark of {path} is damaged: {text!r}") from exc


def set_mark(path: Path, mark: Mark) -> None:
    """Put a mark on a subvolume.

    :raises OSError: it cannot be written
    """
    os.setxattr(path, ATTRIBUTE, encoded(mark), follow_symlinks=False)


def encoded(mark: Mark) -> bytes:
    """A mark as it is written."""
    return json.dumps(asdict(mark)).encode()


def decoded(text: bytes) -> Mark:
    """A mark as it was written.

    :raises ValueError: it is none
    """
    try:
        record = json.loads(text)
        return Mark(
            installation=InstallationId(str(record["installation"])),
            vm_id=VmId(int(record["vm_id"])),
            vm_uuid=str(record["vm_uuid"]),
            di_id=DiId(int(record["di_id"])),
        )
    except (KeyError, TypeError) as exc:
        raise ValueError(f"not a mark: {text!r}") from exc
