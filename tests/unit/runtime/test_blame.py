"""Whose fault an error is, and how long a start waits for its host."""

from __future__ import annotations

import pytest

from appliance.errors import (
    BackendError,
    BlockedError,
    ConfigError,
    HostError,
    ImageError,
    MissingToolError,
    NetworkError,
    PoolFullError,
    StoreError,
    ToolError,
    VmaRefusedError,
    VmaUnreachableError,
    VolumeError,
)
from appliance.model import FailureCause
from appliance.runtime.blame import backoff_s, blame_of


@pytest.mark.parametrize("error", [ImageError("x"), VmaUnreachableError("x"), VmaRefusedError("x")])
def test_what_is_wrong_with_a_guest_that_boots_is_its_images_fault(error: Exception) -> None:
    assert blame_of(error).cause is FailureCause.IMAGE


def test_what_an_administrator_blocked_is_held_against_nothing() -> None:
    assert blame_of(BlockedError("x")).cause is FailureCause.GUEST
    assert blame_of(BlockedError("x")).lacks is None


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (PoolFullError.of("no root"), "pool"),
        (VolumeError("x"), "storage"),
        (BackendError("x"), "backend"),
        (NetworkError("x"), "network"),
        (MissingToolError("x"), "programs"),
        (ToolError(["nft"], 1, "x"), "host"),
        (HostError("x"), "host"),
        (ConfigError("x"), "configuration"),
        (StoreError("x"), "database"),
        (ValueError("what nobody foresaw"), "host"),
    ],
)
def test_everything_else_is_the_hosts_and_says_what_it_lacks(error: Exception, part: str) -> None:
    assert (blame_of(error).cause, blame_of(error).lacks) == (FailureCause.HOST, part)


def test_each_wait_is_twice_as_long_up_to_a_limit_however_often_it_fails() -> None:
    waits = [backoff_s(tries, first_s=5, longest_s=300) for tries in range(1, 9)]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    assert backoff_s(10**9, first_s=5, longest_s=300) == 300
