"""What can be wrong with a guest's disks when it is launched, and whose fault it is."""

from __future__ import annotations

from pathlib import Path

from appliance.errors import BackendError, HostError, ImageError, PoolFullError, VolumeError
from appliance.runtime.kvm_domain import DiskFiles
from appliance.storage import image_lock

FULL = "No space left"


def check_unused(files: DiskFiles) -> None:
    """That the guest's disks are there, and no other program has them open.

    :raises ImageError: the image is not there
    :raises VolumeError: a disk is not there, or cannot be looked at
    :raises BackendError: it is in use
    """
    if not files.base.is_file():
        raise ImageError(f"the image {files.base} is not there", hint="qa di list tells what is")
    for disk in _written(files):
        try:
            used = image_lock.is_in_use(disk)
        except OSError as exc:
            raise VolumeError(f"the disk {disk} cannot be opened: {exc.strerror}") from exc
        if used:
            raise BackendError(f"another program has the disk {disk} open", hint=f"fuser {disk} tells which")
        if not disk.is_file():
            raise VolumeError(f"the disk {disk} is not there")


def blamed(error: BackendError, files: DiskFiles) -> HostError | ImageError:
    """Why a domain did not start: the image's fault, or the storage's, by the file that QEMU names."""
    said = error.message
    if FULL in said:
        return PoolFullError.of(said)
    if str(files.base) in said:
        return ImageError(said)
    if any(str(disk) in said for disk in _written(files)):
        return VolumeError(said, hint="qa vm start tries again; a kept root may have to be given up")
    return error


def ended_at_once() -> BackendError:
    """What is to be said of a QEMU that was started and is gone before anything could be seen of it."""
    return BackendError(
        "the guest's QEMU ended at once", hint="libvirtd keeps its log in /var/log/libvirt/qemu"
    )


def _written(files: DiskFiles) -> list[Path]:
    return [files.overlay] if files.home is None else [files.overlay, files.home]
