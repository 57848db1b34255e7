"""The dialect, point by point (protocol.md 1.2)."""

from __future__ import annotations

import pytest

from appliance.errors import ProtocolError
from appliance.l7r.wire import MAX_HEADERS, MAX_LINE, ClientWire, Request
from appliance.model import Secret


def one(data: bytes) -> Request:
    (request,) = ClientWire().feed(data)
    return request


def status(data: bytes) -> int:
    with pytest.raises(ProtocolError) as caught:
        list(ClientWire().feed(data))
    return caught.value.status


def test_a_request_without_host_and_with_bare_line_feeds() -> None:
    request = one(b"GET /qvd/connect_to_vm?id=7 HTTP/1.1\nConnection: Upgrade\n\n")
    assert (request.method, request.path, request.query) == ("GET", "/qvd/connect_to_vm", "id=7")
    assert request.headers == {"connection": "Upgrade"}


def test_raw_blanks_belong_to_the_url() -> None:
    assert one(b"GET /qvd/x?a=b c  d HTTP/1.1\r\n\r\n").query == "a=b c  d"


def test_a_dangling_question_mark_is_an_empty_query() -> None:
    request = one(b"GET /qvd/list_of_vm? HTTP/1.1\r\n\r\n")
    assert (request.path, request.query) == ("/qvd/list_of_vm", "")


def test_blank_lines_before_a_request_are_skipped() -> None:
    assert one(b"\r\n\n\r\nGET / HTTP/1.1\r\n\r\n").path == "/"


@pytest.mark.timeout(10)  # a parser that copies what follows each line takes minutes
@pytest.mark.parametrize("flood", [b"\n", b" \r\n", b"GET / HTTP/1.1\n\n"])
def test_a_flood_costs_no_more_than_its_length(flood: bytes) -> None:
    size = 4 * 1024 * 1024
    assert len(list(ClientWire().feed(flood * (size // len(flood))))) in (0, size // len(flood))


def test_header_names_in_any_case_and_the_first_of_a_repeated_one_wins() -> None:
    assert one(b"GET / HTTP/1.1\nAUTHORIZATION: a\nauthorization: b\n\n").headers == {"authorization": "a"}


def test_a_folded_header_continues_the_one_before() -> None:
    assert one(b"GET / HTTP/1.1\nAccept: a,\n\t b\n\n").headers == {"accept": "a, b"}


def test_requests_in_a_row_and_what_follows_them() -> None:
    wire = ClientWire()
    requests = list(wire.feed(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nNXPROXY-3.5.0"))
    assert [request.path for request in requests] == ["/1", "/2"]
    assert wire.leftover() == b"NXPROXY-3.5.0"
    assert wire.leftover() == b""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET / HTTP/1.0\r\n", 505),
        (b"GET / HTTP/2.0\r\n", 505),
        (b"GET /\r\n", 400),
        (b"GET\r\n", 400),
        (b"GET  HTTP/1.1\r\n", 400),
        (b"\x16\x03\x01\x00\xf4\x01\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n", 400),
        (b"GET / HTTP/1.1\r\n: no name\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded first\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 12\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"x" * MAX_LINE, 400),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1), 400),
    ],
)
def test_what_is_not_of_the_dialect(data: bytes, expected: int) -> None:
    assert status(data) == expected


def test_a_dead_wire_stays_dead() -> None:
    wire = ClientWire()
    with pytest.raises(ProtocolError):
        list(wire.feed(b"nonsense\n"))
    with pytest.raises(ProtocolError):
        list(wire.feed(b"GET / HTTP/1.1\r\n\r\n"))


def test_a_good_reply_is_one_portion() -> None:
    assert ClientWire().reply(200, b"[]", "application/json") == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
    )


def test_an_error_is_two_portions() -> None:
    head, body = ClientWire().refusal(401, "no")
    assert head == (
        b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="QVD"\r\n'
        b"Content-Type: text/plain\r\nContent-Length: 4\r\n\r\n"
    )
    assert body == b"no\r\n"


def test_interim_replies_have_neither_body_nor_length() -> None:
    assert (
        ClientWire().progress("one\r\nline") == b"HTTP/1.1 102 Processing\r\nX-QVD-VM-Info: one line\r\n\r\n"
    )
    assert (
        ClientWire().switch(Secret("k")) == b"HTTP/1.1 101 Switching Protocols\r\nX-QVD-Slave-Key: k\r\n\r\n"
    )


def test_a_request_does_not_show_its_headers() -> None:
    assert "c2VjcmV0" not in repr(one(b"GET / HTTP/1.1\nAuthorization: Basic YWxpY2U6c2VjcmV0\n\n"))
