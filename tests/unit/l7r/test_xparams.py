"""What a VMA is told."""

from __future__ import annotations

import pytest

from appliance.l7r.xparams import EXPECTED, EXTRA_ARGS, fresh_slave_key, safe_extra_args, x_parameters
from appliance.model import Secret, User, UserId

ALICE = User(id=UserId(1), login="alice", uid=20001, gid=20001, enabled=True)
KEY = Secret("K" * 64)


def test_all_five_are_there_even_if_empty() -> None:
    params = x_parameters({"qvd.client.os": "linux"}, {}, ALICE, KEY)
    assert params == {
        "qvd.client.keyboard": "",
        "qvd.client.os": "linux",
        "qvd.client.link": "",
        "qvd.client.geometry": "",
        "qvd.client.fullscreen": "",
        "qvd.vm.user.name": "alice",
        "qvd.vm.user.uid": "20001",
        "qvd.vm.user.gid": "20001",
        "qvd.slave.key": "K" * 64,
    }


def test_properties_overrule_the_client_and_identity_overrules_properties() -> None:
    properties = {"qvd.client.link": "lan", "qvd.vm.user.groups": "video", "qvd.vm.user.uid": "0"}
    params = x_parameters({"qvd.client.link": "modem"}, properties, ALICE, KEY)
    assert params["qvd.client.link"] == "lan"
    assert params["qvd.vm.user.groups"] == "video"
    assert params["qvd.vm.user.uid"] == "20001"


def test_a_client_sets_harmless_nx_options_only() -> None:
    written = "pack=16m-jpeg-9,listen=22,root=/etc,clipboard=both,cache=8m,images=a:b"
    assert safe_extra_args(written) == (
        "pack=16m-jpeg-9,cache=8m",
        ("listen=22", "root=/etc", "clipboard=both", "images=a:b"),
    )
    assert x_parameters({EXTRA_ARGS: written}, {}, ALICE, KEY)[EXTRA_ARGS] == "pack=16m-jpeg-9,cache=8m"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("pc105/us,ru", "pc105/us"),
        ("1024x768,clipboard=both", "1024x768"),
        ("lan:100", "lan"),
        ("linux\nx", "linux"),
        (",listen=22", ""),
        ("", ""),
    ],
)
def test_no_option_passes_under_the_name_of_a_value(written: str, sent: str) -> None:
    params = x_parameters(dict.fromkeys(EXPECTED, written), {}, ALICE, KEY)
    assert {params[name] for name in EXPECTED} == {sent}


def test_an_administrator_sets_any() -> None:
    assert x_parameters({}, {EXTRA_ARGS: "clipboard=none"}, ALICE, KEY)[EXTRA_ARGS] == "clipboard=none"


def test_slave_keys_are_fresh_and_plain() -> None:
    keys = {fresh_slave_key().reveal() for _ in range(50)}
    assert len(keys) == 50
    assert all(len(key) == 64 and key.isalnum() and key.isascii() for key in keys)
