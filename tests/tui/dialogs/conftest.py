"""Installations to open dialogs in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance.model import VmState
from appliance.storage.schema import vm_runtimes
from tests.support.dialog_calls import (
    Recorder,
)
from tests.support.qa import Installation


@pytest.fixture
def qa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    """An installation with a user, an OSF and a desktop."""
    return Installation(tmp_path, capsys).founded().with_vm()


@pytest.fixture
def call(qa: Installation) -> Recorder:
    return Recorder(qa)


@pytest.fixture
def aged(qa: Installation) -> Installation:
    """web-1 runs image 1, which is `default`; image 2 is there."""
    for version in ("one", "two"):
        qa.ok("di", "add", f"path={qa.archive(f'{version}.tar')}", "osf=desktop", f"version={version}")

    async def run() -> None:
        async with qa.write() as tx:
            (host,) = await tx.hosts.find()
            await tx.connection.execute(
                update(vm_runtimes).values(
                    vm_state=VmState.RUNNING,
                    current_di_id=1,
                    host_id=host.id,
                    user_state="connected",
                    l7r_session="s",
                )
            )

    asyncio.run(run())
    return qa
