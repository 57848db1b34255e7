"""Bytes of the RPC: any split gives the same, any garbage gives one kind of error, nothing is lost."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.vma import wire
from appliance.vma.wire import CallFailed, HeadError, Reply, ReplyError, ReplyParser, RequestParser


def portions(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.dictionaries(st.text(min_size=1), st.text()), st.lists(st.integers(0, 10_000), max_size=8))
def test_a_call_arrives_as_it_was_made_however_it_is_split(params: dict[str, str], cuts: list[int]) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        data = wire.encode_call(wire.X_START, params)
        parser = RequestParser()
        (request,) = [found for part in portions(data, cuts) for found in parser.feed(part)]
        assert (request.method, request.call, request.params) == ("GET", wire.X_START, params)


JSON = st.none() | st.integers(-(2**40), 2**40) | st.text() | st.booleans()


@given(JSON, st.lists(st.integers(0, 10_000), max_size=8))
def test_a_value_arrives_as_it_was_answered(value: object, cuts: list[int]) -> None:
    data = wire.success(value) + wire.success("unasked")
    parser = ReplyParser()
    found: list[Reply] = []
    for part in portions(data, cuts):
        reply = parser.feed(part) if not found else None
        found += [reply] if reply else []
    assert found[0].value() == value


@given(st.binary(max_size=400))
def test_garbage_is_a_head_error_or_nothing(data: bytes) -> None:
    with contextlib.suppress(HeadError):
        list(RequestParser().feed(data + b"\n\n"))


@given(st.binary(max_size=400), st.booleans())
def test_garbage_is_a_reply_error_or_a_failed_call(data: bytes, headed: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data)
    with contextlib.suppress(ReplyError, CallFailed):
        reply = ReplyParser().feed(head + data if headed else data)
        if reply:
            reply.value()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a%2Fb", "a/b"),
        ("%C3%A9", "é"),
        ("%zz%4", "%zz%4"),
        ("%", "%"),
        ("%%41", "%A"),
        ("a+b", "a b"),
        ("%2B", "+"),
        ("% 1", "% 1"),
    ],
)
def test_percent_decoding(text: str, meant: str) -> None:
    assert wire.unquote_plus(text) == meant


def test_query_rules() -> None:
    assert wire.parse_query("") == {}
    assert wire.parse_query("a=1&a=2&b&c=&=x&d=e=f") == {"a": "2", "b": "", "c": "", "": "x", "d": "e=f"}


def test_headers_fold_and_the_first_counts() -> None:
    (request,) = RequestParser().feed(
        b"GET /vma/ping HTTP/1.1\nX-One: a\n  b\nx-one: c\nContent-Length: 3\n\n"
    )
    assert request.headers["x-one"] == "a b"
    assert request.announces_body


def test_failures_carry_the_words() -> None:
    reply = ReplyParser().feed(b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n" + wire.failure("busy\n"))
    assert reply is not None
    with pytest.raises(CallFailed, match=r"^busy$"):
        reply.value()
    for body in (b'"","a","b"', b'1,""', b"1,2", b"[", b"\xff"):
        with pytest.raises(ReplyError):
            Reply(200, "OK", body).value()


def test_an_unasked_switch_is_refused() -> None:
    with pytest.raises(ReplyError, match="another protocol"):
        ReplyParser().feed(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")


@pytest.mark.parametrize("flood", [b"\n", b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_a_guest_that_never_comes_to_its_answer_is_not_listened_to_for_long(flood: bytes) -> None:
    parser = ReplyParser()

    def listen() -> None:
        for _ in range(1000):
            parser.feed(flood * 1000)

    with pytest.raises(ReplyError, match="no end"):
        listen()


WORDY = b"HTTP/1.1 500 " + b"x" * 50_000 + b"\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("reply", [wire.failure("x" * 50_000), WORDY], ids=["failure", "refusal"])
def test_a_guest_is_brief_about_its_reasons(reply: bytes) -> None:
    found = ReplyParser().feed(reply)
    assert found is not None
    with pytest.raises(CallFailed) as caught:
        found.value()
    assert len(str(caught.value)) < 600


def test_a_guest_s_reasons_can_be_stored_and_shown() -> None:
    found = ReplyParser().feed(wire.failure("a\x1b[2J\ud800\x9b\nb"))
    assert found is not None
    with pytest.raises(CallFailed, match=r"^a\?\[2J\?\? b$"):
        found.value()
