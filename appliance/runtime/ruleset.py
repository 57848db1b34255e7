"""The rules between guests, host and world, as the JSON that nftables takes. Nothing here performs I/O.

Two tables of our own, one for what is routed and one for what is bridged, replaced together in one
transaction; other tables are never touched. What they say:

- a guest reaches the world, masqueraded, and gets the answers; nobody outside begins a conversation
  with a guest, so its VMA and X ports are this host's alone;
- a guest does not reach another guest, neither over the bridge nor through the gateway;
- a guest answers this host and begins nothing with it, except asking for names if this host gives them,
  and for its address if it is one that must: as itself, and not often;
- a frame leaves a guest's port only with the guest's own hardware and IPv4 address, ARP included: no
  IPv6, no VLAN tag, no other protocol, no answer of a DHCP server, no advice on routes; only one that must
  ask for its address has none while it asks, and while it looks whether another has it (RFC 5227);
- nor to a group address that a bridge keeps for itself: such a frame would meet no rule but of input;
- a guest has a bounded number of conversations at once: the kernel remembers so many for all together,
  and the clients of this host's own services are among them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from appliance import config
from appliance.config import Settings
from appliance.runtime.backend import GuestSpec

Json = dict[str, Any]

FAMILIES = ("inet", "bridge")
"""Of our two tables, which have one name."""
LIST_TABLES: Json = {"nftables": [{"list": {"tables": None}}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesetSpec:
    """What the rules are about: the guests' bridge and network, and the way out."""

    bridge: str
    network: IPv4Network
    gateway: IPv4Address
    port_prefix: str
    """What the names of guests' ports begin with."""
    nat_link: str | None
    """The link behind which guests are hidden; None: any but the bridge."""
    answers_dns: bool
    gives_addresses: bool = False
    """Whether this host tells addresses to those who ask."""

    @property
    def table(self) -> str:
        return f"qvd_{self.bridge}"


def spec(settings: Settings) -> RulesetSpec:
    """The rules of the settings in force."""
    gateway: IPv4Address = settings[config.NETWORK_GATEWAY]
    return RulesetSpec(
        bridge=settings[config.NETWORK_BRIDGE],
        network=IPv4Network(f"{gateway}/{settings[config.NETWORK_NETMASK]}", strict=False),
        gateway=gateway,
        port_prefix=settings[config.NETWORK_DEVICE_PREFIX],
        nat_link=settings[config.NETWORK_NAT_IFACE],
        answers_dns=settings[config.NETWORK_DNS] == str(gateway),
        gives_addresses=settings[config.NETWORK_DHCP],
    )


def removal(spec: RulesetSpec) -> Json:
    """A transaction after which none of our tables is there, whether or not they were."""
    return {"nftables": _without_tables(spec)}


def render(spec: RulesetSpec, guests: Iterable[GuestSpec]) -> Json:
    """A transaction that puts our tables in place of those of before."""
    return {"nftables": [*_without_tables(spec), *_routed(spec), *_bridged(spec, guests)]}


def members(spec: RulesetSpec, guests: Iterable[GuestSpec]) -> Json:
    """A transaction that changes only which guests there are; our tables must be in force.

    Nothing that hangs in a hook is replaced by it, so the kernel waits for nobody: an eighth of the time.
    """
    commands: list[Json] = []
    for name, _, found in _sets(spec, guests):
        where = {"family": "bridge", "table": spec.table, "name": name}
        commands.append({"flush": {"set": where}})
        if found:
            commands.append({"add": {"element": {**where, "elem": found}}})
    return {"nftables": commands}


def _sets(spec: RulesetSpec, guests: Iterable[GuestSpec]) -> list[tuple[str, list[str], list[Json]]]:
    """The sets that tell who guests are, each with its type and elements."""
    all_of_them = list(guests)
    asking = [guest for guest in all_of_them if guest.asks_dhcp]
    sets = [(GUESTS, ["ifname", "ether_addr", "ipv4_addr"], [_known(guest) for guest in all_of_them])]
    if spec.gives_addresses:
        sets.append((ASKING, ["ifname", "ether_addr"], [_asking(guest) for guest in asking]))
    return sets


def _known(guest: GuestSpec) -> Json:
    return {"concat": [guest.interface, guest.mac, str(guest.address.ip)]}


def _asking(guest: GuestSpec) -> Json:
    return {"concat": [guest.interface, guest.mac]}


def _without_tables(spec: RulesetSpec) -> list[Json]:
    tables = [{"table": {"family": family, "name": spec.table}} for family in FAMILIES]
    return [{verb: table} for table in tables for verb in ("add", "delete")]


def _routed(spec: RulesetSpec) -> list[Json]:
    network = {"prefix": {"addr": str(spec.network.network_address), "len": spec.network.prefixlen}}
    from_guests, to_guests = _is("iifname", spec.bridge), _is("oifname", spec.bridge)
    out = _is("oifname", spec.nat_link) if spec.nat_link else _is("oifname", spec.bridge, "!=")
    to_gateway = _compare(_payload("ip", "daddr"), str(spec.gateway))
    table = _Table("inet", spec.table)
    return [
        table.add(),
        table.chain("forward", "filter", "forward", 0),
        table.rule("forward", from_guests, to_guests, DROP),
        table.rule("forward", from_guests, _is("nfproto", "ipv6"), DROP),
        table.rule("forward", from_guests, _compare(_payload("ip", "saddr"), network, "!="), DROP),
        table.rule("forward", from_guests, BEGINNING, _too_many("talks"), DROP),
        table.rule("forward", to_guests, ANSWERS, ACCEPT),
        table.rule("forward", to_guests, DROP),
        table.chain("input", "filter", "input", 0),
        table.rule("input", from_guests, ANSWERS, ACCEPT),
        *(
            table.rule("input", from_guests, to_gateway, _compare(_payload(protocol, "dport"), 53), *verdict)
            for protocol in ("udp", "tcp")
            for verdict in ((BEGINNING, _too_many(f"asks_{protocol}"), DROP), (ACCEPT,))
            if spec.answers_dns
        ),
        *_input_of_asking(spec, table, from_guests),
        table.rule("input", from_guests, DROP),
        table.chain("postrouting", "nat", "postrouting", 100),
        table.rule("postrouting", out, _compare(_payload("ip", "saddr"), network), {"masquerade": None}),
    ]


def _bridged(spec: RulesetSpec, guests: Iterable[GuestSpec]) -> list[Json]:
    table = _Table("bridge", spec.table)
    from_ports, to_ports = _is("iifname", f"{spec.port_prefix}*"), _is("oifname", f"{spec.port_prefix}*")
    is_ip, is_arp = (_compare(_payload("ether", "type"), protocol) for protocol in ("ip", "arp"))
    return [
        table.add(),
        *(table.set(name, kind, found) for name, kind, found in _sets(spec, guests)),
        table.chain("guest"),
        table.rule("guest", is_ip, _compare(_payload("udp", "sport"), DHCP_SERVER), DROP),
        table.rule("guest", is_ip, _compare(_payload("icmp", "type"), ROUTE_ADVICE, "in"), DROP),
        *_guest_asking(spec, table, is_ip, is_arp),
        table.rule("guest", is_ip, _belongs(_payload("ether", "saddr"), _payload("ip", "saddr")), ACCEPT),
        table.rule(
            "guest",
            is_arp,
            _belongs(_payload("ether", "saddr"), _payload("arp", "saddr ip")),
            _belongs(_payload("arp", "saddr ether"), _payload("arp", "saddr ip")),
            ACCEPT,
        ),
        table.rule("guest", DROP),
        table.chain("prerouting", "filter", "prerouting", -300),
        table.rule("prerouting", from_ports, {"jump": {"target": "guest"}}),
        table.chain("input", "filter", "input", -200),
        table.rule("input", from_ports, _compare(_reserved(_payload("ether", "daddr")), RESERVED), DROP),
        table.chain("forward", "filter", "forward", -200),
        table.rule("forward", from_ports, to_ports, DROP),
    ]


def _input_of_asking(spec: RulesetSpec, table: _Table, from_guests: Json) -> list[Json]:
    """Who asks for an address has come past `_guest_asking`."""
    if not spec.gives_addresses:
        return []
    to_host = _compare(_payload("ip", "daddr"), {"set": [str(spec.gateway), EVERYBODY]})
    return [table.rule("input", from_guests, to_host, FROM_CLIENT, TO_SERVER, ACCEPT)]


def _guest_asking(spec: RulesetSpec, table: _Table, is_ip: Json, is_arp: Json) -> list[Json]:
    """What the port of a guest carries that has no address yet, and no other port."""
    if not spec.gives_addresses:
        return []
    nowhere, everybody = (_compare(_payload("ip", field), value) for field, value in NO_ADDRESS)
    probe = (
        _compare(_payload("arp", "operation"), "request"),
        _asks(_payload("ether", "saddr")),
        _asks(_payload("arp", "saddr ether")),
        _compare(_payload("arp", "saddr ip"), NOBODY),
    )
    return [
        table.rule("guest", is_ip, TO_SERVER, _asks(_payload("ether", "saddr"), "!="), DROP),
        table.rule("guest", is_ip, TO_SERVER, _too_often("asks_dhcp"), DROP),
        table.rule("guest", is_ip, nowhere, everybody, FROM_CLIENT, TO_SERVER, ACCEPT),
        table.rule("guest", is_arp, *probe, ACCEPT),
    ]


@dataclass(frozen=True, slots=True)
class _Table:
    family: str
    name: str

    def add(self) -> Json:
        return {"add": {"table": {"family": self.family, "name": self.name}}}

    def chain(self, name: str, kind: str = "", hook: str = "", priority: int = 0) -> Json:
        base = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"} if hook else {}
        return {"add": {"chain": {"family": self.family, "table": self.name, "name": name, **base}}}

    def set(self, name: str, kind: list[str], elements: list[Json]) -> Json:
        found = {"elem": elements} if elements else {}
        return {
            "add": {"set": {"family": self.family, "table": self.name, "name": name, "type": kind, **found}}
        }

    def rule(self, chain: str, *expressions: Json) -> Json:
        body = {"family": self.family, "table": self.name, "chain": chain, "expr": list(expressions)}
        return {"add": {"rule": body}}


def _is(key: str, value: str, comparison: str = "==") -> Json:
    return _compare({"meta": {"key": key}}, value, comparison)


def _compare(left: Json, right: object, comparison: str = "==") -> Json:
    return {"match": {"op": comparison, "left": left, "right": right}}


def _payload(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


def _too_many(name: str) -> Json:
    """Whether a guest has more than its share of conversations; each rule counts under a name of its own."""
    count = {"ct count": {"val": MOST_TALKS, "inv": True}}
    return {"meter": {"name": name, "key": _payload("ip", "saddr"), "stmt": count}}


def _too_often(name: str) -> Json:
    """Whether more comes by a guest's port than anybody needs."""
    rate = {"limit": {"rate": MOST_ASKING, "per": "second", "burst": 2 * MOST_ASKING, "inv": True}}
    return {"meter": {"name": name, "key": {"meta": {"key": "iifname"}}, "stmt": rate}}


def _asks(hardware: Json, comparison: str = "==") -> Json:
    return _compare({"concat": [{"meta": {"key": "iifname"}}, hardware]}, f"@{ASKING}", comparison)


def _belongs(hardware: Json, address: Json) -> Json:
    return _compare({"concat": [{"meta": {"key": "iifname"}}, hardware, address]}, f"@{GUESTS}")


def _reserved(address: Json) -> Json:
    return {"&": [address, "ff:ff:ff:ff:ff:f0"]}


GUESTS = "guests"
"""The set of those who may send: port, hardware address and IPv4 address, together."""
ASKING = "asking"
"""The set of those who may ask for their address: port and hardware address, together."""
RESERVED = "01:80:c2:00:00:00"
"""The first of the group addresses 01:80:c2:00:00:00 to 0f (IEEE 802.1D, 7.12.6)."""
DHCP_SERVER, DHCP_CLIENT = 67, 68
NOBODY, EVERYBODY = "0.0.0.0", "255.255.255.255"  # noqa: S104, no address to listen at
NO_ADDRESS = (("saddr", NOBODY), ("daddr", EVERYBODY))
TO_SERVER = _compare(_payload("udp", "dport"), DHCP_SERVER)
FROM_CLIENT = _compare(_payload("udp", "sport"), DHCP_CLIENT)
MOST_ASKING = 10
"""How often in a second a guest may ask for its address; a start takes two questions."""
ROUTE_ADVICE: Json = {"set": ["redirect", "router-advertisement"]}
ACCEPT: Json = {"accept": None}
DROP: Json = {"drop": None}
MOST_TALKS = 4096
"""How many conversations a guest may have; a desktop has some hundreds. The kernel's table holds 65536 where
memory is short, else 262144."""
BEGINNING = _compare({"ct": {"key": "state"}}, ["new"], "in")
ANSWERS = _compare({"ct": {"key": "state"}}, ["established", "related"], "in")
