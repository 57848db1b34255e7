from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.control_frames import (
    HEADER,
    MAX_PAYLOAD,
    Frame,
    FrameDecoder,
    FrameError,
    FrameKind,
    encode,
    encode_error,
)
from appliance.errors import AdminError, BackendError, ConflictError, DaemonDownError, UsageError

KINDS = st.sampled_from(list(FrameKind))


@given(st.lists(st.tuples(KINDS, st.binary(max_size=300))), st.lists(st.integers(1, 50)))
def test_any_split_of_the_bytes_gives_the_same_frames(
    frames: list[tuple[FrameKind, bytes]], cuts: list[int]
) -> None:
    wire = b"".join(encode(kind, payload) for kind, payload in frames)
    decoder = FrameDecoder()
    got: list[Frame] = []
    for cut in cuts:
        got += decoder.feed(wire[:cut])
        wire = wire[cut:]
    got += decoder.feed(wire)
    assert [(frame.kind, frame.payload) for frame in got] == frames


@given(st.binary(max_size=400))
def test_rubbish_gives_frames_or_a_frame_error_and_never_something_else(rubbish: bytes) -> None:
    decoder = FrameDecoder()
    try:
        for frame in decoder.feed(rubbish):
            frame.content()
    except FrameError:
        return


def test_a_frame_that_is_too_long_is_refused_by_its_header_alone() -> None:
    with pytest.raises(FrameError, match="too long"):
        list(FrameDecoder().feed(HEADER.pack(MAX_PAYLOAD + 1, FrameKind.DATA)))
    with pytest.raises(ValueError, match="does not fit"):
        encode(FrameKind.DATA, bytes(MAX_PAYLOAD + 1))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(FrameError, match="no frame of kind 99"):
        list(FrameDecoder().feed(HEADER.pack(0, 99)))


@pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b"\xff", b"[" * 60_000])
def test_a_payload_without_a_json_object_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        Frame(FrameKind.ORDER, payload).content()


@pytest.mark.parametrize(
    ("error", "arrives_as"),
    [
        (UsageError("wrong words", hint="other words"), UsageError),
        (ConflictError("it does not run"), ConflictError),
        (DaemonDownError("it stops"), DaemonDownError),
        (FrameError("rubbish"), AdminError),
        (BackendError("no monitor", hint="look"), AdminError),
    ],
)
def test_an_error_crosses_with_message_hint_and_exit_status(
    error: AdminError, arrives_as: type[AdminError]
) -> None:
    (frame,) = FrameDecoder().feed(encode_error(error))
    arrived = frame.error()
    assert type(arrived) is arrives_as
    assert (arrived.message, arrived.hint) == (error.message, error.hint)
