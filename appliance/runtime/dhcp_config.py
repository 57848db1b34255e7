"""How dnsmasq is called, and what it reads: settings and guests -> text. Nothing here performs I/O.

- It tells guests their addresses on the guests' bridge and nowhere else, and to nobody whom it does not know.
- An address is given for ever: a guest outlives the daemon, and with it dnsmasq, by any time. So no lease
  has to be remembered either; whoever asks again after a restart gets the same answer, and who has become
  unknown is told so at once (`--dhcp-authoritative`).
- A guest's name comes from here; one that it calls itself is ignored, as it might be another's. It is
  answered for from a file of names, as no lease is remembered, and who has one for ever never asks again.
- Addresses and names are the only files that are read again on SIGHUP. (dnsmasq 2.90 aborts if it has an
  options file to read again.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from appliance import config
from appliance.config import Settings
from appliance.runtime.backend import GuestSpec

PROGRAM = "dnsmasq"
DNS, DHCP_SERVER = 53, 67
MOST_LEASES = 50_000
NO_NAME = re.compile(r"ignore|infinite|\d+[smhdw]?", re.IGNORECASE)
"""Names of VMs that mean something else in a line of the hosts file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpSpec:
    """What guests are told."""

    bridge: str
    network: IPv4Network
    first: IPv4Address
    gateway: IPv4Address
    resolver: str | None
    domain: str | None

    @property
    def names_here(self) -> bool:
        """Whether guests are told to ask the gateway for names."""
        return self.resolver == str(self.gateway)


def spec(settings: Settings) -> DhcpSpec:
    """What the settings in force say."""
    gateway = settings[config.NETWORK_GATEWAY]
    return DhcpSpec(
        bridge=settings[config.NETWORK_BRIDGE],
        network=IPv4Network(f"{gateway}/{settings[config.NETWORK_NETMASK]}", strict=False),
        first=settings[config.NETWORK_IP_START],
        gateway=gateway,
        resolver=settings[config.NETWORK_DNS],
        domain=settings[config.NETWORK_DOMAIN],
    )


def arguments(spec: DhcpSpec, hosts: Path, names: Path | None) -> list[str]:
    """The words of the command: it tells addresses by the file `hosts`.

    With `names` it also answers for the names in that file, and for others as the host's own resolvers do.
    """
    return [
        PROGRAM,
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=",
        "--group=",
        "--log-facility=-",
        "--quiet-dhcp",
        f"--interface={spec.bridge}",
        "--except-interface=lo",
        "--bind-interfaces",
        *([f"--port={DNS}", f"--addn-hosts={names}"] if names else ["--port=0"]),
        "--no-hosts",
        f"--dhcp-range={spec.first},static,{spec.network.netmask}",
        f"--dhcp-option=option:router,{spec.gateway}",
        f"--dhcp-option=option:dns-server{f',{spec.resolver}' if spec.resolver else ''}",
        *([f"--domain={spec.domain}", "--expand-hosts"] if spec.domain else []),
        f"--dhcp-hostsfile={hosts}",
        f"--dhcp-lease-max={MOST_LEASES}",
        "--dhcp-authoritative",
        "--dhcp-ignore-names",
        "--leasefile-ro",
        "--no-ping",
    ]


def hosts_text(guests: Iterable[GuestSpec]) -> str:
    """Who is told which address: a line for each guest that asks, in the order of their numbers."""
    return "".join(f"{_line(guest)}\n" for guest in _asking(guests))


def names_text(guests: Iterable[GuestSpec]) -> str:
    """The names of the guests that ask, as hosts(5) has them."""
    return "".join(f"{guest.address.ip} {guest.hostname}\n" for guest in _asking(guests))


def _asking(guests: Iterable[GuestSpec]) -> list[GuestSpec]:
    return sorted((guest for guest in guests if guest.asks_dhcp), key=lambda guest: guest.vm_id)


def _line(guest: GuestSpec) -> str:
    name = [] if NO_NAME.fullmatch(guest.hostname) else [guest.hostname]
    return ",".join([guest.mac, str(guest.address.ip), *name, "infinite"])
