"""`qa event` and `qa di history`: what was changed is read later."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.qa import Installation


@pytest.fixture
def lived(qa: Installation) -> Installation:
    """An installation in which people have worked."""
    qa.with_vm()
    for version in ("one", "two"):
        qa.ok("di", "add", f"path={qa.archive()}", "osf=desktop", f"version={version}")
    qa.ok("di", "tag", "di_id=2", "tag=default")
    return qa


def test_events_tell_who_changed_what_the_newest_last(lived: Installation) -> None:
    *_, last = lived.ok("event", "list", "-o", "json").json
    assert last["by"].startswith("qa:")
    assert (last["what"], last["object"], last["was"], last["now"]) == (
        "di tag",
        "osf 1 tag default",
        "di 1",
        "di 2",
    )
    assert last["at"].endswith("Z")


def test_events_is_short_for_it(lived: Installation) -> None:
    for words in (["-f", "what=di add", "-o", "json"], ["limit=2"], ["--help"]):
        assert lived.ok("events", *words).out == lived.ok("event", "list", *words).out
    assert lived("events", "list").status == 2


def test_they_are_found_by_all_that_they_say(lived: Installation) -> None:
    (added,) = lived.listed("event", "what=vm add")
    for filter_ in (
        f"at={added['at']},what=vm*",
        f"id={added['id']}",
        "object=vm 1",
        "now=web-1,by=qa:*",
        "what in (vm add,vm del),at>2020-01-01,at<=9998-12-31",
    ):
        assert added in lived.listed("event", filter_), filter_
    assert lived.listed("event", "at<2020-01-01") == []


def test_a_long_list_is_cut_at_its_old_end_with_a_note(qa: Installation) -> None:
    async def much() -> None:
        async with qa.write() as tx:
            for number in range(120):
                await tx.log.append(by="test", what="vm start", object=f"vm {number}")

    asyncio.run(much())
    said = qa.ok("events", "-f", "by=test", "-o", "json")
    assert [event["object"] for event in said.json] == [f"vm {number}" for number in range(20, 120)]
    assert "limit=all" in said.err
    asked = qa.ok("events", "-f", "by=test", "-o", "json", "limit=2")
    assert [event["object"] for event in asked.json] == ["vm 118", "vm 119"]
    assert asked.err == ""
    assert len(qa.ok("events", "-f", "by=test", "-o", "json", "limit=all").json) == 120
    assert qa("events", "limit=none").status == 2


def test_the_history_of_a_tag_has_every_move_with_versions(lived: Installation) -> None:
    lived.ok("di", "tag", "di_id=1", "tag=default")
    lived.ok("di", "del", "-f", "id=2")
    moves = lived.ok("di", "history", "-f", "osf=desktop,tag=default", "-o", "json").json
    assert [
        (move["from_di_id"], move["from_version"], move["to_di_id"], move["to_version"]) for move in moves
    ] == [(None, None, 1, "one"), (1, "one", 2, "two"), (2, "two", 1, "one")]
    assert {move["by"] for move in moves} == {moves[0]["by"]}
    assert "two (2) one (1)" in lived.ok("di", "history", "-f", "tag=default", "limit=1").out
    assert lived.ok("di", "history", "-f", "at<2020-01-01", "-o", "json").json == []
