"""`expire-soft=` and `expire-hard=` on the command line: how they are read, refused, confirmed and told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from appliance.model import VmState
from appliance.storage.schema import vm_runtimes
from tests.support.qa import Installation


@pytest.fixture
def aged(qa: Installation) -> Installation:
    """web-1 runs image 1, which is `default`; image 2 is there."""
    qa.with_vm()
    for version in ("one", "two"):
        qa.ok("di", "add", f"path={qa.archive(f'{version}.tar')}", "osf=desktop", f"version={version}")
    asyncio.run(_run(qa))
    return qa


async def _run(qa: Installation) -> None:
    async with qa.write() as tx:
        (host,) = await tx.hosts.find()
        await tx.connection.execute(
            update(vm_runtimes).values(vm_state=VmState.RUNNING, current_di_id=1, host_id=host.id)
        )


def row(qa: Installation) -> dict[str, Any]:
    """The row of web-1."""
    (vm,) = qa.listed("vm")
    return vm


def test_a_tag_is_moved_with_both_limits(aged: Installation) -> None:
    said = aged.ok(
        "di",
        "tag",
        "di_id=2",
        "tag=default",
        "expire-soft=2035-01-31T18:00Z",
        "expire_hard=2035-02-01T18:00Z",
    )
    assert said.out == "DI tagged\n"
    assert said.err == (
        "1 VMs have had their expiration dates set "
        "(soft: 2035-01-31T18:00:00Z, hard: 2035-02-01T18:00:00Z).\n"
    )
    vm = row(aged)
    assert (vm["di"], vm["next_di"], vm["outdated"]) == ("one", "two", True)
    assert (vm["vm_expiration_soft"], vm["vm_expiration_hard"]) == (
        "2035-01-31T18:00:00Z",
        "2035-02-01T18:00:00Z",
    )
    assert vm["expire_hard_s"] - vm["expire_soft_s"] == 86400
    assert 0 <= vm["outdated_s"] < 600
    assert "Soft left" in aged.ok("vm", "list").out


def test_now_is_taken_and_the_past_is_not(aged: Installation) -> None:
    said = aged("di", "tag", "di_id=2", "tag=default", "expire-hard=2001-01-01")
    assert said.status != 0
    assert "expire-hard" in said.err
    assert not row(aged)["outdated"], "nothing was changed"
    aged.ok("di", "tag", "di_id=2", "tag=default", "expire-soft=now", "expire-hard=now + 3 days")
    soft = datetime.fromisoformat(row(aged)["vm_expiration_soft"])
    assert timedelta(0) <= datetime.now(UTC) - soft < timedelta(minutes=3)


def test_a_hard_limit_before_the_soft_one_is_refused(aged: Installation) -> None:
    said = aged(
        "vm", "edit", "-f", "name=web-1", "expire-soft=now + 2 days", "expire-hard=now + 1 day", "di_tag=two"
    )
    assert said.status == 2
    assert "comes before" in said.err
    assert row(aged)["di_tag"] == "default"


def test_what_was_guessed_must_be_confirmed(aged: Installation) -> None:
    words = ("di", "tag", "di_id=2", "tag=default", "expire-hard=in three days")
    said = aged(*words)
    assert said.status == 1
    assert "was understood as" in said.err
    assert not row(aged)["outdated"]
    aged.ok(*words, "--yes")
    assert row(aged)["vm_expiration_hard"] is not None


def test_an_empty_value_lifts_a_limit(aged: Installation) -> None:
    aged.ok("di", "tag", "di_id=2", "tag=default", "expire-soft=now", "expire-hard=now + 1 day")
    said = aged.ok("vm", "edit", "expire-soft=", "-f", "name=web-1")
    assert "soft: undef, hard: as it was" in said.err
    vm = row(aged)
    assert vm["vm_expiration_soft"] is None
    assert vm["vm_expiration_hard"] is not None


def test_a_vm_on_its_image_gets_no_limit(aged: Installation) -> None:
    said = aged.ok("vm", "edit", "expire-hard=now + 1 day", "-f", "name=web-1")
    assert said.err.startswith("0 VMs have had")
    assert row(aged)["vm_expiration_hard"] is None


def test_an_image_that_is_added_ages_those_that_follow_head(aged: Installation) -> None:
    aged.ok("vm", "edit", "di_tag=head", "-f", "name=web-1")
    third = f"path={aged.archive('three.tar')}"
    said = aged.ok("di", "add", third, "osf=desktop", "expire-hard=now + 1 week")
    assert "1 VMs have had" in said.err
    assert row(aged)["vm_expiration_hard"] is not None


def test_a_tag_that_is_taken_away_ages_those_that_run_its_image(aged: Installation) -> None:
    said = aged.ok("di", "untag", "di_id=1", "tag=default", "expire-soft=tomorrow")
    assert "1 VMs have had" in said.err
    vm = row(aged)
    assert (vm["next_di"], vm["outdated"], vm["vm_expiration_soft"] is None) == (None, False, False)
