"""`qa config`: settings, vetted before they are stored."""

from __future__ import annotations

import asyncio
import io

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


class TestExplained:
    def test_who_says_what_and_who_wins(self, qa: Installation) -> None:
        qa.write_config(l7r__port="9443")
        qa.ok("config", "set", "l7r.port=9000")
        said = qa.ok("config", "explain", "l7r.port").out.splitlines()
        assert said[0] == "l7r.port = 9000"
        assert [line.split() for line in said[2:5]] == [
            ["database", "9000", "in", "force"],
            ["file", "9443"],
            ["default", "8443"],
        ]
        qa.ok("config", "del", "l7r.port")
        (explained,) = qa.ok("config", "explain", "l7r.port", "-o", "json").json
        assert (explained["value"], explained["source"], explained["database"]) == ("9443", "file", None)

    def test_references_are_resolved_in_what_is_in_force(self, qa: Installation) -> None:
        (explained,) = qa.ok("config", "explain", "path.control", "-o", "json").json
        assert explained["default"] == "${path.run}/appliance.sock"
        assert explained["value"] == f"{qa.directory}/run/appliance.sock"

    def test_what_the_file_alone_may_say_is_not_won_by_the_database(self, qa: Installation) -> None:
        async def plant() -> None:
            async with qa.write() as tx:
                await tx.settings.set({"nodename": "other"})

        asyncio.run(plant())
        (explained,) = qa.ok("config", "explain", "nodename", "-o", "json").json
        assert (explained["value"], explained["source"], explained["database"]) == ("node1", "file", None)

    def test_a_value_that_cannot_be_used_says_why(self, qa: Installation) -> None:
        qa.write_config(l7r__port="many")
        said = qa.ok("config", "explain", "l7r.port")
        assert "WRONG: l7r.port = 'many'" in said.out

    def test_secrets_stay_secret(self, qa: Installation) -> None:
        qa.ok("config", "set", "site.password=hunter2")
        said = qa.ok("config", "explain", "site.password")
        assert "hunter2" not in said.out
        assert "***" in said.out

    def test_what_takes_a_restart_says_so(self, qa: Installation) -> None:
        assert "daemon is started again" in qa.ok("config", "explain", "vm.hypervisor").out
        assert "from the next use on" in qa.ok("config", "explain", "osf.default.memory").out
        said = qa.ok("config", "set", "vm.network.gateway=10.9.0.1", "osf.default.memory=512")
        assert said.err == "In force from the next start of the daemon: vm.network.gateway\n"

    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            ("l7r.prot", "did you mean l7r.port?"),
            ("no.such.thing", "qa config list"),
            ("l7r.ssl.key", "qa config ssl"),
        ],
    )
    def test_what_nobody_knows_is_refused(self, qa: Installation, key: str, reason: str) -> None:
        said = qa("config", "explain", key)
        assert said.status == 1
        assert reason in said.err

    def test_names_of_qvd_are_explained_as_such(self, qa: Installation) -> None:
        assert "has no effect" in qa.ok("config", "explain", "vm.kvm.virtio").out


def test_the_list_shows_experts_keys_only_when_asked(qa: Installation) -> None:
    usual = {row["key"] for row in qa.ok("config", "list", "-o", "json").json}
    every = {row["key"] for row in qa.ok("config", "list", "all=yes", "-o", "json").json}
    assert {key for key in every if key.startswith("internal.")} == every - usual
    assert every - usual


def test_experts_keys_are_not_changed_by_accident(qa: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    said = qa("config", "set", "internal.l7r.timeout.vma=9")
    assert said.status == 1
    assert "--yes" in said.err
    qa.ok("config", "set", "internal.l7r.timeout.vma=9", "--yes")
    assert qa.ok("config", "get", "internal.l7r.timeout.vma").out == "internal.l7r.timeout.vma=9\n"


def test_turning_persistence_off_says_what_goes(qa: Installation) -> None:
    qa.ok("config", "set", "vm.overlay.persistent=1")
    done = qa.ok("config", "set", "vm.overlay.persistent=0")
    assert "roots kept so far are deleted" in done.err
    assert "Warning" not in qa.ok("config", "set", "vm.overlay.persistent=0").err
