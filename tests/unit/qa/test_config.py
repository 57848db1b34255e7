"""`qa config`: settings, vetted before they are stored."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from appliance.storage.schema import events
from tests.support.qa import Installation


async def audited(qa: Installation) -> list[tuple[str | None, ...]]:
    columns = (events.c.what, events.c.object, events.c.was, events.c.now)
    async with qa.store() as store, store.read() as tx:
        rows = await tx.connection.execute(select(*columns).where(events.c.what.like("config%")))
        return [tuple(row) for row in rows]


def test_what_is_set_is_in_force(qa: Installation) -> None:
    assert qa.ok("config", "set", "l7r.port=9000", "vm.network.domain=a=b").out == ""
    assert qa.ok("config", "get", "vm.network.domain", "l7r.port").out == (
        "l7r.port=9000\nvm.network.domain=a=b\n"
    )
    assert qa.ok("config", "get", "l7r.port", "-o", "json").json == [{"key": "l7r.port", "value": "9000"}]


def test_what_is_deleted_falls_back(qa: Installation) -> None:
    qa.ok("config", "set", "l7r.port=9000")
    assert qa.ok("config", "del", "l7r.port", "l7r.address").out == "1 config entries deleted.\n\n"
    assert qa.ok("config", "get", "l7r.port").out == "l7r.port=8443\n"


def test_all_but_the_experts_keys_are_shown(qa: Installation) -> None:
    keys = [line.partition("=")[0] for line in qa.ok("config", "get").out.splitlines()]
    assert keys == sorted(keys)
    assert "l7r.port" in keys
    assert not [key for key in keys if key.startswith("internal.")]
    assert "internal.l7r.timeout.vma=4" in qa.ok("config", "get", "internal.l7r.timeout.vma").out


def test_unknown_keys_are_left_out(qa: Installation) -> None:
    said = qa.ok("config", "get", "no.such", "l7r.port")
    assert said.out == "l7r.port=8443\n"
    assert "no.such" in said.err


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("l7r.prot=1", "did you mean l7r.port?"),
        ("l7r.port=99999", "between 1 and 65535"),
        ("l7r.port=${l7r.port}", "refers to itself"),
        ("vm.network.gateway=x", "vm.network.gateway"),
        ("nodename=other", "node.conf"),
        ("path.run=/tmp", "node.conf"),
        ("database.url=sqlite:///x", "node.conf"),
        ("l7r.ssl.key=x", "qa config ssl"),
    ],
)
def test_what_cannot_be_is_refused_with_all_that_came_with_it(
    qa: Installation, word: str, reason: str
) -> None:
    said = qa("config", "set", "vm.network.domain=new", word)
    assert said.status in (1, 2)
    assert reason in said.err
    assert qa.ok("config", "get", "vm.network.domain").out == "vm.network.domain=\n"


@pytest.mark.parametrize(
    ("key", "warning"),
    [
        ("site.note", "kept, but not used"),
        ("log4perl.appender.x", "has no effect"),
        ("l7r.as_user", "has no effect"),
        ("vm.kvm.virtio", "has no effect"),
    ],
)
def test_other_names_are_kept_with_a_warning(qa: Installation, key: str, warning: str) -> None:
    assert warning in qa.ok("config", "set", f"{key}=1").err
    assert qa.ok("config", "get", key).out == f"{key}=1\n"


def test_secrets_are_not_shown(qa: Installation) -> None:
    qa.ok("config", "set", "site.password=hunter2")
    assert qa.ok("config", "get", "site.password").out == "site.password=***\n"
    assert asyncio.run(audited(qa)) == [("config set", "site.password", None, "***")]


def test_deleting_everything_asks(qa: Installation) -> None:
    qa.ok("config", "set", "l7r.port=9000")
    assert qa("config", "del").status == 1
    qa.ok("config", "del", "--yes")
    assert qa.ok("config", "get", "l7r.port").out == "l7r.port=8443\n"
