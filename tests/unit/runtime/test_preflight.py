"""What stands against the guests' network on a host that has networks already."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest

from appliance.runtime.bridge import BridgeSpec, Surroundings
from appliance.runtime.preflight import objections

OURS = BridgeSpec(name="qvdnet", address=IPv4Interface("10.44.0.1/24"))
HERE = Surroundings(
    addresses=(("eth0", IPv4Interface("192.0.2.5/24")), ("qvdnet", IPv4Interface("10.44.0.1/24"))),
    routes=(
        ("eth0", IPv4Network("0.0.0.0/0")),
        ("eth0", IPv4Network("192.0.2.0/24")),
        ("qvdnet", IPv4Network("10.44.0.0/24")),
        ("tun0", IPv4Network("0.0.0.0/1")),
        ("tun0", IPv4Network("128.0.0.0/1")),
    ),
    bridges={"qvdnet": OURS.mac, "br0": "54:00:00:00:00:01"},
    ports=(("qvd1", "qvdnet"), ("eth1", "br0")),
)


def told(seen: Surroundings, prefix: str = "qvd") -> list[str]:
    return [objection.message for objection in objections(OURS, prefix, seen)]


def test_nothing_stands_against_a_network_of_its_own() -> None:
    assert told(HERE) == []


@pytest.mark.parametrize("address", ["10.44.0.200/24", "10.44.0.9/32", "10.1.2.3/8", "10.44.0.130/25"])
def test_an_address_of_another_link_is_in_the_way(address: str) -> None:
    seen = replace(HERE, addresses=(*HERE.addresses, ("eth1", IPv4Interface(address))))
    assert told(seen) == [f"the guests' network 10.44.0.0/24 overlaps {address} of eth1"]


@pytest.mark.parametrize("route", ["10.44.0.0/24", "10.0.0.0/8", "10.44.0.128/25", "0.0.0.0/2"])
def test_a_route_by_another_link_is_in_the_way(route: str) -> None:
    seen = replace(HERE, routes=(*HERE.routes, ("tun0", IPv4Network(route))))
    assert told(seen) == [f"the guests' network 10.44.0.0/24 overlaps the route to {route} by tun0"]


def test_an_address_and_its_own_route_are_told_once() -> None:
    seen = replace(
        HERE,
        addresses=(("eth1", IPv4Interface("10.44.0.9/16")),),
        routes=(("eth1", IPv4Network("10.44.0.0/16")),),
    )
    assert told(seen) == ["the guests' network 10.44.0.0/24 overlaps 10.44.0.9/16 of eth1"]


def test_a_bridge_of_ours_by_another_name_may_be_removed() -> None:
    (objection,) = objections(replace(OURS, name="qvdbr"), "desk", replace(HERE, routes=()))
    assert objection.hint.endswith("ip link del qvdnet")


def test_somebody_elses_bridge_is_not_taken_over() -> None:
    seen = replace(HERE, bridges={"qvdnet": "54:00:00:00:00:01"})
    assert told(seen) == ["there is a bridge qvdnet that this program has not made"]


def test_a_link_that_is_named_like_a_guests_is_told() -> None:
    seen = replace(HERE, ports=(*HERE.ports, ("qvd7", "br0")))
    assert told(seen) == ["qvd7 is a port of br0, and its name begins like those of guests' links"]
    assert told(seen, prefix="desk") == []
