"""The VMA with the real nxagent: the life of a desktop, and who may be its user."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import VmaRefusedError
from appliance.vma.provision import ProvisionError, make_home
from appliance.vma.wire import XState
from appliance.vma_client import Answer
from tests.support.vma_guest import DISPLAY, GUEST, PORT, Guest, guest, screen, until, viewer

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]


@pytest.fixture
def vm() -> Iterator[Guest]:
    with guest() as found:
        found.boot()
        yield found


@pytest.fixture
def display(vm: Guest) -> Iterator[None]:
    with screen(vm):
        yield


def connected(vm: Guest) -> None:
    vm.start(vm_user_uid="2001", vm_user_gid="2001")
    vm.wait(XState.LISTENING)
    viewer(vm)
    vm.wait(XState.CONNECTED)


def test_a_desktop_lives_through_start_client_loss_resume_and_stop(vm: Guest, display: None) -> None:
    vm.start(vm_user_uid="2001", vm_user_gid="2001")
    vm.wait(XState.LISTENING)
    client = viewer(vm)
    vm.wait(XState.CONNECTED)
    until(lambda: bool(vm.processes("xterm")), 30, "xterm", vm.logs)
    agent, xterm = vm.processes("nxagent"), vm.processes("xterm")

    os.kill(client.pid, signal.SIGKILL)
    vm.wait(XState.SUSPENDED)
    vm.start(vm_user_uid="2001", vm_user_gid="2001", client_geometry="640x480")
    vm.wait(XState.LISTENING)
    viewer(vm)
    vm.wait(XState.CONNECTED)
    assert (vm.processes("nxagent"), vm.processes("xterm")) == (agent, xterm), "the same programs"
    assert "geometry=640x480" in (vm.work / "run/nxagent.conf").read_text()

    assert vm.call(lambda client: client.x_stop()) is XState.STOPPING
    vm.wait(XState.STOPPED)
    assert not vm.processes("nxagent")
    assert not vm.processes("xinit")
    assert not [
        path for path in (vm.work / "run").iterdir() if path.name.startswith(("nxagent.state", "nxagent.pid"))
    ]


def test_the_session_runs_as_the_user_with_the_servers_ids(vm: Guest, display: None) -> None:
    connected(vm)
    until(lambda: bool(vm.processes("xterm")), 30, "xterm", vm.logs)
    for name in ("nxagent", "xterm"):
        owner = Path(f"/proc/{vm.processes(name)[0]}").stat()
        assert (owner.st_uid, owner.st_gid) == (2001, 2001)
    assert vm.inside("stat", "-c", "%u:%g %a", "/home/alice").stdout == "2001:2001 700\n"
    assert ".bashrc" in vm.inside("ls", "-A", "/home/alice").stdout
    environ = vm.inside("cat", f"/proc/{vm.processes('xterm')[0]}/environ").stdout.split("\0")
    assert {"HOME=/home/alice", "USER=alice", f"DISPLAY=:{DISPLAY}"} <= set(environ)
    assert vm.inside("stat", "-c", "%G %a", str(vm.work / "run/slave.conf")).stdout == "alice 640\n"
    assert "K" * 64 not in vm.logs(), "the slave key is in no log"


def test_x_itself_is_not_reachable_from_outside(vm: Guest, display: None) -> None:
    connected(vm)
    listening = vm.inside("ss", "-Htln").stdout
    assert f":{6000 + DISPLAY} " not in listening
    assert f":{PORT} " in listening


def test_x_start_while_connected_suspends_and_says_retry(vm: Guest, display: None) -> None:
    connected(vm)
    with pytest.raises(VmaRefusedError, match="connected, suspending it, retry later"):
        vm.start()
    vm.wait(XState.SUSPENDED)
    vm.start()
    vm.wait(XState.LISTENING)
    viewer(vm)
    vm.wait(XState.CONNECTED)


def test_x_suspend_keeps_the_programs(vm: Guest, display: None) -> None:
    connected(vm)
    agent = vm.processes("nxagent")
    assert vm.call(lambda client: client.x_suspend()) is XState.STARTING  # sic: protocol.md 3.3
    vm.wait(XState.SUSPENDED)
    assert vm.processes("nxagent") == agent


def test_a_resume_nobody_follows_falls_back_to_suspended(display: None, vm: Guest) -> None:
    connected(vm)
    agent = vm.processes("nxagent")
    vm.call(lambda client: client.x_suspend())
    vm.wait(XState.SUSPENDED)
    vm.start()
    vm.wait(XState.LISTENING)
    vm.wait(XState.SUSPENDED, within_s=40)
    assert vm.processes("nxagent") == agent


def test_a_first_start_nobody_follows_is_ended(vm: Guest) -> None:
    vm.start()
    vm.wait(XState.LISTENING)
    vm.wait(XState.STOPPED, within_s=40)
    assert not vm.processes("nxagent")
    vm.start()
    vm.wait(XState.LISTENING)


def test_two_starts_at_once_launch_one_session(vm: Guest) -> None:
    request = b"GET /vma/x_start?qvd.vm.user.name=alice HTTP/1.1\r\n\r\n"
    answers = vm.raw(request + request)
    assert answers.count(b'"starting"\n') == 1
    assert b"state starting, try again" in answers
    vm.wait(XState.LISTENING)
    assert vm.nx_log().count("Starting session") == 1


def test_a_killed_vma_finds_its_session_again(vm: Guest, display: None) -> None:
    connected(vm)
    agent = vm.processes("nxagent")
    os.kill(vm.vma_pid(), signal.SIGKILL)
    vm.boot()
    assert vm.state() is XState.CONNECTED
    vm.call(lambda client: client.x_suspend())
    vm.wait(XState.SUSPENDED)
    vm.start()
    vm.wait(XState.LISTENING)
    viewer(vm)
    vm.wait(XState.CONNECTED)
    assert vm.processes("nxagent") == agent
    vm.call(lambda client: client.x_stop())
    vm.wait(XState.STOPPED)
    assert not vm.processes("nxagent")


def test_a_vma_killed_with_everything_else_starts_afresh(vm: Guest) -> None:
    vm.start()
    vm.wait(XState.LISTENING)
    os.kill(vm.vma_pid(), signal.SIGKILL)
    os.kill(vm.processes("xinit")[0], signal.SIGKILL)
    until(lambda: not vm.processes("xinit"), 30, "death of xinit", vm.logs)
    vm.boot()
    assert vm.state() is XState.STOPPED
    vm.start()
    vm.wait(XState.LISTENING)


def test_a_clean_stop_ends_the_session(vm: Guest, display: None) -> None:
    connected(vm)
    os.kill(vm.vma_pid(), signal.SIGTERM)
    assert vm.vma is not None
    assert vm.vma.wait(15) == 0
    assert not vm.processes("nxagent")
    assert not (vm.work / "run/nxagent.state").exists()


def test_poweroff_answers_then_ends_the_session_then_the_guest(display: None, vm: Guest) -> None:
    connected(vm)
    os.kill(vm.vma_pid(), signal.SIGTERM)
    assert vm.vma is not None
    vm.vma.wait(15)
    vm.settings(command__poweroff=f"touch {vm.work}/off")
    vm.boot()
    connected(vm)
    vm.call(lambda client: client.poweroff())
    until(lambda: (vm.work / "off").exists(), 30, "power-off", vm.logs)
    assert not vm.processes("nxagent")


def test_only_the_gateway_is_answered(vm: Guest) -> None:
    code = (
        "import socket,sys; s=socket.create_connection((sys.argv[1],3030),3);"
        "s.sendall(b'GET /vma/ping HTTP/1.1\\r\\n\\r\\n'); print(s.recv(100))"
    )
    for address in ("127.0.0.1", GUEST):
        done = vm.inside("/usr/bin/python3", "-c", code, address)
        assert done.stdout.strip() in ("b''", "")
        assert "200" not in done.stdout
    assert b"200 OK" in vm.raw(b"GET /vma/ping HTTP/1.1\r\n\r\n"), "the host is"


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ({"vm_user_name": "root"}, "'root' is a system account"),
        ({"vm_user_name": "daemon"}, "'daemon' is a system account"),
        ({"vm_user_name": "nobody"}, "'nobody' is a system account"),
        ({"vm_user_name": "sudo"}, "'sudo' is a system group"),
        ({"vm_user_name": "bob", "vm_user_uid": "0"}, "desktop users have numbers from 1000"),
        ({"vm_user_name": "bob", "vm_user_uid": "999"}, "desktop users have numbers from 1000"),
        ({"vm_user_name": "-oops"}, "cannot be a login name"),
        ({"vm_user_name": "../etc"}, "cannot be a login name"),
        ({"vm_user_name": "bob", "client_geometry": "1x1,cups=1"}, "qvd.client.geometry"),
    ],
)
def test_no_desktop_for_an_impossible_user(vm: Guest, user: dict[str, str], reason: str) -> None:
    vm.start(**user)
    vm.wait(XState.STOPPED)
    until(lambda: reason in vm.logs(), 30, f"line about {reason!r}", vm.logs)
    assert not vm.processes("nxagent")


def test_homes_and_accounts_that_contradict_the_server(vm: Guest) -> None:
    vm.inside("useradd", "-M", "-u", "2100", "imaged")
    vm.inside(
        "sh", "-c", "mkdir /home/carol && echo precious > /home/carol/file && chown -R 3000:3000 /home/carol"
    )
    for user, uid, reason in (
        ("imaged", "2101", "account 'imaged' with uid 2100, the server says 2101"),
        ("dave", "2100", "uid 2100 of 'dave' belongs to account 'imaged'"),
        ("carol", "3001", "/home/carol belongs to uid 3000"),
    ):
        vm.start(vm_user_name=user, vm_user_uid=uid)
        vm.wait(XState.STOPPED)
        until(lambda reason=reason: reason in vm.logs(), 30, repr(reason), vm.logs)  # type: ignore[misc]
    assert vm.inside("stat", "-c", "%u", "/home/carol", "/home/carol/file").stdout == "3000\n3000\n"
    assert "carol:" not in vm.inside("cat", "/etc/passwd").stdout


def test_a_home_keeps_its_owner_when_the_server_gives_no_uid(vm: Guest) -> None:
    vm.inside("sh", "-c", "mkdir /home/erin && chown 3100:3100 /home/erin")
    vm.start(vm_user_name="erin")
    vm.wait(XState.LISTENING)
    assert vm.inside("id", "-u", "erin").stdout == "3100\n"


def test_hooks_run_in_order_and_a_refusal_stops_the_launch(vm: Guest) -> None:
    os.kill(vm.vma_pid(), signal.SIGTERM)
    assert vm.vma is not None
    vm.vma.wait(10)
    hook = vm.work / "hook"
    hook.write_text(f'#!/bin/sh\necho "$@" >> {vm.work}/hooks\ntest ! -e {vm.work}/refuse\n')
    hook.chmod(0o755)
    keys = (
        "on_action.pre-connect",
        "on_provisioning.after_add_user",
        "on_action.connect",
        "on_state.disconnected",
    )
    vm.settings(**{f"vma.{key}": str(hook) for key in keys})
    vm.boot()
    vm.start()
    vm.wait(XState.LISTENING)
    names = [line.split("qvd.hook.")[1].split()[1] for line in (vm.work / "hooks").read_text().splitlines()]
    assert names == ["stopped", "pre_connect", "after_add_user", "connect"]
    vm.call(lambda client: client.x_stop())
    vm.wait(XState.STOPPED)
    (vm.work / "refuse").touch()
    vm.start()
    vm.wait(XState.STOPPED)
    until(lambda: "vma.on_action.pre-connect" in vm.logs(), 30, "the hook's failure", vm.logs)


def test_an_unfinished_home_is_finished_and_a_strangers_is_not_touched(tmp_path: Path) -> None:
    skeleton = tmp_path / "skel"
    (skeleton / ".config").mkdir(parents=True)
    (skeleton / ".bashrc").write_text("hello")
    unfinished, strange, full = (tmp_path / name for name in ("unfinished", "strange", "full"))
    for place in (unfinished, strange, full):
        place.mkdir()
    (unfinished / ".bashrc").write_text("half")
    (strange / "file").touch()
    os.chown(strange, 3000, 3000)
    (full / "data").touch()
    make_home(str(unfinished), 2001, 2001, str(skeleton))
    assert (unfinished / ".bashrc").read_text() == "hello"
    assert {path.lstat().st_uid for path in (unfinished, *unfinished.rglob("*"))} == {2001}
    for place, owner in ((strange, 3000), (full, 0)):
        with pytest.raises(ProvisionError, match=f"belongs to uid {owner}, not to uid 2001"):
            make_home(str(place), 2001, 2001, str(skeleton))
        assert place.stat().st_uid == owner


def test_hooks_guard_what_ends_things(vm: Guest) -> None:
    os.kill(vm.vma_pid(), signal.SIGTERM)
    assert vm.vma is not None
    vm.vma.wait(10)
    hook = vm.work / "hook"
    hook.write_text(f'#!/bin/sh\necho "$@" >> {vm.work}/hooks\ntest ! -e {vm.work}/refuse\n')
    hook.chmod(0o755)
    keys = {f"vma.on_action.{action}": str(hook) for action in ("expire", "poweroff", "stop")}
    vm.settings(command__poweroff=f"touch {vm.work}/off", **keys)
    vm.boot()
    vm.call(lambda client: client.expire("2030-01-31 18:00:00", None, ask=1))
    assert vm.call(lambda client: client.expire_answer(20), timeout_s=25).answer is Answer.RESTART
    assert (vm.work / "hooks").read_text() == (
        "vm.expiration.soft 2030-01-31 18:00:00 qvd.vm.session.state stopped qvd.hook.on_action expire"
        f" vm.expiration.ask 1 vm.expiration.file {vm.work}/run/expire.state"
        f" vm.desktop.pidfile {vm.work}/run/nxagent.pid\n"
    )
    vm.start()
    vm.wait(XState.LISTENING)
    (vm.work / "refuse").touch()
    with pytest.raises(VmaRefusedError, match="hook of action stop failed"):
        vm.call(lambda client: client.x_stop())
    vm.call(lambda client: client.poweroff())
    time.sleep(0.5)
    assert vm.state() is XState.LISTENING
    assert not (vm.work / "off").exists(), "a failing hook cancels"
    (vm.work / "refuse").unlink()
    assert vm.call(lambda client: client.x_stop()) is XState.STOPPING


def test_a_hook_that_hangs_is_ended_and_the_host_is_answered_meanwhile(vm: Guest) -> None:
    os.kill(vm.vma_pid(), signal.SIGTERM)
    assert vm.vma is not None
    vm.vma.wait(10)
    hook = vm.work / "hook"
    hook.write_text("#!/bin/sh\nsleep 300\n")
    hook.chmod(0o755)
    vm.settings(vma__hook__timeout="10", **{"vma.on_action.stop": str(hook)})
    vm.boot()
    vm.start()
    vm.wait(XState.LISTENING)
    assert vm.call(lambda client: client.x_stop(), timeout_s=9) is XState.STOPPING
    assert vm.processes("sleep")[1:], "the hook goes on"
    until(lambda: "took longer than its time limit" in vm.logs(), 30, "the end of the hook", vm.logs)
    until(lambda: not vm.processes("sleep")[1:], 20, "end of sleep, but for the namespace's own", vm.logs)
