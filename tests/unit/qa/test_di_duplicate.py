"""`qa di duplicate`: an image for another OSF, that shares a file with the first and is else its own."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from appliance.storage.paths import Paths
from appliance.storage.schema import events
from tests.support.qa import Installation


@pytest.fixture
def kept(qa: Installation) -> Installation:
    """An installation with an image, and another OSF without any."""
    for name in ("desktop", "sales"):
        qa.ok("osf", "add", f"name={name}")
    qa.ok("di", "add", f"path={qa.archive()}", "osf=desktop", "version=one", "notes=Good")
    return qa


def test_it_is_a_new_image_of_the_other_osf(kept: Installation) -> None:
    made = kept.ok("di", "duplicate", "di_id=1", "osf=sales", "-o", "json").json
    first, second = kept.listed("di")
    assert made == second
    assert (second["osf"], second["version"], second["path"]) == ("sales", "one", "2-desktop.tar")
    assert {key: first[key] for key in ("sha256", "size_bytes", "notes")} == {
        key: second[key] for key in ("sha256", "size_bytes", "notes")
    }
    assert set(second["tags"]) == {"one", "head", "default"}
    images = Paths(kept.settings).images
    assert (images / "2-desktop.tar").read_bytes() == (images / "1-desktop.tar").read_bytes()


def test_each_goes_by_itself(kept: Installation) -> None:
    kept.ok("di", "duplicate", "di_id=1", "osf=sales")
    kept.ok("di", "del", "-f", "id=1")
    kept.ok("di", "purge", "-f", "id=1")
    copy = Paths(kept.settings).images / "2-desktop.tar"
    assert copy.read_bytes() == kept.archive().read_bytes()
    assert [file.name for file in copy.parent.iterdir()] == [copy.name]


def test_in_the_same_osf_it_gets_the_next_version(kept: Installation) -> None:
    made = kept.ok("di", "duplicate", "di_id=1", "-o", "json").json
    assert made["version"].endswith("-000")
    made = kept.ok("di", "duplicate", "di_id=1", "version=trial", "-o", "json").json
    assert (made["osf"], made["version"]) == ("desktop", "trial")


def test_history_says_from_which(kept: Installation) -> None:
    kept.ok("di", "duplicate", "di_id=1", "osf=sales")

    async def said() -> list[tuple[str, str, str]]:
        async with kept.write() as tx:
            rows = await tx.connection.execute(select(events).where(events.c.what == "di duplicate"))
            return [(row.object, row.was, row.now) for row in rows]

    assert asyncio.run(said()) == [("di 2", "di 1: desktop one", "sales one")]


def test_what_cannot_be_is_refused_and_leaves_nothing(kept: Installation) -> None:
    kept.ok("osf", "add", "name=containers", "backend=lxc")
    said = kept("di", "duplicate", "di_id=1", "osf=containers")
    assert (said.status, "choose an OSF of the same backend" in said.err) == (1, True)
    images = Paths(kept.settings).images
    (images / "1-desktop.tar").unlink()
    said = kept("di", "duplicate", "di_id=1", "osf=sales")
    assert (said.status, "1-desktop.tar is gone" in said.err) == (1, True)
    assert list(images.iterdir()) == []
    assert [di["id"] for di in kept.listed("di")] == [1]
    kept.ok("di", "del", "-f", "id=1")
    said = kept("di", "duplicate", "di_id=1", "osf=sales")
    assert (said.status, "qa di undelete -f id=1" in said.err) == (1, True)
