"""Whether a disk image is in use: asks the kernel for the locks that QEMU and qemu-img hold on open images.

QEMU locks single bytes of an image for as long as it has it open (its `file` driver's `locking=auto`), and
so refuses to open one for writing that another has open. These locks end with the process that holds them.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from appliance.storage.volumes import explained

FIRST_BYTE, BYTES = 100, 200
"""QEMU's bytes: what it does with an image from 100 on, and what others must not from 200 on."""
LOCK = struct.Struct("hhqqi4x")


def is_in_use(image: Path) -> bool:
    """Whether a process has the image open and means it to keep as it is; false if there is none.

    :raises VolumeError: it cannot be looked at
    """
    with explained(f"the disk {image} cannot be opened"):
        try:
            descriptor = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            question = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, FIRST_BYTE, BYTES, 0)
            kind, *_ = LOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question))
        finally:
            os.close(descriptor)
    return bool(kind != fcntl.F_UNLCK)
