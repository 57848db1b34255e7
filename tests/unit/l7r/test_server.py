"""Clients must not use up what the rest of the daemon needs."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator

import pytest

from appliance.l7r.server import DESCRIPTORS_ELSE, reserve_descriptors


@pytest.fixture(autouse=True)
def usual_limits() -> Iterator[None]:
    """A service's limits on Debian: few at first, more on demand."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def allowed() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_clients_and_their_guests_leave_room_for_the_rest() -> None:
    reserve_descriptors(1000)
    assert allowed() >= 2 * 1000 + DESCRIPTORS_ELSE


def test_a_limit_that_is_high_enough_stays() -> None:
    reserve_descriptors(1000)
    high = allowed()
    reserve_descriptors(10)
    assert allowed() == high


def test_more_clients_than_the_host_allows_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with caplog.at_level(logging.WARNING):
        reserve_descriptors(hard)
    assert allowed() == hard
    assert "LimitNOFILE" in caplog.text
