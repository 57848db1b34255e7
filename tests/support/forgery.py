"""What a guest could say that is not true, or is not for it to say, told to this host or to a neighbour."""

from __future__ import annotations

import socket

from appliance.config import Settings
from appliance.runtime import bridge
from tests.support import ether, frames
from tests.support.frames import ALL_NODES, EVERYBODY, Node, frame, icmp, icmpv6, ipv4, ipv6, udp
from tests.support.lxc_rig import NETWORK
from tests.support.wire import ALICE, BOB, GATEWAY

ME, NEIGHBOUR = (Node(guest.mac, str(guest.address.ip)) for guest in (ALICE, BOB))
HOST = Node(bridge.spec(Settings(NETWORK)).mac, GATEWAY)
NOBODY = Node("54:52:00:2c:00:77", "10.44.0.55")
PORT = 4711


def datagram(source: str, to: str, mark: bytes, *, ports: tuple[int, int] = (PORT, PORT)) -> bytes:
    """A packet with a mark."""
    return ipv4(source, to, frames.UDP, udp(*ports, mark))


def forged(to: Node, me: Node = ME, neighbour: Node = NEIGHBOUR) -> dict[str, bytes]:
    """One frame for each way to lie, or to say what no guest has to say, told to `to`."""
    it = to

    def marked(name: str) -> bytes:
        return ether.mark(name)

    def advice(name: str, kind: int, rest: bytes) -> bytes:
        return ipv4(me.address, it.address, frames.ICMP, icmp(kind, 1, rest, marked(name)))

    def talk(name: str, destination: str) -> bytes:
        return ipv6(me.link_local, destination, frames.UDP, udp(PORT, PORT, marked(name)))

    vlan, qinq = frames.tag(frames.VLAN, 7), frames.tag(frames.QINQ, 7)
    offer = (67, 68)
    advertisement = bytes((64, 0, 7, 8)) + bytes(8)
    solicited = icmpv6(me.link_local, "ff02::1", 134, advertisement + marked("router-advertisement"))
    advertised = icmpv6(me.link_local, "ff02::1", 136, bytes(20) + marked("neighbour-advertisement"))
    return {
        "hardware-address": frame(
            NOBODY.mac, it.mac, frames.IPV4, datagram(me.address, it.address, marked("hardware-address"))
        ),
        "address": frame(
            me.mac, it.mac, frames.IPV4, datagram(NOBODY.address, it.address, marked("address"))
        ),
        "neighbours-address": frame(
            me.mac,
            EVERYBODY,
            frames.IPV4,
            datagram(neighbour.address, it.address, marked("neighbours-address")),
        ),
        "gateways-address": frame(
            me.mac, EVERYBODY, frames.IPV4, datagram(GATEWAY, it.address, marked("gateways-address"))
        ),
        "no-address": frame(
            me.mac, EVERYBODY, frames.IPV4, datagram("0.0.0.0", it.address, marked("no-address"))
        ),
        "arp-of-gateway": frame(
            me.mac, it.mac, frames.ARP, frames.arp_reply(me.mac, GATEWAY, it, marked("arp-of-gateway"))
        ),
        "arp-of-neighbour": frame(
            me.mac,
            it.mac,
            frames.ARP,
            frames.arp_reply(me.mac, neighbour.address, it, marked("arp-of-neighbour")),
        ),
        "arp-for-another": frame(
            me.mac,
            it.mac,
            frames.ARP,
            frames.arp_reply(neighbour.mac, me.address, it, marked("arp-for-another")),
        ),
        "dhcp-offer": frame(
            me.mac,
            EVERYBODY,
            frames.IPV4,
            datagram(me.address, "255.255.255.255", marked("dhcp-offer"), ports=offer),
        ),
        "redirect": frame(
            me.mac, it.mac, frames.IPV4, advice("redirect", 5, socket.inet_aton(NOBODY.address))
        ),
        "router-discovery": frame(
            me.mac, EVERYBODY, frames.IPV4, advice("router-discovery", 9, bytes((1, 2, 7, 8)))
        ),
        "router-advertisement": frame(
            me.mac,
            ALL_NODES,
            frames.IPV6,
            ipv6(me.link_local, "ff02::1", frames.ICMPV6, solicited),
        ),
        "neighbour-advertisement": frame(
            me.mac,
            ALL_NODES,
            frames.IPV6,
            ipv6(me.link_local, "ff02::1", frames.ICMPV6, advertised),
        ),
        "ipv6-to-one": frame(me.mac, it.mac, frames.IPV6, talk("ipv6-to-one", it.link_local)),
        "ipv6-to-all": frame(me.mac, ALL_NODES, frames.IPV6, talk("ipv6-to-all", "ff02::1")),
        "vlan": frame(
            me.mac,
            it.mac,
            frames.IPV4,
            datagram(me.address, it.address, marked("vlan")),
            tags=vlan,
        ),
        "vlan-in-vlan": frame(
            me.mac,
            it.mac,
            frames.IPV4,
            datagram(me.address, it.address, marked("vlan-in-vlan")),
            tags=qinq + vlan,
        ),
        "vlan-of-no-number": frame(
            me.mac,
            EVERYBODY,
            frames.IPV4,
            datagram(me.address, it.address, marked("vlan-of-no-number")),
            tags=frames.tag(frames.VLAN, 0),
        ),
        "unknown-protocol": frame(me.mac, it.mac, frames.EXPERIMENTAL, marked("unknown-protocol")),
        "no-protocol": frame(me.mac, EVERYBODY, len(marked("no-protocol")), marked("no-protocol")),
        # These two come last: without rules the bridge believes them, and Bob would hear no more.
        "neighbours-hardware-address": frame(
            neighbour.mac,
            EVERYBODY,
            frames.IPV4,
            datagram(me.address, it.address, marked("neighbours-hardware-address")),
        ),
        "arp-by-another": frame(
            neighbour.mac,
            EVERYBODY,
            frames.ARP,
            frames.arp_reply(me.mac, me.address, it, marked("arp-by-another")),
        ),
    }


def honest(name: str, me: Node = ME) -> bytes:
    """What any guest may say to this host."""
    return frame(me.mac, HOST.mac, frames.IPV4, datagram(me.address, GATEWAY, ether.mark(name)))
