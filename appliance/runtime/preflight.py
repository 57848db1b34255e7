"""Whether the guests' bridge and network fit among what this host is connected to already.

Asked before anything is changed. Guests in a network that this host also reaches by another link would
take its machines' places, or lose their own; and a bridge that is somebody else's would be given our
address and our rules.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from appliance import config
from appliance.clock import Timers
from appliance.config import Settings
from appliance.errors import NetworkError
from appliance.log import facts
from appliance.runtime import bridge
from appliance.runtime.bridge import BridgeSpec, Surroundings
from appliance.threads import in_thread

logger = logging.getLogger(__name__)

IPTABLES_SEE_BRIDGES = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
WIDEST = 2
"""A route to more than this prefix length is one to everywhere: VPNs cut the default route in two halves."""

IP_FREEBIND = 15
"""Of ip(7); the module `socket` does not know it."""
DNS, DHCP_SERVER = 53, 67
MAY_NOT = (
    "the daemon lacks CAP_NET_BIND_SERVICE: set vm.hypervisor = kvm in node.conf and run scripts/setup"
    " --service again, or give it by systemctl edit qvd-appliance"
)
PATIENCE_S, LOOK_S = 5.0, 0.1
"""How long a child of a daemon that was killed just now may take to end as well."""


@dataclass(frozen=True, slots=True)
class Objection:
    """Why guests cannot be connected as the settings say, and what helps."""

    message: str
    hint: str


def objections(wanted: BridgeSpec, port_prefix: str, seen: Surroundings) -> Iterator[Objection]:
    """What stands against the bridge `wanted` among the links, addresses and routes of this host."""
    guests = wanted.address.network
    another = "give guests another range: vm.network.gateway, vm.network.netmask, vm.network.ip.start"
    told = set()
    for link, address in seen.addresses:
        if link != wanted.name and address.network.overlaps(guests):
            told.add((link, address.network))
            old = seen.bridges.get(link, "").startswith(bridge.MAC_PREFIX)
            remedy = f"this program's own bridge of before? then remove it: ip link del {link}"
            yield Objection(
                f"the guests' network {guests} overlaps {address} of {link}", remedy if old else another
            )
    for link, route in seen.routes:
        clashes = link != wanted.name and route.prefixlen >= WIDEST and route.overlaps(guests)
        if clashes and (link, route) not in told:
            yield Objection(f"the guests' network {guests} overlaps the route to {route} by {link}", another)
    mac = seen.bridges.get(wanted.name)
    if mac is not None and not mac.startswith(bridge.MAC_PREFIX):
        yield Objection(
            f"there is a bridge {wanted.name} that this program has not made",
            f"give another name as vm.network.bridge, or remove it: ip link del {wanted.name}",
        )
    for link, master in seen.ports:
        if master != wanted.name and link.startswith(port_prefix):
            yield Objection(
                f"{link} is a port of {master}, and its name begins like those of guests' links",
                f"give another internal.vm.network.device.prefix than {port_prefix}",
            )


async def check(settings: Settings) -> None:
    """Whether guests can be connected here as the settings say.

    :raises NetworkError: something of this host is in the way; the message names both
    """
    wanted, prefix = bridge.spec(settings), settings[config.NETWORK_DEVICE_PREFIX]
    seen = await bridge.surroundings()
    for objection in objections(wanted, prefix, seen):
        raise NetworkError(objection.message, hint=objection.hint)
    for link, master in seen.ports:
        if master == wanted.name and not link.startswith(prefix):
            logger.warning(
                "a port of the guests' bridge is no guest's: it meets no rule", extra=facts(link=link)
            )
    if await in_thread(_iptables_see_bridges):
        logger.info("br_netfilter is on: iptables rules of others apply to guests' frames too")


async def check_dhcp(link: str, gateway: IPv4Address, timers: Timers) -> None:
    """Whether addresses can be told on the guests' bridge.

    :raises NetworkError: another program is there already
    """
    until = timers.monotonic() + PATIENCE_S
    while await in_thread(is_taken, socket.SOCK_DGRAM, gateway, DHCP_SERVER, link):
        if timers.monotonic() > until:
            raise NetworkError(
                f"another program has UDP port {DHCP_SERVER} on the guests' bridge {link}: virtual machines"
                " would not be told their addresses",
                hint=f"stop it (ss -ulnp sport = {DHCP_SERVER} names it), or set vm.network.use_dhcp=0",
            )
        await timers.sleep(LOOK_S)


def names_are_answered(link: str, gateway: IPv4Address) -> bool:
    """Whether another program answers for names at the gateway's address."""
    return any(is_taken(kind, gateway, DNS, link) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))


def is_taken(kind: socket.SocketKind, address: IPv4Address, port: int, link: str) -> bool:
    """Whether another program gets what comes by `link` for a port of `address`; neither need be there yet.

    Who listens on another link only is not in the way: each bridge may have a dnsmasq of its own.
    """
    with socket.socket(socket.AF_INET, kind) as ours:
        ours.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        if kind is socket.SOCK_STREAM:  # what is left of old connections is nobody
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        there = any(name == link for _, name in socket.if_nameindex())
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, (link if there else "lo").encode())
        try:
            ours.bind((str(address), port))
        except OSError as exc:
            if exc.errno == errno.EACCES:
                raise NetworkError(f"port {port} may not be opened", hint=MAY_NOT) from exc
            if exc.errno != errno.EADDRINUSE:
                raise NetworkError(f"whether port {port} is free cannot be told: {exc.strerror}") from exc
            return True
    return False


def _iptables_see_bridges() -> bool:
    try:
        return IPTABLES_SEE_BRIDGES.read_text().strip() == "1"
    except OSError:
        return False
