"""Laws of the broker's wire: portions do not matter, and garbage is a ProtocolError or nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from appliance.errors import ProtocolError
from appliance.l7r.calls import parse_call, parse_credentials, parse_query
from appliance.l7r.wire import MAX_HEAD, MAX_LINE, REASONS, ClientWire, Request

WORDS = st.sampled_from(
    [
        b"GET /qvd/list_of_vm? HTTP/1.1",
        b"GET /qvd/connect_to_vm?id=7&qvd.client.os=a b HTTP/1.1",
        b"Authorization: Basic YWxpY2U6c2VjcmV0",
        b"Connection: Upgrade",
        b" folded",
        b"",
        b"nonsense",
        b"GET / HTTP/1.0",
        b"Content-Length: 3",
        b"\x16\x03\x01\x02\x00",
    ]
)
DIALECT = st.lists(st.tuples(WORDS, st.sampled_from([b"\r\n", b"\n"])), max_size=12).map(
    lambda lines: b"".join(word + end for word, end in lines)
)
CUTS = st.lists(st.integers(0, 400), max_size=8)


def heard(portions: Sequence[bytes]) -> list[Request | int]:
    """The requests in `portions`, and at the end the status of the failure, if there was one."""
    wire, found = ClientWire(), list[Request | int]()
    try:
        for portion in portions:
            found.extend(wire.feed(portion))
    except ProtocolError as exc:
        found.append(exc.status)
    return found


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(DIALECT | st.binary(max_size=400), CUTS)
def test_any_split_of_the_same_bytes_gives_the_same_events(data: bytes, places: list[int]) -> None:
    whole = heard([data])
    assert heard(cut(data, places)) == whole
    assert heard([data[i : i + 1] for i in range(len(data))]) == whole


@given(st.integers(MAX_LINE - 3, MAX_LINE + 3), st.booleans())
def test_the_limit_of_a_line_does_not_depend_on_the_split(length: int, ended: bool) -> None:
    data = b"G" * length + (b"\n" if ended else b"")
    assert heard([data]) == heard([data[:9], data[9:]]) == heard(cut(data, range(0, length, 1000)))


@given(st.binary())
def test_whatever_comes_becomes_requests_or_a_known_status(data: bytes) -> None:
    for event in heard([data]):
        assert isinstance(event, Request) or event in (400, 505)


@given(st.text())
@example("a=%zz&b=%")
@example("&&=&x")
def test_every_query_can_be_read(query: str) -> None:
    parse_query(query.encode("utf-8", "replace").decode("latin-1"))


@given(st.text())
@example("Basic =")
@example("Basic YWxpY2U=")
@example("Basic Z\u00fcrich")
def test_every_authorization_is_credentials_or_nothing(header: str) -> None:
    found = parse_credentials(header)
    assert found is None or (found.login.strip() and ":" not in found.login)


@given(st.builds(Request, st.text(), st.text(), st.text(), st.just({})))
def test_every_request_is_a_call_or_a_protocol_error(request: Request) -> None:
    failure: ProtocolError | None = None
    try:
        parse_call(request)
    except ProtocolError as exc:
        failure = exc
    assert failure is None or failure.status in REASONS


def test_a_head_without_end_is_given_up() -> None:
    line = b"X-Filler: " + b"x" * 1000 + b"\n"
    endless = b"GET /qvd/ping HTTP/1.1\n" + line * (MAX_HEAD // len(line) + 1)
    assert heard([endless]) == [400]
