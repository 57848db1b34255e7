"""Which desktop the client takes, and which exit status a refusal has."""

from __future__ import annotations

import json

import pytest

from appliance.client.choice import as_json, as_table, choose, list_refusal, refusal
from appliance.client.failures import ChoiceError, DesktopError
from appliance.client.wire import Desktop, Reply
from appliance.model import VmId


def desktop(vm_id: int, name: str, *, blocked: bool = False) -> Desktop:
    return Desktop(VmId(vm_id), name, "stopped", blocked)


ONE = desktop(7, "alice-1")
TWO = desktop(8, "alice-2")
BLOCKED = desktop(9, "alice-3", blocked=True)
MISLEADING = desktop(10, "7")


@pytest.mark.parametrize(
    ("found", "wanted", "take_first", "expected"),
    [
        ([ONE], None, False, ONE),
        ([ONE, TWO], "alice-2", False, TWO),
        ([ONE, TWO], "8", False, TWO),
        ([ONE, MISLEADING], "7", False, MISLEADING),
        ([ONE, TWO], None, True, ONE),
        ([BLOCKED, TWO], None, True, TWO),
    ],
)
def test_choice(found: list[Desktop], wanted: str | None, take_first: bool, expected: Desktop) -> None:
    assert choose(found, wanted, take_first=take_first) == expected


@pytest.mark.parametrize(
    ("found", "wanted", "take_first", "says"),
    [
        ([], None, False, "no desktop on this server"),
        ([], None, True, "no desktop on this server"),
        ([ONE, TWO], "bob-1", False, "yours: alice-1, alice-2"),
        ([BLOCKED], None, False, "alice-3 is blocked"),
        ([BLOCKED], None, True, "alice-3 is blocked"),
        ([ONE, BLOCKED], "9", False, "alice-3 is blocked"),
    ],
)
def test_no_choice(found: list[Desktop], wanted: str | None, take_first: bool, says: str) -> None:
    with pytest.raises(DesktopError, match=says):
        choose(found, wanted, take_first=take_first)


def test_several_desktops_need_a_word() -> None:
    with pytest.raises(ChoiceError, match=r"alice-1 \(7\), alice-2 \(8\)"):
        choose([ONE, TWO], None, take_first=False)


@pytest.mark.parametrize(
    ("status", "exit_status"),
    [(401, 3), (403, 4), (404, 4), (400, 5), (408, 5), (422, 5), (426, 5), (500, 5), (503, 5), (505, 5)],
)
def test_refusals_have_their_exit_status(status: int, exit_status: int) -> None:
    assert refusal(Reply(status, b"because\r\n")).exit_status == exit_status


def test_a_refusal_tells_the_servers_reason() -> None:
    assert "no host is free" in str(refusal(Reply(503, b"no host is free\r\nand more")))


@pytest.mark.parametrize(("status", "exit_status"), [(401, 3), (403, 5), (404, 5), (503, 5)])
def test_a_refused_list_says_nothing_of_desktops(status: int, exit_status: int) -> None:
    assert list_refusal(Reply(status, b"")).exit_status == exit_status


def test_table() -> None:
    assert as_table([ONE, BLOCKED]).splitlines() == [
        "ID  NAME     STATE    BLOCKED",
        "7   alice-1  stopped  no",
        "9   alice-3  stopped  yes",
    ]


def test_json() -> None:
    assert json.loads(as_json([BLOCKED])) == [
        {"id": 9, "name": "alice-3", "state": "stopped", "blocked": True}
    ]
