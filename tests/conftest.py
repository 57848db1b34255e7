"""Rules for every test: nothing outside tests/host and tests/kvm may spawn a process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

SPAWNING = {"host", "kvm", "architecture"}
SLOWEST_FIRST = ("desktop", "kvm", "host", "")


def kind_of(test: Path) -> str:
    """Which of the slow kinds a test is of, by the folder it is in; empty if of none."""
    folders = {part.name for part in test.parents}
    return next((kind for kind in SLOWEST_FIRST if kind in folders), "")


@pytest.fixture(autouse=True)
def no_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make spawning raise, except where the real system is under test."""
    if SPAWNING & {part.name for part in request.path.parents}:
        return

    async def refuse(*argv: Any, **_: Any) -> NoReturn:
        raise AssertionError(f"this test spawned {argv}; such tests live in tests/host")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whole systems first, so that no worker is left alone with one at the end.

    Skip tests of the real system without root, unless REQUIRE says that they must run.
    """
    items.sort(key=lambda item: SLOWEST_FIRST.index(kind_of(item.path)))
    required = os.environ.get("REQUIRE", "").split(",")
    if os.geteuid() == 0:
        return
    for item in items:
        for kind in ("host", "kvm"):
            if item.get_closest_marker(kind) and kind not in required:
                item.add_marker(pytest.mark.skip(reason=f"{kind} tests need root (REQUIRE={kind} insists)"))
