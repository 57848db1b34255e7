"""`qa di`: what is written about images, whether they may be booted, and where they are in their life."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from appliance.model import DiId, OsfId
from appliance.ops.image_edit import LONGEST_NOTES
from appliance.ops.image_progress import plan_for
from appliance.storage.operations import Kind
from appliance.storage.paths import Paths
from tests.support.qa import Installation


@pytest.fixture
def kept(qa: Installation) -> Installation:
    """An installation with VM web-1 and two images of its OSF."""
    qa.with_vm()
    for version in ("one", "two"):
        qa.ok(
            "di", "add", f"path={qa.archive()}", "osf=desktop", f"version={version}", f"notes=About {version}"
        )
    return qa


def di(qa: Installation, number: int) -> dict[str, Any]:
    (found,) = qa.listed("di", f"id={number}")
    return found


# --- notes ----------------------------------------------------------------------------------------


def test_notes_come_with_an_image_and_can_be_changed(kept: Installation) -> None:
    assert di(kept, 1)["notes"] == "About one"
    assert kept.ok("di", "edit", "notes=New browser\nand fonts", "-f", "id=1").out == "Edited 1 DIs.\n"
    assert di(kept, 1)["notes"] == "New browser\nand fonts"
    assert di(kept, 2)["notes"] == "About two"
    assert [found["id"] for found in kept.listed("di", "notes=*browser*")] == [1]
    kept.ok("di", "edit", "notes=", "-f", "id=1")
    assert di(kept, 1)["notes"] is None


@pytest.mark.parametrize("notes", ["x" * (LONGEST_NOTES + 1), "\x1b[2J"])
def test_notes_are_bounded_and_harmless(kept: Installation, notes: str) -> None:
    said = kept("di", "edit", f"notes={notes}", "-f", "id=1")
    assert (said.status, said.out) == (2, "")
    assert di(kept, 1)["notes"] == "About one"


# --- the block ------------------------------------------------------------------------------------


def test_a_block_says_whom_it_concerns_and_is_lifted(kept: Installation) -> None:
    said = kept.ok("di", "block", "-f", "id=1")
    assert said.out == "Blocked 1 DIs.\n"
    assert "1 VMs follow them, and will not start: web-1" in said.err
    assert [(one["id"], one["blocked"]) for one in kept.listed("di")] == [(1, True), (2, False)]
    assert "published, blocked" in kept.ok("di", "list").out
    assert kept.ok("di", "block", "-f", "blocked=yes").out == "Blocked 0 DIs.\n"
    assert kept.ok("di", "unblock", "-f", "id=1").out == "Unblocked 1 DIs.\n"
    assert not di(kept, 1)["blocked"]


def test_no_tag_moves_onto_a_blocked_image(kept: Installation) -> None:
    kept.ok("di", "block", "-f", "id=2")
    said = kept("di", "tag", "di_id=2", "tag=default")
    assert said.status == 1
    assert "qa di unblock -f id=2" in said.err
    assert "default" in di(kept, 1)["tags"]
    kept.ok("di", "unblock", "-f", "id=2")
    kept.ok("di", "tag", "di_id=2", "tag=default")


def test_head_does_not_pass_on_to_a_blocked_image(kept: Installation) -> None:
    kept.ok("di", "add", f"path={kept.archive()}", "osf=desktop", "version=three")
    kept.ok("di", "block", "-f", "id=2")
    kept.ok("di", "del", "-f", "id=3")
    assert "head" in di(kept, 1)["tags"]


# --- states ---------------------------------------------------------------------------------------


def states(qa: Installation, filter_: str = "") -> dict[int, str]:
    return {one["id"]: one["state"] for one in qa.listed("di", filter_)}


def test_an_image_is_ready_until_it_is_published(kept: Installation) -> None:
    assert states(kept) == {1: "published", 2: "ready"}, "head alone publishes nothing"
    kept.ok("di", "tag", "di_id=2", "tag=pilot")
    assert states(kept) == {1: "published", 2: "published"}
    kept.ok("di", "untag", "di_id=2", "tag=pilot")
    assert states(kept, "state=ready") == {2: "ready"}


@pytest.mark.parametrize(
    ("kind", "progress", "state"),
    [
        (Kind.DI_ADD, 0.0, "new"),
        (Kind.DI_ADD, 0.21, "uploading"),
        (Kind.DI_ADD, 0.75, "verifying"),
        (Kind.DI_DUPLICATE, 0.0, "generating"),
    ],
)
def test_what_arrives_is_listed_with_its_progress(
    kept: Installation, kind: Kind, progress: float, state: str
) -> None:
    async def begin() -> int:
        async with kept.write() as tx:
            number = await tx.images.reserve_id(OsfId(1))
            work = await tx.operations.begin(kind, number, owner="test", pid=1, plan=plan_for(OsfId(1)))
            await tx.operations.progress(work, progress)
            return work

    work = asyncio.run(begin())
    with held(kept, 3):
        assert states(kept) == {1: "published", 2: "ready", 3: state}
        (arriving,) = kept.listed("di", f"state={state}")
        assert arriving.keys() == di(kept, 1).keys()
        assert (arriving["osf"], arriving["progress"], arriving["version"]) == ("desktop", progress, None)
        assert f"{state} {progress:.0%}" in kept.ok("di", "list").out
        assert states(kept, "osf=desktop,id>1") == {2: "ready", 3: state}
        for nothing in ("osf=other", "tag=head,id=3", "property.room=1", "blocked=yes", "version=*3"):
            assert 3 not in states(kept, nothing)
    assert 3 not in states(kept), "nobody is at work on it any more"

    async def end() -> None:
        async with kept.write() as tx:
            await tx.operations.end(work, "failed")

    asyncio.run(end())
    with held(kept, 3):
        assert states(kept) == {1: "published", 2: "ready"}


@contextmanager
def held(qa: Installation, number: int) -> Iterator[None]:
    """Somebody is at work on an image."""
    with Paths(qa.settings).image_lock(DiId(number)).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_work_whose_plan_is_somebody_elses_is_listed_without_an_osf(kept: Installation) -> None:
    async def begin() -> None:
        async with kept.write() as tx:
            for number, plan in ((DiId(8), None), (DiId(9), "no json")):
                await tx.operations.begin(Kind.DI_ADD, number, owner="test", pid=1, plan=plan)

    asyncio.run(begin())
    with held(kept, 8), held(kept, 9):
        assert [(one["id"], one["osf"]) for one in kept.listed("di", "state=new")] == [(8, None), (9, None)]
        assert "new 0%" in kept.ok("di", "list").out
