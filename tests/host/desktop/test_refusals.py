"""What goes wrong is told in one clear line, and nothing is half done."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.trial import BIN, IN_NETNS, LOGIN, PORT, Trial, output
from tests.support.desktop import Desk
from tests.support.pool import tiny_root

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

LISTEN = """
import socket, time
with socket.create_server(("0.0.0.0", {0})):
    print("listening", flush=True)
    time.sleep(600)
"""
INITTAB = "::sysinit:/bin/echo the tiny root has booted\n::once:/bin/echo and it has no VMA\n"
PROGRESS = {"copying …", "unpacking …"}
VMA_GRACE = "internal.hkd.vmhandler.vma.failed.max_time.on.starting"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A root that boots in an instant, and has no VMA."""
    return tiny_root(tmp_path / "tiny.tar.gz", inittab=INITTAB)


@pytest.fixture
def quiet(trial: Trial) -> Trial:
    """A trial whose daemon logs nothing but what somebody should look at."""
    trial.write_config(log__level="WARN")
    return trial


@pytest.fixture
def bereft(quiet: Trial, archive: Path) -> Desk:
    """A guest on its way up whose daemon was killed."""
    quiet.start()
    quiet.furnish(archive, memory=64)
    quiet.qa("vm", "start", "-f", "name=desk1")
    desk = Desk(quiet, "desk1")
    quiet.wait_for("init", lambda: quiet.vm("desk1")["phase"] == "starting/awaiting-vma")
    quiet.kill()
    return desk


def test_an_image_without_a_vma(trial: Trial, archive: Path) -> None:
    trial.write_config(**{VMA_GRACE: "3"})
    trial.start()
    trial.furnish(archive, memory=64)
    trial.save_certificate()
    refused = client(trial, "--vm", "desk1")
    row = trial.wait_for_state("desk1", "stopped")
    assert row["failure"].startswith("the VMA gave no answer within 3 s: is it in the image")
    assert row["failure_console"].splitlines() == ["the tiny root has booted", "and it has no VMA"]
    assert Desk(trial, "desk1").inits() == []
    assert list((trial.storage / "rootfs").iterdir()) == []
    assert refused.returncode == 5
    (line,) = [
        line for line in refused.stderr.splitlines() if line.startswith("qvd-client: the server cannot")
    ]
    assert row["failure"] in line
    assert "Traceback" not in trial.log.read_text()


@pytest.mark.parametrize("tool", ["gzip", "zstd"])
def test_a_damaged_archive_leaves_nothing(trial: Trial, archive: Path, tmp_path: Path, tool: str) -> None:
    trial.qa("osf", "add", "name=small")
    sound = subprocess.run(["gzip", "-dc", str(archive)], capture_output=True, check=True).stdout
    packed = subprocess.run([tool, "-c"], input=sound, capture_output=True, check=True).stdout
    middle = len(packed) // 2
    damaged = {
        "cut": packed[:middle],
        "rotten": packed[:middle] + bytes(byte ^ 0xFF for byte in packed[middle : middle + 512])
        + packed[middle + 512 :],
    }  # fmt: skip
    before = state(trial)
    for name, content in damaged.items():
        source = tmp_path / f"{name}.tar.x"
        source.write_bytes(content)
        done = trial.qa("di", "add", f"path={source}", "osf=small", check=False)
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if line not in PROGRESS]
        found_by_unpacking, found_by_reading = (f"is {said}damaged: " for said in ("", "refused: it is "))
        told = line.removeprefix(f"Error: the archive {name}.tar.x ")
        assert told.startswith((found_by_unpacking, found_by_reading))
        assert "stdin" not in line
        assert done.stdout == ""
        assert state(trial) == before


@pytest.mark.parametrize("tool", ["lxc-start", "btrfs", "nft"])
def test_a_missing_tool(bereft: Desk, tmp_path: Path, tool: str) -> None:
    directory = tmp_path / "bin"
    directory.mkdir()
    for program in (*Path("/usr/sbin").iterdir(), *Path("/usr/bin").iterdir()):
        if program.name != tool:
            with contextlib.suppress(FileExistsError):
                (directory / program.name).symlink_to(program)
    environment = {**os.environ, "PATH": str(directory)}
    line = turned_down(bereft, environment=environment)
    assert line == f"qvd-appliance: programs are missing: {tool} (run scripts/setup)"


def test_a_busy_port(bereft: Desk) -> None:
    with listener(bereft.trial):
        line = turned_down(bereft)
    assert line.startswith(f"qvd-appliance: the L7R cannot listen on *:{PORT}: Address already in use (")
    assert "l7r.port" in line
    init = bereft.init()
    bereft.trial.start()
    assert bereft.init() == init


def test_a_second_daemon(bereft: Desk) -> None:
    trial = bereft.trial
    trial.start()
    assert trial.daemon is not None
    init, started = bereft.init(), trial.vm("desk1")
    done = daemon(trial)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("qvd-appliance: another appliance of this installation runs (pid ")
    assert trial.alive()
    assert (bereft.init(), trial.vm("desk1")) == (init, started)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (
            ("config", "set", "l7r.prot=1"),
            1,
            "there is no setting l7r.prot (in config set) (did you mean l7r.port?)",
        ),
        (("config", "set", "l7r.port=web"), 1, "l7r.port = 'web'"),
        (("vm", "stop", "-f", "name"), 2, "'name'"),
        (("vm", "stop", "-f", "nmae=desk1"), 2, "there is no filter key 'nmae' (did you mean name?)"),
        (("vm", "stop", "-f", "id=one"), 2, "id=one"),
        (("vm", "stop"), 1, "choose some with -f FILTER"),
        (("vm", "list", "--bogus"), 2, "--bogus: there is no such option"),
        (("ship", "list"), 2, "there is no noun 'ship'"),
        (("vm", "add", "name=desk2", "user=nobody", "osf=small"), 1, "there is no user 'nobody'"),
        (("di", "tag", "di_id=42", "tag=ring"), 1, "there is no DI with id 42"),
        (
            ("user", "add", "login=bob", "password-file=/nowhere"),
            1,
            "the file of password-file= cannot be read: No such file",
        ),
    ],
)
def test_a_wrong_request(shared: Trial, words: tuple[str, ...], status: int, told: str) -> None:
    before = state(shared)
    done = shared.qa(*words, check=False)
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert told in line
    assert (done.returncode, done.stdout) == (status, "")
    assert state(shared) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("vm", "fly"), "vm has no verb 'fly'"),
        (
            ("vm", "add", "nmae=desk2", "user=alice", "osf=small"),
            "Syntax error: there is no argument nmae (did you",
        ),
        (
            ("osf", "edit", "memory=lots", "-f", "name=small"),
            "Syntax error: argument memory='lots': write a size",
        ),
    ],
)
def test_wrong_usage_is_answered_with_the_right_one(shared: Trial, words: tuple[str, ...], told: str) -> None:
    """After the line that says what is wrong comes what would be right."""
    before = state(shared)
    done = shared.qa(*words, check=False)
    first, *more = done.stderr.splitlines()
    assert told in first
    assert f"qa {words[0]}" in "\n".join(more)
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (2, "")
    assert state(shared) == before


def test_a_wrong_password(quiet: Trial, archive: Path) -> None:
    quiet.start()
    quiet.furnish(archive, memory=64)
    quiet.save_certificate()
    before = quiet.vm("desk1")
    quiet.password_file.write_text("wrong\n")
    for login in (LOGIN, "nobody"):
        for words in (["-l"], ["--vm", "desk1"]):
            done = client(quiet, *words, login=login)
            assert (done.returncode, done.stderr) == (3, "qvd-client: wrong login or password\n")
    assert quiet.vm("desk1") == before


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """An installation without a daemon, for requests that change nothing."""
    directory = tmp_path_factory.mktemp("shared")
    with Trial(directory / "trial") as made:
        made.lay_out()
        made.furnish(tiny_root(directory / "tiny.tar.gz"))
        yield made


@contextlib.contextmanager
def listener(trial: Trial) -> Iterator[None]:
    """Somebody else on the broker's port."""
    words = ["ip", "netns", "exec", trial.netns, sys.executable, "-c", LISTEN.format(PORT)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield
        finally:
            process.kill()


def turned_down(desk: Desk, *, environment: Mapping[str, str] | None = None) -> str:
    """Start the daemon, which must refuse without having changed anything; its one line."""
    before, init = (state(desk.trial), network(desk.trial)), desk.init()
    done = daemon(desk.trial, environment)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert (state(desk.trial), network(desk.trial)) == before
    assert desk.init() == init
    return line


def daemon(trial: Trial, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the daemon to its end, which is to come soon."""
    words = [str(IN_NETNS), trial.netns, str(BIN / "qvd-appliance"), "run", "--config", str(trial.config)]
    return subprocess.run(
        words,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )


def client(trial: Trial, *words: str, login: str = LOGIN) -> subprocess.CompletedProcess[str]:
    """Run `qvd-client` inside the namespace to its end, which is to come before any picture."""
    server = ["-h", "127.0.0.1", "-p", str(PORT), "--ca", str(trial.certificate)]
    user = ["-u", login, "--password-file", str(trial.password_file)]
    display = trial.open_display()
    return subprocess.run(
        ["ip", "netns", "exec", trial.netns, str(BIN / "qvd-client"), *server, *user, *words],
        env={**os.environ, "DISPLAY": display.name},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def state(trial: Trial) -> dict[str, list[Any]]:
    """All rows but the record of operations and the journal that notes it, and what the pool holds."""
    with contextlib.closing(sqlite3.connect(trial.storage / "qvd.db")) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: sorted(database.execute(f"SELECT * FROM {name}"), key=repr) for name in names}
        unfinished = list(database.execute("SELECT * FROM operations WHERE ended IS NULL"))
    for name in ("sqlite_sequence", "operations", "changes"):
        del rows[name]
    files = sorted(str(path) for path in trial.storage.glob("*/*"))
    volumes = sorted(
        line.split()[-1] for line in output("btrfs", "subvolume", "list", str(trial.storage)).splitlines()
    )
    return {**rows, "unfinished": unfinished, "files": files, "volumes": volumes}


def network(trial: Trial) -> str:
    """Links, addresses and rules of the trial's namespace."""
    links = output("ip", "-n", trial.netns, "-4", "-o", "address")
    return links + output("ip", "netns", "exec", trial.netns, "nft", "list", "ruleset")
