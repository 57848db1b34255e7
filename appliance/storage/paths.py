"""Every path below `path.storage.*` and `path.run`, in one place.

Names are those of the disk layout that other tools and administrators know; nothing here touches a disk.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from appliance import config
from appliance.config import Settings
from appliance.model import DiId, VmId

HOME_SNAPSHOT = re.compile(r"[1-9][0-9]*-home-[0-9]{8}T[0-9]{6}Z(?:-[0-9a-f]{8})?(?:\.qcow2)?")
"""Names of snapshots of homes, of containers and of virtual machines."""


class Paths:
    """Where everything is, under the settings in force."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings[config.PATH_STORAGE_ROOT]
        self.staging = settings[config.PATH_STORAGE_STAGING]
        self.images = settings[config.PATH_STORAGE_IMAGES]
        self.all_basefs = settings[config.PATH_STORAGE_BASEFS]
        self.all_rootfs = settings[config.PATH_STORAGE_ROOTFS]
        self.all_homefs = settings[config.PATH_STORAGE_HOMEFS]
        self.overlays = settings[config.PATH_STORAGE_OVERLAYS]
        self.homes = settings[config.PATH_STORAGE_HOMES]
        self.kept = settings[config.PATH_STORAGE_KEPT]
        self.trash = settings[config.PATH_STORAGE_TRASH]
        self.run = settings[config.PATH_RUN]
        self.lxc = settings[config.PATH_RUN_LXC]
        self.kvm = settings[config.PATH_RUN_KVM]
        self.ssl = settings[config.PATH_SSL]
        self.control = settings[config.PATH_CONTROL]
        self.cgroup = settings[config.PATH_CGROUP]
        self.captures = settings[config.PATH_SERIAL_CAPTURES]

    @property
    def storage(self) -> tuple[Path, ...]:
        """The directories on the pool, in the order in which they are made."""
        return (
            self.staging,
            self.images,
            self.all_basefs,
            self.all_rootfs,
            self.all_homefs,
            self.overlays,
            self.homes,
            self.kept,
            self.trash,
        )

    @property
    def volumes(self) -> tuple[Path, ...]:
        """Those of them in which roots, homes and images are that were unpacked."""
        return (self.all_basefs, self.all_rootfs, self.all_homefs, self.overlays, self.homes, self.kept)

    @property
    def doorbell(self) -> Path:
        """The daemon's doorbell socket."""
        return self.run / "doorbell"

    @property
    def hkd_lock(self) -> Path:
        """Held by the one daemon of this installation; beside what it guards, whatever `path.run` is."""
        return self.root / "hkd.lock"

    @property
    def consoles(self) -> Path:
        """Sockets, logs and captures of the guests' consoles."""
        return self.run / "consoles"

    def image(self, di_id: DiId, name: str) -> Path:
        """The archive or disk image of a DI, as registered under its base name."""
        return self.images / image_name(di_id, name)

    def image_part(self, di_id: DiId) -> Path:
        """The same while it is being copied."""
        return self.images / f".{di_id}.part"

    def image_lock(self, di_id: DiId) -> Path:
        """Locked by whoever adds this DI, for as long as that process lives."""
        return self.images / f".{di_id}.adding"

    def basefs(self, di_id: DiId) -> Path:
        """The read-only subvolume of a DI."""
        return self.all_basefs / str(di_id)

    def rootfs(self, vm_id: VmId) -> Path:
        """The root of a running VM."""
        return self.all_rootfs / f"{vm_id}-fs"

    def homefs(self, vm_id: VmId) -> Path:
        """The home of a VM's user; it outlives the VM."""
        return self.all_homefs / f"{vm_id}-fs"

    def overlay(self, di_id: DiId, vm_id: VmId) -> Path:
        """What a virtual machine has written over the image of a DI: its root."""
        return self.overlays / f"{di_id}-{vm_id}-overlay.qcow2"

    def home_disk(self, vm_id: VmId) -> Path:
        """The home of the user of a virtual machine, a disk of its own; it outlives the VM."""
        return self.homes / f"{vm_id}-data.qcow2"

    def homes_of(self, vm_id: VmId) -> tuple[Path, Path]:
        """Every place where a VM may have a home; which one, its backend decides."""
        return self.homefs(vm_id), self.home_disk(vm_id)

    def root_lock(self, vm_id: VmId) -> Path:
        """Inherited by the monitor of the one guest that runs on this root."""
        return self.all_rootfs / f"{vm_id}.lock"

    def kept_root(self, vm_id: VmId, at: datetime) -> Path:
        """Where a root is put aside at the instant `at`."""
        return self.kept / f"{vm_id}-{at:%Y%m%dT%H%M%SZ}"

    def kept_overlay(self, vm_id: VmId, at: datetime) -> Path:
        """The same for a virtual machine's: beside the others, so that it only changes its name."""
        return self.overlays / f"{vm_id}-{at:%Y%m%dT%H%M%SZ}.qcow2"

    def home_snapshot(self, vm_id: VmId, at: datetime) -> Path:
        """Where a snapshot of a home is that was taken at the instant `at`."""
        return self.kept / f"{vm_id}-home-{at:%Y%m%dT%H%M%SZ}"

    def home_disk_snapshot(self, vm_id: VmId, at: datetime) -> Path:
        """The same for a virtual machine's: beside the others, as it shares their blocks."""
        return self.homes / f"{vm_id}-home-{at:%Y%m%dT%H%M%SZ}.qcow2"

    def sockets(self, vm_id: VmId) -> Path:
        """Where a virtual machine offers its serial line and its screen; its QEMU may write there."""
        return self.kvm / str(vm_id)

    def serial(self, vm_id: VmId) -> Path:
        """The serial line of a virtual machine, a Unix socket."""
        return self.sockets(vm_id) / "serial"

    def vnc(self, vm_id: VmId) -> Path:
        """The screen of a virtual machine by VNC, a Unix socket."""
        return self.sockets(vm_id) / "vnc"

    def domain(self, vm_id: VmId) -> Path:
        """What libvirt was told last about a virtual machine."""
        return self.kvm / f"{vm_id}.xml"

    def line_lock(self, vm_id: VmId) -> Path:
        """Locked by whoever holds the serial line of a virtual machine."""
        return self.kvm / f"{vm_id}.line"

    def console_log(self, vm_id: VmId) -> Path:
        """The boot messages of a VM's guest."""
        return self.consoles / f"{vm_id}.log"

    def console_capture(self, vm_id: VmId) -> Path:
        """What a VM's console has shown, harmless to print."""
        return self.consoles / f"{vm_id}.tty"

    def console_record(self, vm_id: VmId) -> Path:
        """The same for longer, where `vm.serial.capture` wants it."""
        return self.captures / f"{vm_id}.log"


def image_name(di_id: DiId, name: str) -> str:
    """The name under which the archive `name` is registered: `dis.path`."""
    return f"{di_id}-{name}"
