"""`qa user`: many at once from a file, disabled ones, other logins, desktops in other hands."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from sqlalchemy import select, update

from appliance.model import Secret, UserState, VmId, VmState
from appliance.passwords import matches
from appliance.storage.operations import Kind
from appliance.storage.paths import Paths
from appliance.storage.schema import events, vm_runtimes
from tests.support.qa import Installation, stored_password

NO_PASSWORD = "login\nalice\n"


@pytest.fixture
def office(qa: Installation) -> Installation:
    """An OSF, nobody yet."""
    qa.ok("osf", "add", "name=office")
    return qa


def written(qa: Installation, text: str, name: str = "users.csv") -> Path:
    file = qa.directory / name
    file.write_text(text)
    return file


def runtime(qa: Installation, vm_id: int, **values: object) -> None:
    """Say of a VM what the daemon or the broker would."""

    async def write() -> None:
        async with qa.write() as tx:
            await tx.connection.execute(
                update(vm_runtimes).where(vm_runtimes.c.vm_id == vm_id).values(**values)
            )

    asyncio.run(write())


class TestMany:
    def test_users_with_their_desktops(self, office: Installation) -> None:
        roster = written(
            office, "login,password,osf,vm\nalice,one,office,\nbob,two,office,bobs\ncarol,three,,\n"
        )
        assert office.ok("user", "add", f"csv={roster}").out == "Added 3 users and 2 VMs.\n"
        assert [(vm["name"], vm["user"]) for vm in office.listed("vm")] == [
            ("alice", "alice"),
            ("bobs", "bob"),
        ]
        assert matches(stored_password(office, 2), Secret("two"))

    def test_from_standard_input(self, office: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("\ufefflogin,password\nalice,one\n"))
        said = office.ok("user", "add", "csv=-", "-o", "json")
        assert json.loads(said.out) == {"users": 1, "vms": 0, "generated": 0}

    def test_missing_passwords_are_made_up_and_told_in_a_private_file(self, office: Installation) -> None:
        roster = written(office, "login,password\nalice,\nbob,two\n")
        out = office.directory / "out.csv"
        said = office.ok("user", "add", f"csv={roster}", f"passwords-out={out}")
        heading, line = out.read_text().splitlines()
        login, _, password = line.partition(",")
        assert (heading, login) == ("login,password", "alice")
        assert out.stat().st_mode & 0o777 == 0o600
        assert matches(stored_password(office, 1), Secret(password))
        assert password not in said.out + said.err

    def test_without_a_place_for_them_nothing_is_made_up(self, office: Installation) -> None:
        said = office("user", "add", f"csv={written(office, NO_PASSWORD)}")
        assert said.status == 2
        assert "passwords-out=FILE" in said.err
        assert office.listed("user") == []

    def test_a_file_of_passwords_is_never_overwritten(self, office: Installation) -> None:
        out = written(office, "precious", "out.csv")
        said = office("user", "add", f"csv={written(office, NO_PASSWORD)}", f"passwords-out={out}")
        assert said.status == 1
        assert "is there already" in said.err
        assert (out.read_text(), office.listed("user")) == ("precious", [])

    def test_all_wrong_lines_are_told_and_nobody_is_added(self, office: Installation) -> None:
        roster = written(
            office,
            "login,password,osf\nalice,canary-1,office\nroot,canary-2,\nALICE,canary-3,\nbob,canary-4,nowhere\n",
        )
        out = office.directory / "out.csv"
        said = office("user", "add", f"csv={roster}", f"passwords-out={out}")
        assert said.status == 1
        for reason in (
            "line 3: ",
            "line 4: login=alice: there is a user",
            "line 5: there is no OSF 'nowhere'",
        ):
            assert reason in said.err
        assert "line 2" not in said.err
        assert "canary" not in said.err
        assert (office.listed("user"), office.listed("vm"), out.exists()) == ([], [], False)

    def test_more_desktops_than_addresses_are_refused_as_a_whole(self, office: Installation) -> None:
        roster = written(office, "login,password,osf\n" + "".join(f"u{n},x,office\n" for n in range(6)))
        said = office("user", "add", f"csv={roster}")
        assert said.status == 1
        assert "line 7: no address is left" in said.err
        assert office.listed("user") == []


class TestDisabled:
    def test_sessions_end_and_desktops_go_on(self, qa: Installation) -> None:
        qa.with_vm()
        runtime(
            qa,
            1,
            vm_state=VmState.RUNNING,
            user_state=UserState.CONNECTED,
            l7r_session="s",
            real_user_id=1,
        )
        assert (qa.listed("user")[0]["vms"], qa.listed("user")[0]["connected"]) == (1, 1)
        assert qa.ok("user", "disable", "-f", "login=alice").out == "Disabled 1 users.\n"
        (vm,) = qa.listed("vm")
        assert (vm["user_cmd"], vm["vm_state"], vm["vm_cmd"]) == ("abort", "running", None)
        assert qa.listed("user", "enabled=no")[0]["login"] == "alice"
        assert qa.ok("user", "enable", "-f", "login=alice").out == "Enabled 1 users.\n"
        assert qa.listed("user")[0]["enabled"] is True

    def test_only_those_who_change_are_counted(self, qa: Installation) -> None:
        qa.with_vm()
        qa.ok("user", "disable", "--yes")
        assert qa.ok("user", "disable", "--yes").out == "Disabled 0 users.\n"
        assert "Nothing matches" in qa.ok("user", "enable", "-f", "login=nobody").err

    def test_the_list_says_so(self, qa: Installation) -> None:
        qa.with_vm().ok("user", "disable", "--yes")
        heading, _, row = qa.ok("user", "list").out.splitlines()
        assert heading.split() == ["Id", "Login", "Enabled", "VMs", "Connected"]
        assert row.split() == ["1", "alice", "no", "1", "0"]


class TestOtherLogin:
    def test_a_user_can_be_called_otherwise(self, qa: Installation) -> None:
        qa.with_vm()
        (before,) = qa.listed("user")
        assert qa.ok("user", "edit", "login=Alicia", "-f", "login=alice").out == "Edited 1 users.\n"
        (after,) = qa.listed("user")
        assert (after["login"], after["uid"]) == ("alicia", before["uid"])
        assert qa.listed("vm")[0]["user"] == "alicia"
        assert matches(stored_password(qa, 1), Secret("secret"))

    def test_two_cannot_share_one(self, qa: Installation) -> None:
        qa.with_vm().ok("user", "add", "login=bob", "password=x")
        assert "there is a user of this login" in qa("user", "edit", "login=bob", "-f", "login=alice").err
        assert "2 users cannot share one login" in qa("user", "edit", "login=carol", "--yes").err
        assert [user["login"] for user in qa.listed("user")] == ["alice", "bob"]

    def test_not_while_a_desktop_is_in_use(self, qa: Installation) -> None:
        qa.with_vm()
        runtime(qa, 1, vm_state=VmState.RUNNING)
        said = qa("user", "edit", "login=alicia", "-f", "login=alice")
        assert said.status == 1
        assert "web-1 (running)" in said.err
        assert qa.listed("user")[0]["login"] == "alice"


class TestGiven:
    @pytest.fixture
    def two(self, qa: Installation) -> Installation:
        """Alice has two VMs, bob none."""
        qa.with_vm().ok("vm", "add", "name=web-2", "user=alice", "osf=desktop")
        qa.ok("user", "add", "login=bob", "password=x")
        return qa

    def owners(self, qa: Installation) -> list[str]:
        return [vm["user"] for vm in qa.listed("vm")]

    def test_one_vm(self, two: Installation) -> None:
        assert two.ok("user", "give", "user=alice", "to=bob", "vm=web-2").out == "Gave 1 VMs.\n"
        assert self.owners(two) == ["alice", "bob"]

    def test_all_vms_asks(self, two: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        assert two("user", "give", "user=alice", "to=bob").status == 1
        assert two.ok("user", "give", "user=alice", "to=bob", "--yes").out == "Gave 2 VMs.\n"
        assert self.owners(two) == ["bob", "bob"]

    @pytest.mark.parametrize(
        "busy",
        [
            {"vm_state": VmState.RUNNING},
            {"vm_cmd": "start", "host_id": 1},
            {"user_state": UserState.CONNECTING, "l7r_session": "s"},
        ],
        ids=["running", "wished", "waited for"],
    )
    def test_all_or_none_while_one_is_in_use(self, two: Installation, busy: dict[str, object]) -> None:
        runtime(two, 2, **busy)
        said = two("user", "give", "user=alice", "to=bob", "--yes")
        assert said.status == 1
        assert "web-2" in said.err
        assert self.owners(two) == ["alice", "alice"]

    def test_what_is_not_theirs_is_not_given(self, two: Installation) -> None:
        assert "bob has no VM 'web-1'" in two("user", "give", "user=bob", "to=alice", "vm=web-1").err
        assert "the same user" in two("user", "give", "user=alice", "to=ALICE", "vm=web-1").err
        assert self.owners(two) == ["alice", "alice"]

    def test_a_home_that_cannot_be_opened_stays_where_it_is(self, two: Installation) -> None:
        two.ok("osf", "add", "name=machines", "backend=kvm", "user_storage_size=1g")
        two.ok("vm", "add", "name=big", "user=alice", "osf=machines")
        disk = Paths(two.settings).home_disk(VmId(3))
        disk.touch()
        said = two("user", "give", "user=alice", "to=bob", "--yes")
        assert said.status == 1
        assert "the home of big" in said.err
        assert self.owners(two) == ["alice"] * 3
        disk.unlink()
        two.ok("user", "give", "user=alice", "to=bob", "--yes")
        assert self.owners(two) == ["bob"] * 3

    def test_a_vm_whose_home_is_on_its_way_does_not_start(self, two: Installation) -> None:
        async def begin() -> None:
            async with two.write() as tx:
                await tx.operations.begin(Kind.VM_GIVE, 1, owner="test", pid=1, plan="{}")

        asyncio.run(begin())
        said = two("vm", "start", "-f", "name=web-1")
        assert said.status == 1
        assert "the home of web-1 is being handed over to alice" in said.err
        two.ok("vm", "start", "-f", "name=web-2")

    def test_it_is_noted_who_gave_what_to_whom(self, two: Installation) -> None:
        two.ok("user", "give", "user=alice", "to=bob", "vm=web-1")

        async def noted() -> list[tuple[str | None, ...]]:
            columns = (events.c.object, events.c.was, events.c.now)
            async with two.store() as store, store.read() as tx:
                rows = await tx.connection.execute(select(*columns).where(events.c.what == "user give"))
                return [tuple(row) for row in rows]

        assert asyncio.run(noted()) == [("vm 1", "alice", "bob")]
