"""The rules, compared with the expected transaction."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

from appliance.config import Settings
from appliance.model import VmId
from appliance.runtime import ruleset
from tests.support.machines import GUEST

GOLDEN = Path(__file__).parents[2] / "golden"
SETTINGS = Settings(
    {
        "vm.network.gateway": "10.44.0.1",
        "vm.network.netmask": "255.255.255.0",
        "vm.network.dns_server": "10.44.0.1",
    }
)
SPEC = ruleset.spec(SETTINGS)
MACHINE = replace(
    GUEST,
    mark=replace(GUEST.mark, vm_id=VmId(8)),
    address=IPv4Interface("10.44.0.8/24"),
    mac="54:52:00:2c:00:08",
    interface="qvd8",
    asks_dhcp=True,
)


def test_the_ruleset_is_the_expected_one() -> None:
    expected = json.loads((GOLDEN / "ruleset.json").read_text())
    assert ruleset.render(SPEC, [GUEST, MACHINE]) == expected


def test_the_tables_of_before_go_in_the_same_transaction() -> None:
    tables = ruleset.removal(SPEC)["nftables"]
    assert ruleset.render(SPEC, [])["nftables"][: len(tables)] == tables
    assert [next(iter(command)) for command in tables] == ["add", "delete", "add", "delete"]


def test_only_our_own_tables_are_named() -> None:
    text = json.dumps(ruleset.render(SPEC, [GUEST]))
    assert "flush" not in text
    for command in ruleset.render(SPEC, [GUEST])["nftables"]:
        ((_, objects),) = command.items()
        ((kind, body),) = objects.items()
        assert body["name" if kind == "table" else "table"] == "qvd_qvdnet"


def test_an_empty_set_of_guests_has_no_elements() -> None:
    assert "elem" not in json.dumps(ruleset.render(SPEC, []))


def asking(transaction: ruleset.Json) -> list[object]:
    """Who may ask for its address."""
    bodies = [body for command in transaction["nftables"] for body in command.get("add", {}).values()]
    return [body.get("elem") for body in bodies if body.get("name") == "asking"]


def test_who_knows_its_address_may_not_ask_for_it() -> None:
    mine = [{"concat": ["qvd8", "54:52:00:2c:00:08"]}]
    assert asking(ruleset.render(SPEC, [GUEST, MACHINE])) == [mine]
    assert asking(ruleset.members(SPEC, [GUEST, MACHINE])) == [mine]
    assert asking(ruleset.render(SPEC, [GUEST])) == [None]


def test_nobody_asks_where_no_addresses_are_told() -> None:
    spec = ruleset.spec(
        Settings(
            {
                "vm.network.gateway": "10.44.0.1",
                "vm.network.netmask": "24",
                "vm.network.use_dhcp": "0",
            }
        )
    )
    for transaction in (ruleset.render(spec, [MACHINE]), ruleset.members(spec, [MACHINE])):
        assert "asking" not in json.dumps(transaction)
    assert '"0.0.0.0"' not in json.dumps(ruleset.render(spec, [MACHINE]))


def test_a_change_of_members_empties_each_set_first() -> None:
    commands = ruleset.members(SPEC, [])["nftables"]
    assert [command["flush"]["set"]["name"] for command in commands] == ["guests", "asking"]


def test_names_are_answered_only_if_this_host_is_the_resolver() -> None:
    names = '"right": 53'
    elsewhere = replace(SPEC, answers_dns=False)
    assert names in json.dumps(ruleset.render(SPEC, []))
    assert names not in json.dumps(ruleset.render(elsewhere, []))
    other = Settings(
        {
            "vm.network.gateway": "10.44.0.1",
            "vm.network.netmask": "24",
            "vm.network.dns_server": "9.9.9.9",
        }
    )
    assert not ruleset.spec(other).answers_dns


def test_the_way_out_may_be_one_link() -> None:
    rules = json.dumps(ruleset.render(replace(SPEC, nat_link="eth0"), []))
    assert '{"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "eth0"}' in rules
