"""The guests' network against what a real network namespace is connected to."""

from __future__ import annotations

import pytest

from appliance.config import Settings
from appliance.errors import NetworkError
from appliance.runtime import bridge, preflight
from tests.support.lxc_rig import NETWORK
from tests.support.machines_on_wire import Machine

pytestmark = pytest.mark.host

SETTINGS = Settings(NETWORK)
HOST = Machine(None)


@pytest.fixture(autouse=True)
def lan(network: str) -> None:
    """A host with a LAN and a way out."""
    HOST.configure("link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    for link in ("lan0", "lan1"):
        HOST.configure("link", "set", link, "up")
    HOST.configure("address", "add", "192.0.2.5/24", "dev", "lan0")
    HOST.configure("route", "add", "default", "via", "192.0.2.1")


async def test_a_bridge_of_ours_is_in_nobodys_way() -> None:
    for _ in range(2):
        await preflight.check(SETTINGS)
        await bridge.converge(bridge.spec(SETTINGS))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("address add 10.44.0.77/16 dev lan0", r"10.44.0.0/24 overlaps 10.44.0.77/16 of lan0"),
        ("route add 10.44.0.0/23 via 192.0.2.9", r"overlaps the route to 10.44.0.0/23 by lan0"),
        ("route add 10.0.0.0/8 via 192.0.2.9 table 77", r"overlaps the route to 10.0.0.0/8 by lan0"),
        (
            "route add 10.44.0.0/24 nexthop via 192.0.2.8 nexthop via 192.0.2.9",
            r"overlaps the route to 10.44.0.0/24 by lan0",
        ),
    ],
)
async def test_what_is_in_the_way_is_named(words: str, reason: str) -> None:
    HOST.configure(*words.split())
    with pytest.raises(NetworkError, match=reason) as refusal:
        await preflight.check(SETTINGS)
    assert "another range" in str(refusal.value)
    assert not await bridge.exists("qvdnet")


@pytest.mark.parametrize(
    "words",
    [
        "route add blackhole 10.0.0.0/8",
        "route add 0.0.0.0/1 via 192.0.2.9",
        "route add 10.45.0.0/16 dev lan0",
    ],
)
async def test_what_is_not_in_the_way_is_let_be(words: str) -> None:
    HOST.configure(*words.split())
    await preflight.check(SETTINGS)


async def test_somebody_elses_bridge_is_refused() -> None:
    HOST.configure("link", "add", "qvdnet", "type", "bridge")
    with pytest.raises(NetworkError, match="a bridge qvdnet that this program has not made"):
        await preflight.check(SETTINGS)
