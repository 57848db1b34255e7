"""Properties: three verbs on five nouns, and what they reach."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from appliance.model import DiId, OsfId, UserId, VmId
from appliance.storage.properties import Owner
from appliance.storage.schema import events
from tests.support.qa import Installation


@pytest.fixture
def one(qa: Installation) -> Installation:
    """An installation with one of everything."""
    qa.with_vm()
    qa.ok("di", "add", f"path={qa.archive()}", "osf=desktop", "version=1")
    return qa


NOUNS = [
    ("host", "hosts", "node1"),
    ("user", "users", "alice"),
    ("osf", "OSFs", "desktop"),
    ("di", "DIs", "1-desktop.tar"),
    ("vm", "virtual machines", "web-1"),
]


@pytest.mark.parametrize(("noun", "plural", "name"), NOUNS)
def test_a_property_is_set_read_and_deleted(one: Installation, noun: str, plural: str, name: str) -> None:
    assert one.ok(noun, "propset", "room=12", "b=x=y, z").out == f"propset in 1 {plural}.\n\n"
    assert one.ok(noun, "propget").out == f"{name}\tb=x=y, z\n{name}\troom=12\n"
    assert one.ok(noun, "propget", "room", "other").out == f"{name}\troom=12\n"
    assert one.ok(noun, "propget", "room", "-o", "json").json == [
        {"id": 1, "name": name, "key": "room", "value": "12"}
    ]
    assert [row["id"] for row in one.listed(noun, "property.room=12")] == [1]
    assert one.listed(noun, "property.room=") == []
    one.ok(noun, "propset", "room=13")
    said = one.ok(noun, "propdel", "b", "-f", "property.room=13")
    assert (said.out, said.err) == ("", "")
    assert one.ok(noun, "propget").out == f"{name}\troom=13\n"
    one.ok(noun, "propdel", "--yes")
    said = one.ok(noun, "propget")
    assert (said.out, said.err) == ("", "No such property is set.\n")


def test_only_what_matches_is_touched(one: Installation) -> None:
    one.ok("vm", "add", "name=web-2", "user=alice", "osf=desktop")
    one.ok("vm", "propset", "room=1")
    one.ok("vm", "propset", "room=2", "-f", "name=web-2")
    assert one.ok("vm", "propget").out == "web-1\troom=1\nweb-2\troom=2\n"
    one.ok("vm", "propdel", "-f", "name=web-1")
    assert one.ok("vm", "propget").out == "web-2\troom=2\n"


def test_nothing_matching_is_an_error_for_propset_alone(one: Installation) -> None:
    assert one("vm", "propset", "a=1", "-f", "name=x").status == 1
    for verb in ("propget", "propdel"):
        said = one.ok("vm", verb, "-f", "name=x")
        assert (said.out, said.err) == ("", "Nothing matches.\n")


@pytest.mark.parametrize("noun", [noun for noun, _, _ in NOUNS])
def test_properties_go_with_their_owner(qa: Installation, noun: str) -> None:
    qa.with_vm()
    qa.ok("di", "add", f"path={qa.archive()}", "osf=desktop", "version=1")
    qa.ok(noun, "propset", "room=12")
    for gone in ("vm del", "di del", "di purge", "osf del", "user del"):
        qa.ok(*gone.split(), "--yes")
    expected = "node1\troom=12\n" if noun == "host" else ""
    assert qa.ok(noun, "propget").out == expected


async def test_the_vms_properties_win_over_the_users_the_dis_and_the_osfs(one: Installation) -> None:
    async with one.write() as tx:
        for owner, value in (("osf", "1"), ("di", "2"), ("user", "3"), ("vm", "4")):
            await tx.properties.set(Owner(owner), [1], {"all": value, owner: value})
        merged = await tx.properties.merged(osf_id=OsfId(1), di_id=DiId(1), user_id=UserId(1), vm_id=VmId(1))
    assert merged == {"all": "4", "osf": "1", "di": "2", "user": "3", "vm": "4"}


async def logged(qa: Installation) -> list[tuple[str, str, str | None, str | None]]:
    async with qa.write() as tx:
        rows = await tx.connection.execute(
            select(events.c.what, events.c.object, events.c.was, events.c.now).where(
                events.c.what.like("% prop%")
            )
        )
        return [(row.what, row.object, row.was, row.now) for row in rows]


def test_changes_are_logged_and_secrets_are_not(one: Installation) -> None:
    one.ok("user", "propset", "room=1", "mail.password=hush")
    one.ok("user", "propset", "room=2")
    one.ok("user", "propdel", "--yes")
    assert asyncio.run(logged(one)) == [
        ("user propset", "user 1", None, "room=1"),
        ("user propset", "user 1", None, "mail.password=***"),
        ("user propset", "user 1", "room=1", "room=2"),
        ("user propdel", "user 1", "mail.password=***", None),
        ("user propdel", "user 1", "room=2", None),
    ]


def test_what_is_shown_cannot_talk_to_the_terminal(one: Installation) -> None:
    one.ok("vm", "propset", "note=a\x1b[2J\nb")
    assert one.ok("vm", "propget").out == "web-1\tnote=a [2J b\n"
    assert one.ok("vm", "propget", "-o", "json").json[0]["value"] == "a\x1b[2J\nb"
