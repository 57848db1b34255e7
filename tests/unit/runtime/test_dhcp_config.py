"""How dnsmasq is called under which settings, and what it reads."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from appliance.config import Settings
from appliance.model import VmId
from appliance.runtime import dhcp_config
from tests.support.machines import GUEST

NETWORK = {
    "vm.network.gateway": "10.44.0.1",
    "vm.network.netmask": "22",
    "vm.network.ip.start": "10.44.0.100",
    "vm.network.bridge": "desks",
}
HOSTS, NAMES = Path("/run/qvd/dhcp-hostsfile"), Path("/run/qvd/dhcp-names")
ASKING = replace(GUEST, asks_dhcp=True)


def words(*, names: bool = False, **settings: str) -> list[str]:
    written = NETWORK | {f"vm.network.{name}": value for name, value in settings.items()}
    return dhcp_config.arguments(dhcp_config.spec(Settings(written)), HOSTS, NAMES if names else None)


def test_it_serves_the_guests_bridge_and_network_only() -> None:
    said = words()
    assert said[0] == "dnsmasq"
    assert {"--interface=desks", "--bind-interfaces", "--except-interface=lo", "--conf-file=/dev/null"} < {
        *said
    }
    assert "--dhcp-range=10.44.0.100,static,255.255.252.0" in said
    assert "--dhcp-option=option:router,10.44.0.1" in said
    assert f"--dhcp-hostsfile={HOSTS}" in said


def test_nothing_that_guests_are_called_by_themselves_counts() -> None:
    assert {"--dhcp-ignore-names", "--no-hosts"} < {*words()}


def test_it_reads_nothing_again_on_which_it_aborts() -> None:
    assert not [word for word in words() if "optsfile" in word]


@pytest.mark.parametrize(
    ("resolver", "told"),
    [
        ("", "option:dns-server"),
        ("10.44.0.1", "option:dns-server,10.44.0.1"),
        ("9.9.9.9", "option:dns-server,9.9.9.9"),
    ],
)
def test_the_resolver_of_the_settings_is_told_and_no_other(resolver: str, told: str) -> None:
    assert [word for word in words(dns_server=resolver) if "dns-server" in word] == [f"--dhcp-option={told}"]


def test_names_are_for_guests_that_are_told_to_ask_the_gateway() -> None:
    for resolver, here in (("", False), ("9.9.9.9", False), ("10.44.0.1", True)):
        settings = Settings({**NETWORK, "vm.network.dns_server": resolver})
        assert dhcp_config.spec(settings).names_here is here
    assert "--port=0" in words()
    assert {"--port=53", f"--addn-hosts={NAMES}"} < {*words(names=True)}


def test_a_domain_is_told_if_there_is_one() -> None:
    assert {"--domain=desks.example", "--expand-hosts"} < {*words(domain="desks.example")}
    assert not [word for word in words() if "domain" in word]


def test_each_guest_that_asks_has_a_line() -> None:
    other = replace(
        ASKING,
        mark=replace(GUEST.mark, vm_id=VmId(3)),
        hostname="desk3",
        mac="54:52:00:2c:00:03",
        address=IPv4Interface("10.44.0.3/24"),
    )
    silent = replace(GUEST, mark=replace(GUEST.mark, vm_id=VmId(1)))
    assert dhcp_config.hosts_text([ASKING, silent, other]) == (
        "54:52:00:2c:00:03,10.44.0.3,desk3,infinite\n54:52:00:2c:00:07,10.44.0.7,desk7,infinite\n"
    )
    assert dhcp_config.names_text([ASKING, silent, other]) == "10.44.0.3 desk3\n10.44.0.7 desk7\n"
    assert dhcp_config.hosts_text([silent]) == dhcp_config.names_text([silent]) == ""


@pytest.mark.parametrize("name", ["ignore", "Infinite", "7", "10m", "2H"])
def test_a_name_that_would_mean_something_else_is_left_out(name: str) -> None:
    line = dhcp_config.hosts_text([replace(ASKING, hostname=name)])
    assert line == "54:52:00:2c:00:07,10.44.0.7,infinite\n"
