"""The guests' bridge and its ports by netlink: makes what is there equal to a `BridgeSpec`.

Calls block for a moment and are made in a thread. This is the one module that imports pyroute2.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance import config, proc
from appliance.config import Settings
from appliance.errors import NetworkError
from appliance.threads import in_thread

logger = logging.getLogger(__name__)

SYSCTL = Path("/proc/sys/net")
GUEST_LINK = "eth0"
RESERVED_GROUPS = 0xFFF8
"""The group addresses, by their last digit, that take the way of every other frame and so meet the rules.

Of the sixteen that a bridge keeps for itself, the kernel would hand what comes to the one that ends in e
to this host past all rules, and learn its sender. The mask may not hold the first three: 0 takes that
way already where no spanning tree is spoken, 1 goes nowhere, and 2 meets the input rules.
"""
HARDENED = {
    "ipv6/conf/{link}/disable_ipv6": "1",
    "ipv4/conf/{link}/rp_filter": "1",
    "ipv4/conf/{link}/accept_redirects": "0",
    "ipv4/conf/{link}/accept_source_route": "0",
    "ipv4/conf/{link}/route_localnet": "0",
    "ipv4/conf/{link}/proxy_arp": "0",
}
"""What the bridge does with what guests send, whatever this host does elsewhere."""
MAC_PREFIX = "02:51:56"
"""By this a bridge of ours is known: a locally administered address that no card has."""
TUN_DEVICE = Path("/dev/net/tun")
TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
"""Of a tap as QEMU wants it: whole frames, with the header by which checksums are left to the host."""
RTM_SETLINK, NLM_F_REQUEST, NLM_F_ACK = 19, 1, 4
IFLA_PROTINFO, IFLA_BRPORT_ISOLATED, NLA_F_NESTED = 12, 33, 0x8000
"""Of netlink(7) and linux/if_link.h."""
UNICAST, LOCAL_TABLE = 1, 255
"""Of routes: those that lead somewhere; the table of the host's own addresses (rtnetlink(7))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSpec:
    """A bridge as it should be: its name and the gateway's address on it."""

    name: str
    address: IPv4Interface

    @property
    def mac(self) -> str:
        """A hardware address that does not change when ports come and go; locally administered."""
        return ":".join((MAC_PREFIX, *(f"{octet:02x}" for octet in self.address.ip.packed[1:])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What this network namespace is connected to, each with the name of its link."""

    addresses: tuple[tuple[str, IPv4Interface], ...]
    routes: tuple[tuple[str, IPv4Network], ...]
    """Those to somewhere, of every table but the one of the host's own addresses."""
    bridges: Mapping[str, str]
    """Hardware addresses."""
    ports: tuple[tuple[str, str], ...]
    """Links that belong to another, and to which."""


def spec(settings: Settings) -> BridgeSpec:
    """The bridge of the settings in force."""
    address = f"{settings[config.NETWORK_GATEWAY]}/{settings[config.NETWORK_NETMASK]}"
    return BridgeSpec(name=settings[config.NETWORK_BRIDGE], address=IPv4Interface(address))


async def converge(spec: BridgeSpec) -> None:
    """Make the bridge, give it its address and no other, harden it, bring it up, let this host forward.

    :raises NetworkError: the kernel refuses
    """
    await _told(f"the bridge {spec.name} cannot be set up", _converge, spec)


async def surroundings() -> Surroundings:
    """What is here already.

    :raises NetworkError: the kernel does not tell
    """
    seen: Surroundings = await _told("links and routes cannot be listed", _surroundings)
    return seen


async def attach(link: str, bridge: str) -> None:
    """Make a link a port of the bridge, up, and isolated from the other guests' ports."""
    await _told(f"{link} cannot be put on the bridge {bridge}", _attach, link, bridge)


async def tap(link: str, bridge: str) -> None:
    """Make a persistent tap for a virtual machine unless it is there, and a port of it as `attach` does.

    :raises NetworkError: the kernel refuses, or something else has the name
    """
    await _told(f"the tap {link} cannot be made", _make_tap, link)
    await attach(link, bridge)


async def isolate(link: str) -> None:
    """Let a port of a bridge speak to the bridge itself only."""
    await _told(f"the port {link} cannot be isolated", _isolate, link)


async def remove(link: str) -> None:
    """Remove a link, if it is there."""
    if await exists(link):
        await _told(f"the link {link} cannot be removed", _remove, link)


async def exists(link: str) -> bool:
    """Whether there is such a link here."""
    return _index(link) is not None


async def relink(link: str, *, init: int, mac: str, address: IPv4Interface, gateway: str) -> None:
    """Give a running guest a new link to here, in place of one that ends wherever a former daemon was.

    The link comes here last, so one that is here is complete.

    :raises ToolError: the kernel refuses
    """
    there = ("nsenter", f"--net=/proc/{init}/ns/net", "ip")
    await proc.run([*there, "link", "del", GUEST_LINK], check=False)
    orders = (
        f"link add {GUEST_LINK} address {mac} type veth peer name {link}",
        f"address add {address} broadcast + dev {GUEST_LINK}",
        f"link set {GUEST_LINK} up",
        f"route add default via {gateway}",
        f"link set {link} netns {os.getpid()}",
    )
    await proc.run([*there, "-batch", "-"], stdin="".join(f"{order}\n" for order in orders).encode())
    logger.info("guest linked anew link=%s init=%s", link, init)


async def _told(failure: str, work: Any, *args: Any) -> Any:
    try:
        return await in_thread(work, *args)
    except NetlinkError as exc:
        raise NetworkError(f"{failure}: {os.strerror(exc.code)}") from exc
    except OSError as exc:
        raise NetworkError(f"{failure}: {exc}") from exc


def _converge(spec: BridgeSpec) -> None:
    with IPRoute() as ip:
        index = _index(spec.name)
        if index is None:
            ip.link("add", ifname=spec.name, kind="bridge", address=spec.mac)
            index = _index(spec.name)
            logger.info("bridge made name=%s", spec.name)
        elif _kind(ip, index) != "bridge":
            raise NetworkError(
                f"{spec.name} exists and is not a bridge", hint="give another name as vm.network.bridge"
            )
        ip.link("set", index=index, kind="bridge", br_group_fwd_mask=RESERVED_GROUPS, br_stp_state=0)
        for key, value in HARDENED.items():
            _set(key.format(link=spec.name), value)
        _give_addresses(ip, index, spec.address)
        ip.link("set", index=index, state="up")
    _set("ipv4/ip_forward", "1")


def _surroundings() -> Surroundings:
    with IPRoute() as ip:
        links = list(ip.get_links())
        names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in links}
        addresses = [
            (names[entry["index"]], IPv4Interface(f"{entry.get_attr('IFA_LOCAL')}/{entry['prefixlen']}"))
            for entry in ip.get_addr(family=socket.AF_INET)
            if entry["index"] in names
        ]
        routes = [
            (names[hop], IPv4Network((route.get_attr("RTA_DST") or 0, route["dst_len"])))
            for route in ip.get_routes(family=socket.AF_INET)
            if route["type"] == UNICAST and route.get_attr("RTA_TABLE") != LOCAL_TABLE
            for hop in _hops(route)
            if hop in names
        ]
    return Surroundings(
        addresses=tuple(addresses),
        routes=tuple(routes),
        bridges={
            names[link["index"]]: str(link.get_attr("IFLA_ADDRESS"))
            for link in links
            if (about := link.get_attr("IFLA_LINKINFO")) and about.get_attr("IFLA_INFO_KIND") == "bridge"
        },
        ports=tuple(
            (names[link["index"]], names[master])
            for link in links
            if (master := link.get_attr("IFLA_MASTER")) in names
        ),
    )


def _hops(route: Any) -> list[int]:
    """The links by which a route goes."""
    single = route.get_attr("RTA_OIF")
    return [single] if single else [hop["oif"] for hop in route.get_attr("RTA_MULTIPATH") or ()]


def _give_addresses(ip: Any, index: int | None, wanted: IPv4Interface) -> None:
    there = False
    for message in ip.get_addr(index=index):
        address, length = message.get_attr("IFA_ADDRESS"), message["prefixlen"]
        if (address, length) == (str(wanted.ip), wanted.network.prefixlen):
            there = True
        else:
            ip.addr("del", index=index, address=address, prefixlen=length)
    if not there:
        broadcast = str(wanted.network.broadcast_address)
        mask = wanted.network.prefixlen
        ip.addr("add", index=index, address=str(wanted.ip), prefixlen=mask, broadcast=broadcast)


def _attach(link: str, bridge: str) -> None:
    with IPRoute() as ip:
        ip.link("set", index=_index(link), master=_index(bridge), state="up")
    _isolate(link)


def _make_tap(link: str) -> None:
    index = _index(link)
    if index is not None:
        with IPRoute() as ip:
            if _kind(ip, index) != "tun":
                raise NetworkError(f"{link} exists and is not a tap", hint=f"ip link del {link}")
        return
    request = struct.pack("16sH22x", link.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
    descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, request)
        fcntl.ioctl(descriptor, TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)


def _isolate(link: str) -> None:
    """By a message of our own: every start needs it, and an `IPRoute` would take sixty times as long."""
    _set(f"ipv6/conf/{link}/disable_ipv6", "1")
    isolated = struct.pack("=HHB3x", 5, IFLA_BRPORT_ISOLATED, 1)
    port = struct.pack("=HH", 4 + len(isolated), IFLA_PROTINFO | NLA_F_NESTED) + isolated
    body = struct.pack("=BxHiII", socket.AF_BRIDGE, 0, socket.if_nametoindex(link), 0, 0) + port
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(
            struct.pack("=IHHII", 16 + len(body), RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 0, 0) + body
        )
        (error,) = struct.unpack_from("=i", kernel.recv(4096), 16)
    if error != 0:
        raise NetlinkError(-error, os.strerror(-error))


def _remove(link: str) -> None:
    index = _index(link)
    if index is None:
        return
    with IPRoute() as ip:
        try:
            ip.link("del", index=index)
        except NetlinkError as exc:
            if exc.code != errno.ENODEV:
                raise


def _index(link: str) -> int | None:
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return None


def _kind(ip: Any, index: int) -> str | None:
    (message,) = ip.get_links(index)
    information = message.get_attr("IFLA_LINKINFO")
    return str(information.get_attr("IFLA_INFO_KIND")) if information else None


def _set(key: str, value: str) -> None:
    """Write a setting of our network namespace; a kernel without IPv6 lacks some."""
    with suppress(FileNotFoundError):
        file = SYSCTL / key
        if file.read_text().strip() != value:
            file.write_text(value)
