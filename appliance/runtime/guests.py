"""What a VM's guest is to be: rows and settings -> GuestSpec (pure)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from appliance.config import (
    NETWORK_BRIDGE,
    NETWORK_DEVICE_PREFIX,
    NETWORK_DHCP,
    NETWORK_DNS,
    NETWORK_DOMAIN,
    NETWORK_GATEWAY,
    NETWORK_MAC_PREFIX,
    NETWORK_NETMASK,
    NXAGENT_DISPLAY,
    OSF_DEFAULT_PROCESSES,
    OSF_DEFAULT_ROOT,
    VM_OVERLAY_PERSISTENT,
    VMA_PORT,
    Settings,
)
from appliance.errors import ConfigError
from appliance.model import (
    NO_DI,
    SUBID_COUNT,
    SUBID_FIRST,
    BackendKind,
    DiId,
    InstallationId,
    Mark,
    Osf,
    Vm,
)
from appliance.runtime.backend import GuestSpec
from appliance.storage.runtimes import Placement

X_PORT_BASE = 4000
"""nxagent on display N listens on TCP 4000 + N (protocol.md 2.2)."""


def describe(vm: Vm, osf: Osf, di_id: DiId, settings: Settings, installation: InstallationId) -> GuestSpec:
    """The guest of `vm` made from the image `di_id`.

    :raises ConfigError: the VM has no address, or the network is not configured
    """
    if vm.ip is None:
        raise ConfigError(f"VM {vm.name} has no address", hint=f"qa vm edit ip=ADDRESS -f id={vm.id}")
    return GuestSpec(
        mark=Mark(installation=installation, vm_id=vm.id, vm_uuid=vm.uuid, di_id=di_id),
        hostname=vm.name,
        memory_mib=osf.memory_mib,
        cpus=osf.cpus,
        processes=osf.processes or settings[OSF_DEFAULT_PROCESSES],
        address=IPv4Interface(f"{vm.ip}/{settings[NETWORK_NETMASK]}"),
        gateway=str(settings[NETWORK_GATEWAY]),
        resolver=settings[NETWORK_DNS],
        domain=settings[NETWORK_DOMAIN],
        mac=mac_address(settings[NETWORK_MAC_PREFIX], IPv4Address(vm.ip)),
        asks_dhcp=vm.backend is BackendKind.KVM and settings[NETWORK_DHCP],
        bridge=settings[NETWORK_BRIDGE],
        interface=f"{settings[NETWORK_DEVICE_PREFIX]}{vm.id}",
        subid_first=SUBID_FIRST + vm.subid_slot * SUBID_COUNT,
        home_mib=osf.user_storage_mib,
        root_mib=osf.root_mib or settings[OSF_DEFAULT_ROOT],
        keep_root=settings[VM_OVERLAY_PERSISTENT],
        io_weight=osf.io_weight,
    )


def mac_address(prefix: str, address: IPv4Address) -> str:
    """The guest's MAC: the prefix and the last three octets of its address (protocol.md 5.6)."""
    return ":".join([prefix, *(f"{octet:02x}" for octet in address.packed[1:])])


def placement(guest: GuestSpec, settings: Settings) -> Placement:
    """Where the guest's VMA and X server are found."""
    return Placement(
        di_id=None if guest.mark.di_id == NO_DI else guest.mark.di_id,
        address=str(guest.address.ip),
        vma_port=settings[VMA_PORT],
        x_port=X_PORT_BASE + settings[NXAGENT_DISPLAY],
    )
