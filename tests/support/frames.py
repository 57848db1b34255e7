"""Ethernet frames byte by byte, for whoever sends what no proper machine would."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

EVERYBODY = "ff:ff:ff:ff:ff:ff"
ALL_NODES = "33:33:00:00:00:01"
BPDU_GROUP, LLDP_GROUP = "01:80:c2:00:00:00", "01:80:c2:00:00:0e"
IPV4, ARP, IPV6, VLAN, QINQ, EXPERIMENTAL = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8, 0x88B5
ICMP, UDP, ICMPV6 = 1, 17, 58
REQUEST, REPLY = 1, 2
SHORTEST = 60


@dataclass(frozen=True, slots=True)
class Node:
    """By what the wire knows a machine."""

    mac: str
    address: str

    @property
    def link_local(self) -> str:
        """Its IPv6 address on every link, made from the hardware address (RFC 4291, appendix A)."""
        octets = bytearray(_mac(self.mac))
        octets[0] ^= 2
        return str(IPv6Address(b"\xfe\x80" + bytes(6) + octets[:3] + b"\xff\xfe" + octets[3:]))


def frame(source: str, destination: str, protocol: int, payload: bytes, *, tags: bytes = b"") -> bytes:
    """An Ethernet frame; `tags` come before its protocol."""
    whole = _mac(destination) + _mac(source) + tags + struct.pack("!H", protocol) + payload
    return whole.ljust(SHORTEST, b"\0")


def tag(protocol: int, vlan: int) -> bytes:
    """A VLAN tag."""
    return struct.pack("!HH", protocol, vlan)


def arp_reply(hardware: str, address: str, to: Node, mark: bytes) -> bytes:
    """`address` is at `hardware`, told to a machine; the mark follows as the frame's filling."""
    return _arp(REPLY, hardware, address, to, mark)


def arp_request(hardware: str, address: str, to: Node, mark: bytes) -> bytes:
    """`address` at `hardware` asks who has an address; from 0.0.0.0 it is a probe (RFC 5227)."""
    return _arp(REQUEST, hardware, address, to, mark)


def _arp(operation: int, hardware: str, address: str, to: Node, mark: bytes) -> bytes:
    fixed = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return fixed + _mac(hardware) + _ip(address) + _mac(to.mac) + _ip(to.address) + mark


def ipv4(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
    head += _ip(source) + _ip(destination)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """An IPv6 packet that no router has touched."""
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255)
    return head + _pseudo(source, destination) + payload


def udp(source_port: int, port: int, payload: bytes) -> bytes:
    """A UDP datagram without a checksum, which IPv4 allows."""
    return struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload


def icmp(kind: int, code: int, rest: bytes, payload: bytes) -> bytes:
    """An ICMP message for IPv4."""
    blank = struct.pack("!BBH", kind, code, 0) + rest + payload
    return blank[:2] + struct.pack("!H", checksum(blank)) + blank[4:]


def icmpv6(source: str, destination: str, kind: int, payload: bytes) -> bytes:
    """An ICMP message for IPv6."""
    blank = struct.pack("!BBH", kind, 0, 0) + payload
    pseudo = _pseudo(source, destination) + struct.pack("!II", len(blank), ICMPV6)
    return blank[:2] + struct.pack("!H", checksum(pseudo + blank)) + blank[4:]


def checksum(data: bytes) -> int:
    """The Internet's checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ip(text: str) -> bytes:
    return IPv4Address(text).packed


def _pseudo(source: str, destination: str) -> bytes:
    return IPv6Address(source).packed + IPv6Address(destination).packed
