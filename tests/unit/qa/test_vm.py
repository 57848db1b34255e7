"""`qa vm`: addresses, names, wishes."""

from __future__ import annotations

import asyncio
import io
import socket
from typing import Any

import pytest
import yaml
from sqlalchemy import update

from appliance.model import UserState, VmState
from appliance.storage.schema import vm_counters, vm_runtimes
from tests.support.qa import Installation


@pytest.fixture
def one(qa: Installation) -> Installation:
    """An installation with one VM."""
    return qa.with_vm()


def set_runtime(qa: Installation, vm_id: int, **values: Any) -> None:
    """Be the HKD."""

    async def write() -> None:
        async with qa.write() as tx:
            await tx.connection.execute(
                update(vm_runtimes).where(vm_runtimes.c.vm_id == vm_id).values(**values)
            )

    asyncio.run(write())


def add(qa: Installation, name: str, *words: str) -> None:
    qa.ok("vm", "add", f"name={name}", "user=alice", "osf=desktop", *words)


def test_addresses_are_given_from_the_top_and_run_out(one: Installation) -> None:
    for number in range(2, 6):
        add(one, f"web-{number}")
    assert [vm["ip"] for vm in one.listed("vm")] == [f"10.9.0.{last}" for last in (6, 5, 4, 3, 2)]
    said = one("vm", "add", "name=web-6", "user=alice", "osf=desktop")
    assert said.status == 1
    assert "no address is left" in said.err


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        ("10.9.0.6", "the VM web-1 has this address"),
        ("10.9.0.1", "gateway"),
        ("10.9.0.7", "10.9.0.2 to 10.9.0.6"),
        ("10.9.0.0", "10.9.0.2 to 10.9.0.6"),
        ("10.9.1.2", "10.9.0.2 to 10.9.0.6"),
        ("10.9.0", "no IPv4 address"),
    ],
)
def test_an_address_must_be_free_and_a_guests(one: Installation, ip: str, reason: str) -> None:
    one.ok("osf", "add", "name=ours", "memory=1", "backend=lxc")
    said = one("vm", "add", "name=web-2", "user=alice", "osf=ours", f"ip={ip}")
    assert said.status in (1, 2)
    assert reason in said.err
    assert len(one.listed("vm")) == 1


@pytest.mark.parametrize("name", ["", "a_b", "-a", "a-", "a.b", "a b", "x" * 64, "ä"])
def test_a_name_must_be_a_host_name(one: Installation, name: str) -> None:
    assert one("vm", "add", f"name={name}", "user=alice", "osf=desktop").status == 2
    assert one("vm", "edit", f"name={name}", "--yes").status == 2
    assert [vm["name"] for vm in one.listed("vm")] == ["web-1"]


def test_ids_are_not_used_twice_and_slots_are(one: Installation) -> None:
    one.ok("vm", "del", "--yes")
    add(one, "web-2")
    (vm,) = one.listed("vm")
    assert vm["id"] == 2


def test_who_and_what_may_be_named_by_id(one: Installation) -> None:
    one.ok("vm", "add", "name=web-2", "user_id=1", "osf_id=1", "di_tag=pilot")
    assert one.listed("vm", "name=web-2")[0]["di_tag"] == "pilot"
    assert one("vm", "add", "name=web-3", "user_id=9", "osf_id=1").err == (
        "Error: there is no user with id 9\n"
    )


def test_start_is_a_wish_with_a_host(one: Installation) -> None:
    assert one.ok("vm", "start", "-f", "name=web-1").out == "Started 1 VMs.\n"
    (vm,) = one.listed("vm")
    assert (vm["vm_cmd"], vm["host"], vm["started_by"], vm["vm_state"]) == (
        "start",
        "node1",
        "command",
        "stopped",
    )


def test_the_daemon_is_told_after_the_commit(one: Installation) -> None:
    bell = one.directory / "run/doorbell"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(bell))
        listening.setblocking(False)
        one.ok("vm", "list")
        with pytest.raises(BlockingIOError):
            listening.recv(1)
        assert one.ok("vm", "start", "--yes").err == ""
        assert listening.recv(1) == b""


def test_who_wishes_something_while_there_is_no_daemon_is_told(one: Installation) -> None:
    note = "The appliance does not run on this host: what it is to do waits until it starts.\n"
    assert one.ok("vm", "start", "--yes", "--dry-run").err == "Nothing was changed (--dry-run).\n"
    assert one.ok("vm", "start", "--yes").err == note
    assert one.ok("vm", "start", "--yes").err == "", "it is wished already"
    assert one.ok("vm", "block", "--yes").err == "", "that holds at once"


def test_stop_withdraws_a_start_that_nobody_took(one: Installation) -> None:
    one.ok("vm", "start", "--yes")
    assert one.ok("vm", "stop", "--yes").out == "Stopped 1 VMs.\n"
    (vm,) = one.listed("vm")
    assert (vm["vm_cmd"], vm["host"], vm["started_by"]) == (None, None, None)


def test_start_fails_where_no_host_may_run_it(one: Installation) -> None:
    async def block() -> None:
        async with one.write() as tx:
            await tx.connection.exec_driver_sql("UPDATE host_runtimes SET blocked = 1")

    asyncio.run(block())
    said = one("vm", "start", "--yes")
    assert said.status == 1
    assert "no host" in said.err


def test_stop_and_restart_of_what_runs(one: Installation) -> None:
    add(one, "web-2")
    set_runtime(one, 1, vm_state=VmState.RUNNING, host_id=1)
    assert one.ok("vm", "restart", "--yes").out == "Restarted 1 VMs.\n"
    assert [(vm["vm_cmd"], vm["restart"]) for vm in one.listed("vm")] == [("stop", True), (None, False)]
    assert one.ok("vm", "stop", "--yes").out == "Stopped 1 VMs.\n"
    assert [(vm["vm_cmd"], vm["restart"]) for vm in one.listed("vm")] == [("stop", False), (None, False)]


def test_disconnects_those_who_are_connected(one: Installation) -> None:
    add(one, "web-2")
    set_runtime(one, 2, user_state=UserState.CONNECTED, l7r_session="s")
    assert one.ok("vm", "disconnect_user", "--yes").out == "Disconnected 1 users.\n"
    assert [vm["user_cmd"] for vm in one.listed("vm")] == [None, "abort"]


def test_only_stopped_vms_are_deleted_and_all_or_none(one: Installation) -> None:
    add(one, "web-2")
    set_runtime(one, 1, vm_state=VmState.RUNNING, host_id=1)
    said = one("vm", "del", "--yes")
    assert said.status == 1
    assert "web-1 (running)" in said.err
    assert len(one.listed("vm")) == 2
    assert one.ok("vm", "del", "-f", "name=web-2").out == "Deleting 1 vm(s)\n"
    assert one.listed("kept") == []


def test_edit_changes_three_things_and_no_other(one: Installation) -> None:
    one.ok("vm", "edit", "name=web-9", "di_tag=pilot", "ip=10.9.0.3", "-f", "id=1")
    (vm,) = one.listed("vm")
    assert (vm["name"], vm["di_tag"], vm["ip"]) == ("web-9", "pilot", "10.9.0.3")
    for word in ("vm_state=running", "user_id=2", "blocked=1", "storage=/etc"):
        assert one("vm", "edit", word, "--yes").status == 2


def test_the_address_of_what_runs_does_not_change(one: Installation) -> None:
    set_runtime(one, 1, vm_state=VmState.RUNNING, host_id=1)
    assert one("vm", "edit", "ip=10.9.0.3", "--yes").status == 1
    one.ok("vm", "edit", "ip=10.9.0.6", "di_tag=pilot", "--yes")
    assert one.listed("vm")[0]["di_tag"] == "pilot"


def test_names_and_addresses_are_not_shared(one: Installation) -> None:
    add(one, "web-2")
    assert one("vm", "edit", "name=web-2", "-f", "id=1").status == 1
    assert one("vm", "edit", "name=web-3", "--yes").status == 1
    assert one("vm", "edit", "ip=10.9.0.5", "-f", "id=1").status == 1
    assert [vm["ip"] for vm in one.listed("vm")] == ["10.9.0.6", "10.9.0.5"]


def test_nothing_matching_is_no_failure(one: Installation) -> None:
    said = one("vm", "start", "-f", "name=nobody")
    assert (said.status, said.out, said.err) == (0, "Started 0 VMs.\n", "Nothing matches.\n")


def test_the_failure_of_the_last_run_is_shown(one: Installation) -> None:
    set_runtime(
        one, 1, failure="no answer of the VMA", failure_console="boot\x1b[0m\nlogin:", failure_cause="image"
    )
    table = one.ok("vm", "list").out
    assert "no answer of the VMA" in table
    assert one.listed("vm")[0]["failure_console"] == "boot\x1b[0m\nlogin:"


def test_quiet_prints_rows_alone(one: Installation) -> None:
    said = one.ok("vm", "list", "-q")
    assert said.out.startswith("1 web-1 alice")
    assert one("vm", "foo=1", "-q").status == 2


def test_several_at_once_have_numbers_and_addresses_of_their_own(one: Installation) -> None:
    said = one.ok("vm", "add", "name=lab", "user=alice", "osf=desktop", "di_tag=pilot", "bulk=3")
    assert said.out == "VM added with id 4\n"
    made = one.listed("vm", "name=lab*")
    assert [(vm["id"], vm["name"], vm["ip"]) for vm in made] == [
        (2, "lab-0", "10.9.0.5"),
        (3, "lab-1", "10.9.0.4"),
        (4, "lab-2", "10.9.0.3"),
    ]
    assert {vm["di_tag"] for vm in made} == {"pilot"}
    assert len({vm["uuid"] for vm in made}) == 3


def test_several_at_once_are_an_array_for_programs(one: Installation) -> None:
    said = one.ok("vm", "add", "name=lab", "user=alice", "osf=desktop", "bulk=1", "-o", "json")
    assert [vm["name"] for vm in said.json] == ["lab-0"]


def test_all_addresses_can_be_given_out_at_once(one: Installation) -> None:
    one.ok("vm", "add", "name=lab", "user=alice", "osf=desktop", "bulk=4")
    assert one("vm", "add", "name=one", "user=alice", "osf=desktop", "bulk=1").status == 1
    assert len(one.listed("vm")) == 5


def test_block_and_unblock(one: Installation) -> None:
    add(one, "web-2")
    said = one.ok("vm", "block", "-f", "name=web-2")
    assert (said.out, said.err) == ("", "")
    assert [(vm["blocked"], vm["block_cause"]) for vm in one.listed("vm")] == [(False, None), (True, "admin")]
    assert " yes " in one.ok("vm", "list", "-f", "blocked=yes").out
    one.ok("vm", "start", "-f", "name=web-2")
    assert one.listed("vm", "name=web-2")[0]["vm_cmd"] == "start"
    one.ok("vm", "unblock", "--yes")
    assert one.listed("vm", "blocked=yes") == []


def test_unblock_lifts_what_an_image_did(one: Installation) -> None:
    set_runtime(one, 1, blocked=True, block_cause="image", failed_di_id=1, failures=2)
    one.ok("vm", "unblock", "-f", "block_cause=image")
    (vm,) = one.listed("vm")
    assert (vm["blocked"], vm["block_cause"], vm["failures"]) == (False, None, 0)


def test_counters_have_totals_and_a_row_each(one: Installation) -> None:
    add(one, "web-2")
    set_runtime(one, 2, vm_state=VmState.RUNNING, host_id=1)
    one.ok("vm", "block", "-f", "name=web-1")

    async def count() -> None:
        async with one.write() as tx:
            await tx.connection.execute(
                update(vm_counters).where(vm_counters.c.vm_id == 2).values(run_attempts=3, run_ok=2)
            )

    asyncio.run(count())
    assert one.ok("vm", "counters").out == (
        "Virtual machines: 2\nRunning: 1\nBlocked: 1\n\n"
        "Id Name  Run attempts Run OK\n"
        "----------------------------\n"
        "1  web-1 0            0\n"
        "2  web-2 3            2\n"
    )
    assert one.ok("vm", "counters", "-q", "-f", "id=2").out == "2 web-2 3 2\n"
    assert one.ok("vm", "counters", "-f", "id=2", "-o", "csv").out == (
        "id,name,vm_state,blocked,run_attempts,run_ok\n2,web-2,running,false,3,2\n"
    )


def test_one_vm_is_shown_whole_with_the_end_of_its_console(one: Installation) -> None:
    add(one, "web-2")
    set_runtime(
        one, 1, failure="no answer of the VMA", failure_console="boot\x1b[0m\nlogin:", failure_cause="image"
    )
    lines = one.ok("vm", "show", "-f", "name=web-1").out.splitlines()
    assert ["name", "web-1"] in map(str.split, lines)
    assert ["failure", "no", "answer", "of", "the", "VMA"] in map(str.split, lines)
    assert lines[lines.index("failure_console") :][1:3] == ["    boot [0m", "    login:"]
    shown = one.ok("vm", "show", "-f", "name=web-1", "-o", "json").json
    assert shown == one.listed("vm", "name=web-1")[0]
    assert yaml.safe_load(one.ok("vm", "show", "-f", "name=web-1", "-o", "yaml").out) == shown


def test_the_osf_of_a_stopped_vm_changes_within_its_backend(one: Installation) -> None:
    one.ok("osf", "add", "name=big", "memory=4g")
    one.ok("osf", "add", "name=contained", "backend=lxc")
    one.ok("vm", "edit", "osf=big", "-f", "name=web-1")
    assert one.listed("vm")[0]["osf"] == "big"
    said = one("vm", "edit", "osf=contained", "--yes")
    assert (said.status, one.listed("vm")[0]["osf"]) == (1, "big")
    assert "runs on nothing, and the OSF contained on lxc" in said.err
    set_runtime(one, 1, vm_state=VmState.RUNNING, host_id=1)
    assert one("vm", "edit", "osf=desktop", "--yes").status == 1
    one.ok("vm", "edit", "osf=big", "di_tag=pilot", "--yes")


def test_a_tag_without_an_image_does_not_break_the_list(one: Installation) -> None:
    one.ok("vm", "edit", "di_tag=nowhere", "--yes")
    (vm,) = one.listed("vm")
    assert (vm["next_di"], vm["outdated"]) == (None, False)


def test_console_wants_one_vm_and_the_daemon(one: Installation) -> None:
    add(one, "web-2")
    assert one("vm", "console").status == 1
    assert one("vm", "console", "-f", "name=web-1").status == 3


@pytest.mark.parametrize(
    ("filter_", "reason"),
    [
        ("name", "has no '='"),
        ("nmae=x", "no filter key 'nmae' (did you mean name?)"),
        ("state=asleep", "one of"),
        ("id=x", "id=x"),
    ],
)
def test_a_malformed_filter_is_one_clear_line(one: Installation, filter_: str, reason: str) -> None:
    said = one("vm", "start", "-f", filter_)
    assert said.status == 2
    assert reason in said.err
    assert said.err.count("\n") == 1
    assert one.listed("vm")[0]["vm_cmd"] is None


@pytest.mark.parametrize("words", [["vm", "fly"], ["vm"], ["ship", "list"], []])
def test_unknown_words_are_answered_with_what_there_is(qa: Installation, words: list[str]) -> None:
    said = qa(*words)
    assert said.status == 2
    assert "vm" in said.err


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "del", "disconnect_user", "edit"])
def test_everything_at_once_needs_a_yes(
    one: Installation, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    words = ["di_tag=x"] if verb == "edit" else []
    said = one("vm", verb, *words)
    assert said.status == 1
    assert "--yes" in said.err


def test_a_guest_of_others_may_be_anywhere(one: Installation) -> None:
    one.ok("vm", "add", "name=far", "user=alice", "osf=desktop", "ip=198.51.100.7")
    one.ok("vm", "edit", "ip=198.51.100.8", "-f", "name=far")
    assert [vm["ip"] for vm in one.listed("vm") if vm["name"] == "far"] == ["198.51.100.8"]
