"""What libvirt is told about a guest: `GuestSpec` in, domain XML out. Nothing here performs I/O.

The recipe: a transient domain whose name and metadata carry our mark; virtio for disks and network; disks
with their whole backing chain written out, so that libvirt and QEMU never guess a format from what a guest
or an uploader wrote; a tap that is ours; the serial line and the screen on Unix sockets and nowhere else.

Disks go through the host's page cache: guests of one image then share what they read of it, and on btrfs
direct writes would break its checksums whenever a guest changes a page under way.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree as Xml

from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.runtime.backend import GuestSpec
from appliance.runtime.names import name
from appliance.storage.admission import Owner
from appliance.storage.paths import Paths

METADATA = "urn:qvd-appliance:vm:1"
"""The namespace of our mark in a domain's metadata."""
PERIOD_US = 100_000
SMALLEST_QUOTA_US = 1000
"""The kernel takes no less."""
VIDEO_KIB = 16_384


class DiskFiles(Protocol):
    """The files behind a guest's disks."""

    @property
    def base(self) -> Path:
        """The image, which nobody writes to."""
        ...

    @property
    def base_format(self) -> str:
        """`qcow2` or `raw`."""
        ...

    @property
    def overlay(self) -> Path:
        """What the guest writes into its root: qcow2, backed by the image."""
        ...

    @property
    def home(self) -> Path | None:
        """The user's disk, qcow2, if the guest has one."""
        ...


@dataclass(frozen=True, slots=True)
class Platform:
    """What this host runs domains on."""

    accel: str
    """`kvm` or `tcg`."""
    cpus: int
    """Processors of a guest for which nobody says."""
    owner: Owner = (0, 0)
    """As whom libvirtd lets QEMU run."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a domain may use, as libvirt counts it."""

    memory_mib: int
    vcpus: int
    quota_us: int | None
    """How long each processor may run in `PERIOD_US`; None: always."""
    io_weight: int | None = None
    """What a busy disk gives it beside others; None: nobody says."""


def limits(guest: GuestSpec, platform: Platform) -> Limits:
    """As many whole processors as hold the guest's share, each cut so that together they are it."""
    if guest.cpus is None:
        return Limits(guest.memory_mib, platform.cpus, None, guest.io_weight)
    vcpus = max(1, math.ceil(guest.cpus))
    if vcpus == guest.cpus:
        return Limits(guest.memory_mib, vcpus, None, guest.io_weight)
    quota = max(SMALLEST_QUOTA_US, round(guest.cpus / vcpus * PERIOD_US))
    return Limits(guest.memory_mib, vcpus, quota, guest.io_weight)


def domain_uuid(mark: Mark) -> str:
    """The domain's UUID: the VM's own; one made of the mark if that is none."""
    try:
        return str(uuid.UUID(mark.vm_uuid))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{METADATA}:{mark.installation}:{mark.vm_uuid}"))


def render(guest: GuestSpec, files: DiskFiles, paths: Paths, platform: Platform) -> str:
    """The guest's domain.

    :raises ValueError: a value cannot be written
    """
    allowed = limits(guest, platform)
    root = Xml.Element("domain", type="kvm" if platform.accel == "kvm" else "qemu")
    _text(root, "name", name(guest.mark.installation, guest.vm_id))
    _text(root, "uuid", domain_uuid(guest.mark))
    _text(root, "title", guest.hostname)
    Xml.SubElement(Xml.SubElement(root, "metadata"), f"{{{METADATA}}}vm", _attributes(guest))
    _text(root, "memory", allowed.memory_mib, unit="MiB")
    _text(root, "vcpu", allowed.vcpus)
    if allowed.quota_us is not None:
        tune = Xml.SubElement(root, "cputune")
        _text(tune, "period", PERIOD_US)
        _text(tune, "quota", allowed.quota_us)
    if allowed.io_weight is not None:
        _text(Xml.SubElement(root, "blkiotune"), "weight", allowed.io_weight)
    system = Xml.SubElement(root, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="pc")
    Xml.SubElement(system, "bios", useserial="yes")
    features = Xml.SubElement(root, "features")
    for feature in ("acpi", "apic"):
        Xml.SubElement(features, feature)
    if platform.accel == "kvm":
        Xml.SubElement(root, "cpu", mode="host-passthrough")
    Xml.SubElement(root, "clock", offset="utc")
    for event, reaction in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _text(root, f"on_{event}", reaction)
    sleeping = Xml.SubElement(root, "pm")
    for kind in ("suspend-to-mem", "suspend-to-disk"):
        Xml.SubElement(sleeping, kind, enabled="no")
    root.append(_devices(guest, files, paths))
    # Static, so that libvirt gives no file away: whose they are is ours to say (`storage.admission`).
    label = Xml.SubElement(root, "seclabel", type="static", model="dac", relabel="no")
    _text(label, "label", "+{}:+{}".format(*platform.owner))
    Xml.register_namespace("qvd", METADATA)
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode") + "\n"


def mark_of(metadata: str) -> Mark | None:
    """The mark in the metadata of a domain, given our element of it; None if it is damaged.

    The element comes from libvirtd, which is root's.
    """
    try:
        element = Xml.fromstring(metadata)  # noqa: S314
        return Mark(
            installation=InstallationId(element.attrib["installation"]),
            vm_id=VmId(int(element.attrib["vm"])),
            vm_uuid=element.attrib["uuid"],
            di_id=DiId(int(element.attrib["di"])),
        )
    except (Xml.ParseError, KeyError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Kept:
    """What can be read back from a domain that we wrote."""

    mark: Mark
    uuid: str
    interface: str


def kept(domain: str) -> Kept | None:
    """What a domain that `render` wrote was about; None if it is damaged."""
    try:
        root = Xml.fromstring(domain)  # noqa: S314, written by us into a directory of root's
    except Xml.ParseError:
        return None
    element = root.find(f"metadata/{{{METADATA}}}vm")
    target = root.find("devices/interface/target")
    mark = None if element is None else mark_of(Xml.tostring(element, encoding="unicode"))
    if mark is None or target is None:
        return None
    return Kept(mark, root.findtext("uuid", ""), target.attrib.get("dev", ""))


def qemu_owner(capabilities: str) -> Owner:
    """User and group by which libvirtd lets QEMU run, from its capabilities; root if it does not say."""
    try:
        root = Xml.fromstring(capabilities)  # noqa: S314, from libvirtd
        for module in root.findall("host/secmodel"):
            if module.findtext("model") == "dac":
                label = module.findtext("baselabel[@type='qemu']") or module.findtext("baselabel") or ""
                user, group = label.split(":")
                return int(user), int(group)
    except (Xml.ParseError, ValueError):
        pass
    return 0, 0


def can_run(capabilities: str, accel: str) -> bool:
    """Whether libvirtd has a QEMU for domains of this kind, from its capabilities."""
    kind = "kvm" if accel == "kvm" else "qemu"
    try:
        root = Xml.fromstring(capabilities)  # noqa: S314, from libvirtd
    except Xml.ParseError:
        return False
    return root.find(f"guest/arch[@name='x86_64']/domain[@type='{kind}']") is not None


def _attributes(guest: GuestSpec) -> dict[str, str]:
    mark = guest.mark
    values = {
        "installation": str(mark.installation),
        "vm": str(mark.vm_id),
        "uuid": mark.vm_uuid,
        "di": str(mark.di_id),
    }
    return {key: _writable(value) for key, value in values.items()}


def _devices(guest: GuestSpec, files: DiskFiles, paths: Paths) -> Xml.Element:
    vm_id = guest.vm_id
    devices = Xml.Element("devices")
    devices.extend(_disks(files))
    Xml.SubElement(devices, "controller", type="usb", model="none")
    link = Xml.SubElement(devices, "interface", type="ethernet")
    Xml.SubElement(link, "mac", address=_writable(guest.mac))
    Xml.SubElement(link, "target", dev=_writable(guest.interface), managed="no")
    Xml.SubElement(link, "model", type="virtio")
    Xml.SubElement(link, "rom", enabled="no")
    serial = Xml.SubElement(devices, "serial", type="unix")
    Xml.SubElement(serial, "source", mode="bind", path=_path(paths.serial(vm_id)))
    Xml.SubElement(serial, "log", file=_path(paths.console_log(vm_id)), append="on")
    Xml.SubElement(serial, "target", type="isa-serial", port="0")
    Xml.SubElement(devices, "graphics", type="vnc", socket=_path(paths.vnc(vm_id)))
    video = Xml.SubElement(devices, "video")
    Xml.SubElement(video, "model", type="vga", vram=str(VIDEO_KIB))
    randomness = Xml.SubElement(devices, "rng", model="virtio")
    _text(randomness, "backend", "/dev/urandom", model="random")
    Xml.SubElement(devices, "memballoon", model="none")
    return devices


def _disks(files: DiskFiles) -> Iterator[Xml.Element]:
    """The root, from which alone it boots, and the home."""
    root = _disk(files.overlay, "vda", "os", boot=True)
    backing = Xml.Element("backingStore", type="file")
    Xml.SubElement(backing, "format", type=_writable(files.base_format))
    Xml.SubElement(backing, "source", file=_path(files.base))
    Xml.SubElement(backing, "backingStore")
    root.insert(2, backing)
    yield root
    if files.home is not None:
        home = _disk(files.home, "vdb", "home", boot=False)
        home.insert(2, Xml.Element("backingStore"))
        yield home


def _disk(file: Path, device: str, serial: str, *, boot: bool) -> Xml.Element:
    disk = Xml.Element("disk", type="file", device="disk")
    # Whatever keeps the host from writing, the guest waits. Left to itself, QEMU lets it wait for room in the
    # pool, and tells it that its disk is broken when the quota of all guests is used up.
    Xml.SubElement(
        disk,
        "driver",
        name="qemu",
        type="qcow2",
        cache="writeback",
        discard="unmap",
        detect_zeroes="unmap",
        error_policy="stop",
    )
    Xml.SubElement(disk, "source", file=_path(file))
    Xml.SubElement(disk, "target", dev=device, bus="virtio")
    _text(disk, "serial", serial)
    if boot:
        Xml.SubElement(disk, "boot", order="1")
    return disk


def _text(parent: Xml.Element, tag: str, content: object, **attributes: str) -> None:
    Xml.SubElement(parent, tag, attributes).text = _writable(str(content))


def _path(path: Path) -> str:
    return _writable(str(path))


def _writable(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"{value!r} cannot be written into a domain")
    return value
