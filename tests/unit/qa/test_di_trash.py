"""`qa di del`, `undelete`, `purge` and `trash`: what is needed stays, what went comes back for a while."""

from __future__ import annotations

import fcntl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from appliance.model import DiId
from appliance.storage.paths import Paths
from tests.support.qa import Installation


@pytest.fixture
def kept(qa: Installation) -> Installation:
    """An installation with VM web-1 and three images, of which it follows the first."""
    qa.with_vm()
    for version in ("one", "two", "three"):
        qa.ok("di", "add", f"path={qa.archive()}", "osf=desktop", f"version={version}")
    return qa


def tags(qa: Installation) -> dict[int, set[str]]:
    return {di["id"]: set(di["tags"]) for di in qa.listed("di")}


def trash(qa: Installation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = qa.ok("di", "trash", "list", "-o", "json").json
    return found


def files(qa: Installation) -> list[str]:
    return sorted(file.name for file in Paths(qa.settings).images.iterdir())


def test_a_deleted_image_keeps_row_and_file_and_is_found_in_the_trash(kept: Installation) -> None:
    kept.ok("di", "tag", "di_id=3", "tag=pilot")
    said = kept.ok("di", "del", "-f", "id=3")
    assert "qa di undelete brings them back" in said.err
    assert tags(kept) == {1: {"one", "default"}, 2: {"two", "head"}}
    (gone,) = trash(kept)
    assert (gone["id"], gone["state"], gone["former_tags"]) == (3, "retired", ["head", "pilot"])
    left = datetime.fromisoformat(gone["until"]) - datetime.now(UTC)
    assert timedelta(days=6) < left <= timedelta(days=7)
    assert [di["id"] for di in kept.listed("di", "state=retired")] == [3]
    assert kept.ok("di", "show", "-f", "state=retired,id=3", "-o", "json").json == gone
    assert "3-desktop.tar" in files(kept)


def test_what_comes_back_has_its_version_and_tells_its_other_tags(kept: Installation) -> None:
    kept.ok("di", "tag", "di_id=3", "tag=pilot")
    kept.ok("di", "del", "-f", "id=3")
    said = kept.ok("di", "undelete", "-f", "id=3")
    assert said.out == "1 DIs brought back.\n"
    assert "DI 3 had the tags head, pilot" in said.err
    assert tags(kept) == {1: {"one", "default"}, 2: {"two", "head"}, 3: {"three"}}
    assert trash(kept) == []
    assert kept.listed("di", "id=3")[0]["former_tags"] == []
    kept.ok("di", "tag", "di_id=3", "tag=pilot")


def test_the_only_image_comes_back_as_it_was(qa: Installation) -> None:
    qa.ok("osf", "add", "name=desktop")
    qa.ok("di", "add", f"path={qa.archive()}", "osf=desktop", "version=one")
    qa.ok("di", "del", "--yes")
    assert qa.listed("di") == []
    said = qa.ok("di", "undelete", "-f", "osf=desktop")
    assert "had the tags" not in said.err
    assert tags(qa) == {1: {"one", "head", "default"}}


@pytest.mark.parametrize("tag", ["default", "pilot", "one", "head"])
def test_an_image_that_a_vm_follows_stays(kept: Installation, tag: str) -> None:
    if tag in ("default", "pilot"):
        kept.ok("di", "tag", "di_id=1", f"tag={tag}")
    kept.ok("vm", "edit", f"di_tag={tag}", "-f", "name=web-1")
    which = "id in (1,2,3)" if tag == "head" else "id=1"
    said = kept("di", "del", "-f", which)
    assert said.status == 1
    assert f"has the tag {tag}, and 1 VMs follow it: web-1" in said.err
    assert said.err.count("\n") == 1
    assert len(tags(kept)) == 3


def test_head_passes_on_though_it_is_followed(kept: Installation) -> None:
    kept.ok("vm", "edit", "di_tag=head", "-f", "name=web-1")
    kept.ok("di", "del", "-f", "id=3")
    (vm,) = kept.listed("vm")
    assert vm["next_di"] == "two"


def test_nothing_is_done_to_what_is_in_the_trash(kept: Installation) -> None:
    kept.ok("di", "del", "-f", "id=3")
    for words in (("tag", "di_id=3", "tag=default"), ("untag", "di_id=3", "tag=three")):
        said = kept("di", *words)
        assert (said.status, "qa di undelete -f id=3" in said.err) == (1, True)
    assert kept.ok("di", "del", "-f", "id=3").out.startswith("Deleting 0 di(s)")
    assert kept.ok("di", "block", "-f", "id=3").out == "Blocked 0 DIs.\n"


def test_its_version_is_kept_for_it(kept: Installation) -> None:
    kept.ok("di", "del", "-f", "id=3")
    said = kept("di", "tag", "di_id=2", "tag=three")
    assert (said.status, "version of DI 3, which is in the trash" in said.err) == (1, True)
    assert kept("di", "add", f"path={kept.archive()}", "osf=desktop", "version=three").status == 1
    kept.ok("di", "undelete", "-f", "version=three")
    assert tags(kept)[3] == {"three"}


def test_purged_is_gone_for_good(kept: Installation) -> None:
    kept.ok("di", "del", "-f", "id=3")
    assert kept.ok("di", "purge", "-f", "id=2").out == "0 DIs removed for good.\n"
    assert kept.ok("di", "purge", "-f", "id=3").out == "1 DIs removed for good.\n"
    assert files(kept) == ["1-desktop.tar", "2-desktop.tar"]
    assert trash(kept) == []
    assert kept.ok("di", "undelete", "-f", "id=3").out == "0 DIs brought back.\n"
    kept.ok("di", "tag", "di_id=2", "tag=three")


def test_nothing_is_purged_while_somebody_is_at_work_on_it(kept: Installation) -> None:
    kept.ok("di", "del", "-f", "id in (2,3)")
    with Paths(kept.settings).image_lock(DiId(3)).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = kept("di", "purge", "--yes")
    assert (said.status, "somebody is at work on DI 3" in said.err) == (1, True)
    assert {di["id"] for di in trash(kept)} == {2, 3}
    assert kept.ok("di", "purge", "--yes").out == "2 DIs removed for good.\n"


def test_an_osf_with_images_in_the_trash_stays(kept: Installation) -> None:
    kept.ok("vm", "del", "--yes")
    kept.ok("di", "del", "--yes")
    said = kept("osf", "del", "-f", "name=desktop")
    assert (said.status, "qa di purge -f osf=desktop" in said.err) == (1, True)
    assert kept("osf", "edit", "backend=lxc", "-f", "name=desktop").status == 1
    kept.ok("di", "purge", "-f", "osf=desktop")
    kept.ok("osf", "del", "-f", "name=desktop")


def test_how_long_is_a_setting(kept: Installation) -> None:
    kept.ok("config", "set", "storage.images.trash.days=2")
    kept.ok("di", "del", "-f", "id=3")
    (gone,) = trash(kept)
    assert datetime.fromisoformat(gone["until"]) - datetime.now(UTC) <= timedelta(days=2)


def test_the_verb_takes_no_other_words(kept: Installation) -> None:
    assert kept("di", "trash", "empty").status == 2
