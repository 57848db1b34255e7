"""The client's dialect of HTTP: what it writes, and that it reads replies however they are split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.client.failures import ConnectionFailedError
from appliance.client.wire import (
    Credentials,
    Desktop,
    Event,
    Progress,
    Reply,
    ReplyReader,
    Switched,
    connect_request,
    desktops,
    list_request,
)
from appliance.model import Secret, VmId

ALICE = Credentials("alice", Secret("s3cr3t"))

CONNECT_REPLIES = (
    b"HTTP/1.1 102 Processing\r\nX-QVD-VM-Info: booting\r\n\r\n"
    b"HTTP/1.1 102 Processing\r\nX-QVD-VM-Info: starting X\r\n\r\n"
    b"HTTP/1.1 101 Switching Protocols\r\nX-QVD-Slave-Key: abc\r\n\r\n"
    b"NXPROXY-3.5.0-3.5.0 "
)


def read(*parts: bytes) -> list[Event]:
    reader = ReplyReader()
    return [event for part in parts for event in reader.feed(part)]


def test_list_request_is_that_of_the_perl_client() -> None:
    assert list_request(ALICE) == (
        b"GET /qvd/list_of_vm? HTTP/1.1\r\n"
        b"Authorization: Basic YWxpY2U6czNjcjN0\r\n"
        b"Accept: application/json\r\n"
        b"User-Agent: qvd-client (linux)\r\n\r\n"
    )


def test_connect_request_escapes_values_and_asks_for_the_switch() -> None:
    request = connect_request(ALICE, VmId(7), {"qvd.client.keyboard": "pc105/es", "qvd.client.os": "linux"})
    line, *headers = request.split(b"\r\n")
    assert line == (
        b"GET /qvd/connect_to_vm?id=7&qvd.client.keyboard=pc105%2Fes&qvd.client.os=linux HTTP/1.1"
    )
    assert {b"Connection: Upgrade", b"Upgrade: QVD/1.0"} <= set(headers)


def test_a_password_may_hold_any_character() -> None:
    assert Credentials("a", Secret("ü:ñ")).header() == "Basic YTrDvDrDsQ=="


def test_credentials_do_not_show_their_password() -> None:
    assert "s3cr3t" not in repr(ALICE)


def test_bytes_behind_the_switch_are_kept() -> None:
    assert read(CONNECT_REPLIES) == [
        Progress("booting"),
        Progress("starting X"),
        Switched(Secret("abc"), b"NXPROXY-3.5.0-3.5.0 "),
    ]


def test_a_refusal_may_follow_progress() -> None:
    refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\nno host\n"
    assert read(CONNECT_REPLIES.partition(b"HTTP/1.1 101")[0] + refused) == [
        Progress("booting"),
        Progress("starting X"),
        Reply(503, b"no host\n"),
    ]


def test_line_feeds_alone_end_lines_too() -> None:
    assert read(b"HTTP/1.1 401 Unauthorized\ncontent-length: 2\n\nno") == [Reply(401, b"no")]


def test_a_reply_without_length_has_no_body() -> None:
    assert read(b"HTTP/1.1 200 OK\r\n\r\n") == [Reply(200, b"")]


def test_two_replies_on_one_connection() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    assert read(ok[:20], ok[20:] + ok) == [Reply(200, b"[]")] * 2


def test_progress_cannot_drive_the_terminal() -> None:
    events = read(b"HTTP/1.1 102 Processing\r\nX-QVD-VM-Info: \x1b[2Jgone\r\n\r\n")
    assert events == [Progress("?[2Jgone")]


@given(st.lists(st.integers(0, len(CONNECT_REPLIES))))
def test_any_split_gives_the_same_events(cuts: list[int]) -> None:
    last_head = CONNECT_REPLIES.index(b"NXPROXY")
    edges = [0, *sorted(cut for cut in cuts if cut <= last_head), last_head]
    parts = [CONNECT_REPLIES[a:b] for a, b in itertools.pairwise(edges)]
    assert read(*parts) == [Progress("booting"), Progress("starting X"), Switched(Secret("abc"), b"")]


@given(st.binary(max_size=300))
def test_garbage_is_waited_for_or_refused(garbage: bytes) -> None:
    try:
        read(garbage)
    except ConnectionFailedError:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 12_000,
    ],
)
def test_what_is_no_qvd_server_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ConnectionFailedError):
        read(data)


def test_the_list_becomes_desktops() -> None:
    body = b'[{"id": 7, "state": "running", "name": "vm7", "blocked": 1, "is_application": 0}]'
    assert desktops(body) == [Desktop(VmId(7), "vm7", "running", blocked=True)]


@pytest.mark.parametrize("body", [b"", b"{}x", b"[7]", b'[{"id": 7}]', b'[{"id": "x", "name": "n"}]', b"7"])
def test_a_list_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(ConnectionFailedError):
        desktops(body)
