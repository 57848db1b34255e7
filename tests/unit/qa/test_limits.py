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


def lasting(qa: Installation) -> dict[str, Any]:
    """The row of web-1 without what passes by itself: how many seconds ago, and how many are left."""
    return {name: value for name, value in row(qa).items() if not name.endswith("_s")}


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


def names(aged: Installation, *words: str) -> list[str]:
    """Whom a call would concern, as --dry-run lists them; nothing may change by that."""
    before = (lasting(aged), aged.ok("di", "history", "-o", "json").json)
    found = aged.ok(*words, "--dry-run", "-o", "json").json
    assert (lasting(aged), aged.ok("di", "history", "-o", "json").json) == before
    return [f"{vm['name']} of {vm['user']}" for vm in found]


def test_whom_a_move_concerns_is_shown_before_it_is_made(aged: Installation) -> None:
    tagging = ("di", "tag", "di_id=2", "tag=default", "expire-soft=now")
    assert names(aged, *tagging) == ["web-1 of alice"]
    assert names(aged, "di", "tag", "di_id=1", "tag=default") == []
    assert names(aged, "di", "untag", "di_id=1", "tag=default") == ["web-1 of alice"]
    shown = aged.ok(*tagging, "-n")
    assert "web-1" in shown.out
    assert "alice" in shown.out
    assert "1 desktops of 1 people would move" in shown.err
    assert "Nothing was changed" in shown.err
    assert "DI tagged" not in shown.out


def test_whom_another_image_concerns_is_shown_and_none_is_added(aged: Installation) -> None:
    archive = aged.archive("three.tar")
    adding = ("di", "add", f"path={archive}", "osf=desktop", "expire-hard=2035-02-01T18:00Z")
    assert names(aged, *adding) == []
    aged.ok("vm", "edit", "di_tag=head", "-f", "name=web-1")
    assert names(aged, *adding) == ["web-1 of alice"]
    assert len(aged.listed("di")) == 2
    assert aged(*adding, "version=two", "--dry-run").err.startswith("Error: version=two")


def test_a_move_is_taken_back(aged: Installation) -> None:
    aged.ok("di", "tag", "di_id=2", "tag=default", "expire-hard=2035-02-01T18:00Z")
    assert row(aged)["vm_expiration_hard"] is not None
    assert names(aged, "di", "tag", "--undo") == []
    assert aged.ok("di", "tag", "--undo", "--dry-run").err.splitlines()[:2] == [
        "The tag default of the OSF desktop would point at DI 1 (one) again.",
        "1 desktops in use run that, and would have no limits any more.",
    ]
    said = aged.ok("di", "tag", "--undo", "osf=desktop", "tag=default")
    assert said.out == "The tag default of the OSF desktop points at DI 1 (one) again\n"
    assert (row(aged)["next_di"], row(aged)["outdated"], row(aged)["vm_expiration_hard"]) == (
        "one",
        False,
        None,
    )
    last = aged.ok("di", "history", "-o", "json").json[-1]
    assert (last["from_di_id"], last["to_di_id"], last["undoes"]) == (2, 1, last["id"] - 1)
    again = aged("di", "tag", "--undo", "tag=default")
    assert "has pointed at nothing before DI 1" in again.err
    assert "qa di untag di_id=1" in again.err


def pilot(aged: Installation) -> list[int]:
    """At which image the tag `pilot` points."""
    return [di["id"] for di in aged.listed("di") if "pilot" in di["tags"]]


def test_moves_are_taken_back_one_after_the_other_and_each_once(aged: Installation) -> None:
    aged.ok("di", "add", f"path={aged.archive('three.tar')}", "osf=desktop", "version=three")
    for di_id in (2, 3, 2):
        aged.ok("di", "tag", f"di_id={di_id}", "tag=pilot")
    aged.ok("di", "tag", "di_id=2", "tag=default")
    aged.ok("di", "tag", "--undo", "tag=pilot")
    assert pilot(aged) == [3]
    aged.ok("di", "tag", "--undo", "tag=pilot")
    assert pilot(aged) == [2]
    aged.ok("di", "tag", "--undo", "tag=pilot")
    assert pilot(aged) == []
    assert "there is no move of the tag pilot" in aged("di", "tag", "--undo", "tag=pilot").err
    assert row(aged)["next_di"] == "two", "another tag stays where it is"
    aged.ok("di", "tag", "--undo")
    assert row(aged)["next_di"] == "one"


def test_a_move_is_not_taken_back_to_what_is_gone_or_blocked(aged: Installation) -> None:
    aged.ok("di", "tag", "di_id=1", "tag=pilot")
    aged.ok("di", "tag", "di_id=2", "tag=pilot")
    aged.ok("di", "block", "-f", "id=1")
    assert "DI 1 is blocked" in aged("di", "tag", "--undo").err
    assert "belongs to qa di tag" in aged("di", "untag", "--undo", "di_id=1", "tag=pilot").err
