"""What is a user's own: the desktop, the home, and nothing of anybody else's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.trial import BIN, LOGIN, PORT, Trial
from tests.support.desktop import Desk, Init
from tests.support.images import Variants
from tests.support.inside import attempt, inside, restart, root

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

RAW = """
import base64, json, socket, ssl, sys
port, login, password, path = sys.argv[1:]
context = ssl._create_unverified_context()
with context.wrap_socket(socket.create_connection(("127.0.0.1", int(port)), 10)) as broker:
    token = base64.b64encode(f"{login}:{password}".encode()).decode()
    upgrade = "Connection: Upgrade\\r\\nUpgrade: QVD/1.0"
    head = f"GET {path} HTTP/1.1\\r\\nAuthorization: Basic {token}\\r\\n{upgrade}\\r\\n\\r\\n"
    broker.sendall(head.encode())
    print(broker.recv(4096).decode().splitlines()[0])
"""
"""A client that asks for whatever it likes; prints the status line."""
REACH = "import socket; socket.create_connection(('{0}', {1}), 2)"
VMA_PORT = 3030


@pytest.fixture
def pair(trial: Trial, image: Path) -> Desk:
    """A running appliance; desk1 belongs to alice, desk2 to bob."""
    trial.start()
    trial.furnish(image)
    trial.save_certificate()
    trial.add_user("bob", password(trial))
    trial.qa("vm", "add", "name=desk2", "user=bob", "osf=small")
    return Desk(trial, "desk1")


def test_two_users_see_and_reach_only_their_own(pair: Desk) -> None:
    trial = pair.trial
    screens = [pair.open("desk1"), pair.open("desk2", login="bob")]
    for screen, mine, others in zip(
        screens, ((LOGIN, "desk1"), ("bob", "desk2")), ("desk2", "desk1"), strict=True
    ):
        assert others not in screen.shows(*mine)
        screen.leave()

    ids = {name: trial.vm(name)["id"] for name in ("desk1", "desk2")}
    for login, own, other in ((LOGIN, "desk1", "desk2"), ("bob", "desk2", "desk1")):
        shown = client(trial, login, "-l", "--json")
        assert [desktop["name"] for desktop in json.loads(shown.stdout)] == [own]
        for wanted in (other, str(ids[other])):
            refused = client(trial, login, "--vm", wanted)
            assert refused.returncode == 4
            assert refused.stderr.startswith(f"qvd-client: there is no desktop '{wanted}'; yours: {own}")
        status = asked(trial, login, f"/qvd/connect_to_vm?id={ids[other]}")
        assert status.split()[1] == "403"
        assert trial.vm(other)["user_state"] == "disconnected"


def test_two_desktops_cannot_reach_each_other(pair: Desk) -> None:
    trial = pair.trial
    for name in ("desk1", "desk2"):
        trial.qa("vm", "start", "-f", f"name={name}")
    for name in ("desk1", "desk2"):
        trial.wait_for_state(name, "running")
    for name, other in (("desk1", "desk2"), ("desk2", "desk1")):
        own, address = trial.vm(name)["vm_address"], trial.vm(other)["vm_address"]
        assert attempt(pair.init(name), "python3", "-c", REACH.format(own, VMA_PORT)).returncode == 0
        assert attempt(pair.init(name), "python3", "-c", REACH.format(address, VMA_PORT)).returncode != 0
        from_host = [
            "ip",
            "netns",
            "exec",
            trial.netns,
            sys.executable,
            "-c",
            REACH.format(address, VMA_PORT),
        ]
        assert subprocess.run(from_host, check=False, timeout=10).returncode == 0


def test_the_root_is_fresh_and_the_home_stays_whatever_the_image(trial: Trial, variants: Variants) -> None:
    """The second image holds an account of its own, so the uid that it would give away next differs."""
    trial.start()
    trial.furnish(variants.make("as-built", {}))
    trial.save_certificate()
    desk = Desk(trial, "desk1")
    trial.qa("vm", "start", "-f", "name=desk1")
    trial.wait_for_state("desk1", "running")
    user_id = next(user["id"] for user in trial.listed("user") if user["login"] == LOGIN)
    uid = 20_000 + user_id
    home = trial.storage / "homefs" / f"{trial.vm('desk1')['id']}-fs" / LOGIN

    visit(desk)
    init = desk.init()
    assert accounts(init) == {"alice": uid}
    inside(init, "touch", "/opt/of-the-root")
    inside(init, "sh", "-c", f"echo kept >/home/{LOGIN}/of-the-home", uid=uid)
    owner = owners(home)
    assert len(set(owner)) == 1

    operator = {
        "etc/passwd": "operator:x:1000:1000::/home/operator:/bin/sh\n",
        "etc/group": "operator:x:1000:\n",
        "etc/shadow": "operator:!:20000:0:99999:7:::\n",
    }
    files = {path: variants.content(path) + line for path, line in operator.items()}
    trial.qa("di", "add", f"path={variants.make('with-an-operator', files)}", "osf=small")
    for di_id, others in ((1, {}), (2, {"operator": 1000})):
        trial.qa("di", "tag", f"di_id={di_id}", "tag=default")
        init = restart(desk)
        assert trial.vm("desk1")["current_di_id"] == di_id
        assert not (root(init) / "opt" / "of-the-root").exists()
        visit(desk)
        assert accounts(init) == {**others, "alice": uid}
        assert inside(init, "cat", f"/home/{LOGIN}/of-the-home", uid=uid) == "kept"
        inside(init, "sh", "-c", f"echo kept >/home/{LOGIN}/of-the-home", uid=uid)
        assert owners(home) == owner


def test_nobody_inherits_the_home_of_a_deleted_vm(pair: Desk) -> None:
    trial = pair.trial
    homes = trial.storage / "homefs"
    trial.qa("vm", "start", "-f", "name=desk1")
    trial.wait_for_state("desk1", "running")
    inside(pair.init(), "sh", "-c", "echo private >/home/diary")
    trial.qa("vm", "stop", "-f", "name=desk1")
    trial.wait_for_state("desk1", "stopped")
    old = trial.vm("desk1")["id"]
    trial.qa("vm", "del", "-f", "name=desk1")

    trial.qa("vm", "add", "name=desk1", "user=bob", "osf=small")
    new = trial.vm("desk1")["id"]
    assert new not in {old, trial.vm("desk2")["id"]}
    trial.qa("vm", "start", "-f", "name=desk1")
    trial.wait_for_state("desk1", "running")
    assert not (root(pair.init()) / "home" / "diary").exists()
    assert (homes / f"{old}-fs" / "diary").read_text() == "private\n"

    trial.qa("vm", "stop", "-f", "name=desk1")
    trial.wait_for_state("desk1", "stopped")
    (homes / f"{new}-fs").rename(homes / "aside")
    (homes / f"{old}-fs").rename(homes / f"{new}-fs")
    trial.qa("config", "set", "--yes", "internal.hkd.start.delay.max=5")
    trial.qa("vm", "start", "-f", "name=desk1")
    trial.wait_for("the refusal", lambda: trial.vm("desk1")["waits_for"] == "storage")
    row = trial.vm("desk1")
    assert f"the home {homes / f'{new}-fs'} has another owner, and VM {new} must not see it" in row["failure"]
    assert (row["vm_state"], row["failure_cause"], row["blocked"]) == ("starting", "host", False)
    (alarm,) = trial.listed("alarm")
    assert (alarm["kind"], alarm["object"]) == ("host", "storage")
    assert row["failure"] in alarm["text"]
    assert pair.inits() == []
    assert (homes / f"{new}-fs" / "diary").read_text() == "private\n"

    (homes / f"{new}-fs").rename(homes / f"{old}-fs")
    (homes / "aside").rename(homes / f"{new}-fs")
    row = trial.wait_for_state("desk1", "running")
    assert (row["failure"], row["waits_for"]) == (None, None)
    assert trial.listed("alarm") == []
    assert not (root(pair.init()) / "home" / "diary").exists()
    assert (homes / f"{old}-fs" / "diary").read_text() == "private\n"


def password(trial: Trial) -> str:
    """The one password of this trial's users."""
    return trial.password_file.read_text().strip()


def client(trial: Trial, login: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `qvd-client` inside the namespace to its end."""
    server = ["-h", "127.0.0.1", "-p", str(PORT), "--ca", str(trial.certificate)]
    user = ["-u", login, "--password-file", str(trial.password_file)]
    return subprocess.run(
        ["ip", "netns", "exec", trial.netns, str(BIN / "qvd-client"), *server, *user, *words],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DISPLAY": ":4242"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def asked(trial: Trial, login: str, path: str) -> str:
    """The status line with which the broker answers a request that no client of ours would send."""
    words = [
        "ip",
        "netns",
        "exec",
        trial.netns,
        sys.executable,
        "-c",
        RAW,
        str(PORT),
        login,
        password(trial),
        path,
    ]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def visit(desk: Desk) -> None:
    """Connect, so that the VMA makes user and home, and leave."""
    screen = desk.open()
    desk.trial.wait_for("a session", lambda: desk.row()["user_state"] == "connected")
    screen.leave()


def accounts(init: Init) -> dict[str, int]:
    """The guest's people: every account from uid 1000 on."""
    entries = [line.split(":") for line in inside(init, "cat", "/etc/passwd").splitlines()]
    return {entry[0]: int(entry[2]) for entry in entries if 1000 <= int(entry[2]) < 65534}


def owners(home: Path) -> list[tuple[int, int]]:
    """Who owns a home and a file in it, on disk."""
    found = [path.stat() for path in (home, home / "of-the-home")]
    return [(entry.st_uid, entry.st_gid) for entry in found]
