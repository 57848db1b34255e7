"""From requests to calls."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from appliance.errors import ProtocolError
from appliance.l7r.calls import (
    ConnectToVm,
    ListOfVm,
    Ping,
    StopVm,
    list_body,
    parse_call,
    parse_credentials,
    parse_query,
)
from appliance.l7r.wire import Request
from appliance.model import UserState, VmCmd, VmState
from appliance.runtime.machine import Phase
from tests.support.machines import machine
from tests.support.rows import vm_row

UPGRADE = {"connection": "Upgrade", "upgrade": "QVD/1.0"}


def request(path: str, query: str = "", method: str = "GET", **headers: str) -> Request:
    return Request(method, path, query, headers)


def basic(pair: bytes) -> str:
    return "Basic " + base64.b64encode(pair).decode()


def test_the_endpoints() -> None:
    assert parse_call(request("/qvd/ping")) == Ping()
    assert parse_call(request("/qvd/list_of_vm", "file_name=x")) == ListOfVm()
    assert parse_call(request("/qvd/stop_vm", "id=7")) == StopVm({"id": "7"})
    assert parse_call(request("/qvd/connect_to_vm", "id=7", **UPGRADE)) == ConnectToVm({"id": "7"}, True)


@pytest.mark.parametrize("path", ["/qvd/ping/", "/", "/qvd/authenticate_user", "/qvd/create_auth_token"])
def test_other_paths_do_not_exist(path: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_call(request(path))
    assert caught.value.status == 404


def test_only_get_exists() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_call(request("/qvd/ping", method="POST"))
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "", 426),
        ({"connection": "upgrade", "upgrade": "QVD/1.0"}, "id=7", 426),
        (UPGRADE, "", 422),
        (UPGRADE, "id=&evil=1", 422),
        (UPGRADE, "id=seven", 422),
        (UPGRADE, "id=" + "9" * 40, 422),
        (UPGRADE, "id=7&evil=1", 403),
        (UPGRADE, "id=7&qvd.vm.user.name=root", 403),
    ],
)
def test_the_order_of_refusals(headers: dict[str, str], query: str, expected: int) -> None:
    call = parse_call(request("/qvd/connect_to_vm", query, **headers))
    assert isinstance(call, ConnectToVm)
    with pytest.raises(ProtocolError) as caught:
        call.target()
    assert caught.value.status == expected


def test_parameters_are_forwarded_without_our_own() -> None:
    call = ConnectToVm(parse_query("id=7&file_name=x&qvd.client.keyboard=pc105%2Fes&custom.a="), True)
    assert call.target() == (7, {"qvd.client.keyboard": "pc105/es", "custom.a": ""})


def test_queries() -> None:
    assert parse_query("a=1&a=2&b&c=x+y%20z=&&") == {"a": "2", "b": "", "c": "x y z="}
    assert parse_query("\u00c3\u00a9=%E9") == {"\u00e9": "\u00e9"}


def test_credentials() -> None:
    found = parse_credentials(basic(b"alice@acme:pass:word"))
    assert found is not None
    assert (found.login, found.password.reveal()) == ("alice@acme", "pass:word")
    assert "word" not in repr(found).replace("password", "")


@pytest.mark.parametrize(
    "header", [None, "", "Basic", "Basic !!", basic(b"nocolon"), basic(b" :x"), "basic YTpi", "Bearer YTpi"]
)
def test_no_credentials(header: str | None) -> None:
    assert parse_credentials(header) is None


def test_the_list_has_integers_and_ascii_only() -> None:
    body = list_body([replace(vm_row(machine(Phase.STOPPED)), name="caf\u00e9")])
    assert json.loads(body) == [
        {
            "id": 7,
            "name": "caf\u00e9",
            "state": "stopped",
            "blocked": 0,
            "is_application": 0,
            "presence": 0,
        }
    ]
    assert b"true" not in body
    assert b"false" not in body
    assert body.isascii()


@pytest.mark.parametrize(
    ("state", "cmd", "restart", "returns"),
    [
        (VmState.RUNNING, None, False, 0),
        (VmState.RUNNING, VmCmd.STOP, False, 0),
        (VmState.RUNNING, VmCmd.STOP, True, 1),
        (VmState.STOPPING, None, False, 0),
        (VmState.STOPPING, None, True, 1),
        (VmState.STOPPED, VmCmd.START, False, 1),
        (VmState.STOPPED, None, False, 0),
        (VmState.STARTING, None, False, 1),
    ],
)
def test_the_list_tells_which_desktops_come_back(
    state: VmState, cmd: VmCmd | None, restart: bool, returns: int
) -> None:
    vm = vm_row(machine(Phase.STOPPED))
    runtime = replace(
        vm.runtime, vm_state=state, vm_cmd=cmd, restart=restart, user_state=UserState.CONNECTING
    )
    (line,) = json.loads(list_body([replace(vm, runtime=runtime)]))
    assert line["presence"] == 2 + returns
