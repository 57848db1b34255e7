"""What can be wrong with a guest's disks when it is launched, and whose fault it is."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.errors import BackendError, HostError, ImageError, PoolFullError, VolumeError
from appliance.runtime.kvm_domain import DiskFiles
from appliance.storage import image_lock

FULL = "No space left"
NODE = re.compile(r'-blockdev \{.*?"node-name":"libvirt-(\d+)-(?:format|storage)"')
QEMU_HEAD = re.compile(r"\S+T\S+Z qemu-system-\S+: ")
"""The time and the program before what a QEMU says."""


def check_unused(files: DiskFiles) -> None:
    """That the guest's disks are there, and no other program has them open.

    :raises ImageError: the image is not there
    :raises VolumeError: a disk is not there, or cannot be looked at
    :raises BackendError: it is in use
    """
    if not files.base.is_file():
        raise ImageError(f"the image {files.base} is not there", hint="qa di list tells what is")
    for disk in written(files):
        if image_lock.is_in_use(disk):
            raise BackendError(f"another program has the disk {disk} open", hint=f"fuser {disk} tells which")
        if not disk.is_file():
            raise VolumeError(f"the disk {disk} is not there")


def blamed(error: BackendError, files: DiskFiles) -> HostError | ImageError:
    """Why a domain did not start, by what QEMU complains of: the image's fault, or the storage's."""
    said = QEMU_HEAD.sub("", error.message)
    if FULL in said:
        return PoolFullError.of(said)
    node = NODE.search(said)
    reason = said.rpartition("}: ")[2]
    culprit = _nodes(files).get(int(node[1])) if node else None
    if culprit is None:
        culprit = next((disk for disk in (files.base, *written(files)) if str(disk) in said), None)
    if culprit is None:
        return error
    if culprit == files.base:
        return ImageError(f"the image {culprit} cannot be used: {reason}", hint="qa di add it anew")
    return VolumeError(f"the disk {culprit} cannot be used: {reason}")


def _nodes(files: DiskFiles) -> dict[int, Path]:
    """libvirt numbers the files of all disks, from the last disk on and in each from the top on."""
    last = [] if files.home is None else [files.home]
    return dict(enumerate([*last, files.overlay, files.base], start=1))


def ended_at_once() -> BackendError:
    """What is to be said of a QEMU that was started and is gone before anything could be seen of it."""
    return BackendError(
        "the guest's QEMU ended at once", hint="libvirtd keeps its log in /var/log/libvirt/qemu"
    )


def written(files: DiskFiles) -> list[Path]:
    """The disks to which the guest writes."""
    return [files.overlay] if files.home is None else [files.overlay, files.home]
