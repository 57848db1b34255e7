"""A trial installation: an appliance in a network namespace of its own, below one directory.

The demo and the host tests are made of it. It leaves the host's network as it was, and its teardown
finds what is to be removed by looking, not by remembering: it also cleans up after a run that was
killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import re
import secrets
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from appliance.tui.calls import Caller

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
IN_NETNS = ROOT / "scripts" / "in-netns"
LOGIN = "alice"
NETWORK = "10.44.0"
PORT = 8443
TESSERACT = ("env", "OMP_THREAD_LIMIT=1", "tesseract")
"""Reads text in pictures. With several threads on few cores it takes four times as much of them."""
BELONGS = "QVD_TRIAL"
"""In the environment of every process that a trial starts: the trial's directory."""
TOOLS = re.compile(r"lxc-.+|qemu-system-.+|dnsmasq|qvd-appliance|qvd-client|nxproxy")
"""Programs that are a trial's if they work below its directory."""
MONITOR = "[lxc monitor] "
PIVOTS = ("lxc.pivot", "*/lxc.pivot")
"""Control groups to which LXC moves a monitor that ends, and which it leaves behind."""
PING = """
import socket, ssl, sys
context = ssl._create_unverified_context()
with context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)) as broker:
    broker.sendall(b"GET /qvd/ping HTTP/1.1\\r\\n\\r\\n")
    print(broker.recv(4096).decode())
"""


class TrialError(Exception):
    """Something did not work; the message says what, and what it said."""


@dataclasses.dataclass(slots=True)
class Display:
    """An X display with a window manager: the client's screen."""

    name: str
    processes: list[subprocess.Popen[bytes]]


class Trial:
    """One installation: pool, namespace, configuration, daemon and displays."""

    def __init__(
        self, directory: Path, *, netns: str | None = None, settings: dict[str, str] | None = None
    ) -> None:
        self.directory = directory.resolve()
        mark = hashlib.sha256(str(self.directory).encode()).hexdigest()[:8]
        self.netns = netns or f"qvd-{mark}"
        self.storage = self.directory / "storage"
        self.run = self.directory / "run"
        self.config = self.directory / "node.conf"
        self.log = self.directory / "appliance.log"
        self.pool = self.directory / "pool.btrfs"
        self.password_file = self.directory / "password"
        self.certificate = self.directory / "server.pem"
        self.marker = self.directory / "installation"
        self.libvirt = self.directory / "libvirt"
        self.claimed = self.directory / ".trial"
        self.settings = settings or {}
        self.environment = {**os.environ, BELONGS: str(self.directory)}
        self.around: list[str] = []
        """A command that runs the daemon, given as its last arguments; none, usually."""
        self.pivots_before: set[Path] = set()
        self.daemon: subprocess.Popen[bytes] | None = None
        self.displays: list[Display] = []
        self.others: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.tear_down()

    @property
    def database(self) -> Path:
        """The file of the database: in the pool, unless the settings say otherwise."""
        url = self.settings.get("database.url", f"sqlite:///{self.storage}/qvd.db")
        return Path(url.removeprefix("sqlite:///"))

    # --- laying out -----------------------------------------------------------------------------

    def lay_out(self, *, pool_size: str = "6G") -> None:
        """Pool, namespace, configuration and database; whatever an earlier run left goes first."""
        self.claim()
        self.sweep()
        self.pivots_before = pivots()
        self.run.mkdir(exist_ok=True)
        self.make_netns(self.netns)
        self.make_pool(pool_size)
        self.write_config()
        self.qa("admin", "init", "--yes")
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            (identity,) = database.execute("SELECT id FROM installation").fetchone()
        self.marker.write_text(identity)

    def claim(self) -> None:
        """Make the directory this trial's: whatever has a trial's names there may be removed from now on.

        :raises TrialError: it holds something that no trial made
        """
        if self.claimed.exists():
            return
        foreign = self.foreign()
        if foreign:
            raise TrialError(f"{foreign[0]} was made by no trial: choose a directory that is new or empty")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self.claimed.touch()

    def foreign(self) -> list[Path]:
        """What a directory that is not ours must not hold: directories, and files that we would remove."""
        entries = sorted(self.directory.iterdir()) if self.directory.exists() else []
        return [entry for entry in entries if entry.is_dir() or entry in self.files()]

    def files(self) -> tuple[Path, ...]:
        """The files that go with the trial; pictures and logs stay."""
        return (
            self.pool,
            self.config,
            self.password_file,
            self.certificate,
            self.directory / "hold.env",
        )

    def make_netns(self, name: str) -> None:
        """A network namespace with nothing in it but loopback."""
        command("ip", "netns", "add", name)
        command("ip", "-n", name, "link", "set", "lo", "up")

    def make_pool(self, size: str) -> None:
        """A btrfs pool on a loop file, mounted where the storage is."""
        self.storage.mkdir(exist_ok=True)
        command("truncate", "-s", size, str(self.pool))
        command("mkfs.btrfs", "-q", "-f", str(self.pool))
        command("mount", "-o", "loop,noatime", str(self.pool), str(self.storage))

    def write_config(self, **settings: str) -> None:
        """node.conf for an installation that touches nothing outside its directory."""
        self.settings |= {name.replace("__", "."): value for name, value in settings.items()}
        values = {
            "nodename": "trial",
            "path.run": str(self.run),
            "path.log": str(self.directory),
            "path.storage.root": str(self.storage),
            "l7r.port": str(PORT),
            "vm.network.ip.start": f"{NETWORK}.10",
            "vm.network.netmask": "24",
            "vm.network.gateway": f"{NETWORK}.1",
            "log.level": "DEBUG",
            **self.settings,
        }
        self.config.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))

    # --- the daemon -----------------------------------------------------------------------------

    def start(self, *, netns: str | None = None, config: Path | None = None) -> None:
        """Start the daemon and wait until its L7R answers.

        :raises TrialError: it ended, or did not answer in time
        """
        inside = netns or self.netns
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [
                    str(IN_NETNS),
                    inside,
                    *self.around,
                    str(BIN / "qvd-appliance"),
                    "run",
                    "--config",
                    str(config or self.config),
                ],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_for("the daemon", lambda: self.alive(inside), limit_s=60)

    def alive(self, netns: str | None = None) -> bool:
        """Whether the L7R says that it is alive.

        :raises TrialError: the daemon has ended
        """
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            raise TrialError(f"the daemon ended with status {self.daemon.returncode}:\n{self.log_tail()}")
        answer = subprocess.run(
            ["ip", "netns", "exec", netns or self.netns, sys.executable, "-c", PING, str(PORT)],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return " 200 " in answer.stdout

    def stop(self) -> None:
        """Stop the daemon in good order; its guests go on."""
        if self.daemon is not None:
            end(self.daemon)
            self.daemon = None

    def kill(self) -> None:
        """kill -9 the daemon."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = None

    def log_tail(self, lines: int = 20) -> str:
        """What the daemon said last."""
        return (
            "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
        )

    # --- its tools ------------------------------------------------------------------------------

    def qa(
        self, *words: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `qa`.

        :raises TrialError: it failed (with `check`)
        """
        done = subprocess.run(
            [str(BIN / "qa"), "--config", str(self.config), *words],
            capture_output=True,
            text=True,
            check=False,
            input=stdin,
            timeout=300,
        )
        if check and done.returncode != 0:
            raise TrialError(f"qa {shlex.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
        return done

    def listed(self, noun: str, filter_: str = "") -> list[dict[str, Any]]:
        """What `qa NOUN list -o json` says; asked without a process for each time: whoever waits asks often.

        :raises TrialError: it failed
        """
        words = [noun, "list", "-o", "json", *(["-f", filter_] if filter_ else [])]
        with ThreadPoolExecutor(1) as own:  # there may be a loop in ours
            outcome = own.submit(asyncio.run, Caller(self.config)(words)).result()
        if not outcome.ok:
            raise TrialError(f"qa {shlex.join(words)}: {outcome.err}")
        rows: list[dict[str, Any]] = outcome.json
        return rows

    def vm(self, name: str) -> dict[str, Any]:
        """One row of `qa vm list`."""
        return self.listed("vm", f"name={name}")[0]

    def wait_for_state(self, name: str, state: str, limit_s: float = 60) -> dict[str, Any]:
        """Wait until a VM is in a state."""
        self.wait_for(f"{name} {state}", lambda: self.vm(name)["vm_state"] == state, limit_s)
        return self.vm(name)

    def add_user(self, login: str, password: str) -> None:
        """A user with a password."""
        self.qa("user", "add", f"login={login}", "password-file=-", stdin=password + "\n")

    def furnish(
        self, archive: Path, *, vm: str = "desk1", memory: int = 512, policy: Sequence[str] = ()
    ) -> None:
        """A user with a password, an OSF, the image and a desktop; `policy` is what else the OSF says."""
        password = secrets.token_urlsafe(12)
        descriptor = os.open(self.password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password + "\n")
        self.add_user(LOGIN, password)
        self.qa("osf", "add", "name=small", f"memory={memory}", *policy)
        self.qa("di", "add", f"path={archive}", "osf=small")
        self.qa("vm", "add", f"name={vm}", f"user={LOGIN}", "osf=small")

    def save_certificate(self) -> None:
        """Keep the server's certificate where a client can be told to trust it."""
        shutil.copyfile(self.run / "l7r" / "ssl" / "cert.pem", self.certificate)

    # --- the client's side ----------------------------------------------------------------------

    def open_display(self, size: str = "1280x900") -> Display:
        """An Xvfb with a window manager."""
        reader, writer = os.pipe()
        screen = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{size}x24", "-nolisten", "tcp", "-noreset"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[writer],
            start_new_session=True,
        )
        os.close(writer)
        with os.fdopen(reader) as numbers:
            name = f":{numbers.readline().strip()}"
        manager = subprocess.Popen(
            ["openbox"],
            env={**self.environment, "DISPLAY": name},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        display = Display(name, [manager, screen])
        self.displays.append(display)
        self.wait_for("the window manager", lambda: window_manager_runs(name), limit_s=20)
        return display

    def close_display(self, display: Display) -> None:
        """End a display and its window manager."""
        for process in display.processes:
            end(process)
        if display in self.displays:
            self.displays.remove(display)

    def connect(
        self, display: str, *words: str, login: str = LOGIN, log: Path | None = None, netns: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `qvd-client` inside the namespace, its picture on `display`."""
        with (log or self.directory / "client.log").open("ab") as output:
            client = subprocess.Popen(
                [
                    "ip",
                    "netns",
                    "exec",
                    netns or self.netns,
                    str(BIN / "qvd-client"),
                    "-h",
                    "127.0.0.1",
                    "-p",
                    str(PORT),
                    "-u",
                    login,
                    "--password-file",
                    str(self.password_file),
                    "--ca",
                    str(self.certificate),
                    "-g",
                    "1024x768",
                    "-o",
                    "-d",
                    *words,
                ],
                env={**self.environment, "DISPLAY": display},
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.others.append(client)
        return client

    def wait_for(self, what: str, condition: Callable[[], object], limit_s: float = 60) -> None:
        """Look again and again until `condition` holds.

        :raises TrialError: it does not within `limit_s` seconds
        """
        until = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > until:
                raise TrialError(
                    f"no sign of {what} within {limit_s:g} s; the daemon said last:\n{self.log_tail()}"
                )
            time.sleep(0.1)

    # --- taking down ----------------------------------------------------------------------------

    def tear_down(self) -> None:
        """End everything that this trial started, and remove what it made but pictures and logs."""
        for process in self.others:
            end(process)
        if self.daemon is not None and self.daemon.poll() is None:
            with contextlib.suppress(TrialError, subprocess.TimeoutExpired):
                self.qa("vm", "stop", "--force", check=False)
                self.wait_for("stopped VMs", self.all_stopped, limit_s=30)
        self.stop()
        for display in list(self.displays):
            self.close_display(display)
        self.sweep()
        for left in pivots() - self.pivots_before:
            with contextlib.suppress(OSError):
                left.rmdir()
        if not self.foreign():
            self.claimed.unlink(missing_ok=True)

    def all_stopped(self) -> bool:
        """Whether no VM is anything but stopped."""
        return all(vm["vm_state"] == "stopped" for vm in self.listed("vm"))

    def sweep(self) -> None:
        """Remove whatever carries this directory's name: guests, daemon, mounts, namespaces, files."""
        if not self.claimed.exists():
            return
        for number, patience_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 20)):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            until = time.monotonic() + patience_s
            while any(True for _ in self.processes()) and time.monotonic() < until:
                time.sleep(0.05)
        for mount in mounts_below(self.directory):
            command("umount", "-l", mount)
        for device in loop_devices(self.pool):
            subprocess.run(["losetup", "-d", device], check=False, capture_output=True)
        if self.storage.is_dir() and not os.path.ismount(self.storage):
            self.storage.rmdir()  # which also ends the mounts of it that other mount namespaces have kept
        until = time.monotonic() + 10
        while loop_devices(self.pool) and time.monotonic() < until:
            time.sleep(0.05)
        for name in self.namespaces():
            command("ip", "netns", "del", name)
        self.remove_cgroups()
        for left in self.files():
            left.unlink(missing_ok=True)
        for folder in (self.run, self.libvirt):
            shutil.rmtree(folder, ignore_errors=True)

    def processes(self) -> Iterator[int]:
        """Every process that this trial started, and every tool of its guests; never ourselves."""
        belongs = f"{BELONGS}={self.directory}".encode()
        needle = str(self.directory).encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in {os.getpid(), os.getppid()}:
                continue
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                named = any(needle + end_ in line for end_ in (b"/", b"\0", b" "))
                started = belongs in (entry / "environ").read_bytes().split(b"\0")
                if started or (named and is_tool(os.fsdecode(line).split("\0"))):
                    yield int(entry.name)

    def namespaces(self) -> list[str]:
        """The network namespaces of this trial."""
        names = (line.split()[0] for line in output("ip", "netns", "list").splitlines() if line.strip())
        return [name for name in names if name == self.netns or name.startswith(f"{self.netns}-")]

    def remove_cgroups(self) -> None:
        """Remove the empty control groups that guests killed from outside leave behind."""
        if not self.marker.exists():
            return
        guest = rf"qvd-{self.marker.read_text()}-\d+"
        ours = re.compile(rf"/(lxc\.(payload|monitor)\.{guest}(-\d+)?|qemu-\d+-{guest}\.libvirt-qemu)(/|$)")
        for directory, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
            if ours.search(directory):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        self.marker.unlink()


def is_tool(words: list[str]) -> bool:
    """Whether a command line runs one of our tools, rather than names one, as an editor's or a grep's may."""
    program, *rest = words
    if Path(program).name.startswith("python") and rest:
        program = rest[0]
    return program.startswith(MONITOR) or TOOLS.fullmatch(Path(program).name) is not None


def command(*words: str, timeout_s: float = 120) -> None:
    """Run a command that must succeed.

    :raises TrialError: it does not
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout_s)
    if done.returncode != 0:
        raise TrialError(f"{shlex.join(words)}: {done.stderr.strip() or f'exit {done.returncode}'}")


def output(*words: str) -> str:
    """What a command prints."""
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout


def end(process: subprocess.Popen[bytes], patience_s: float = 15) -> None:
    """End a child that leads its own session: TERM, then KILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below `directory`, innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(directory)]


def pivots() -> set[Path]:
    """LXC's control groups for ending monitors."""
    return {path for pattern in PIVOTS for path in Path("/sys/fs/cgroup").glob(pattern)}


def loop_devices(file: Path) -> list[str]:
    """The loop devices on `file`."""
    lines = output("losetup", "-j", str(file)).splitlines()
    return [line.split(":")[0] for line in lines]


def display_answers(display: str, netns: str) -> bool:
    """Whether a client in a network namespace can draw on `display`."""
    asked = ["ip", "netns", "exec", netns, "xprop", "-display", display, "-root", "-len", "1", "_NET_NAME"]
    try:
        done = subprocess.run(asked, capture_output=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def window_manager_runs(display: str) -> bool:
    """Whether a window manager looks after `display`."""
    done = subprocess.run(
        ["xprop", "-display", display, "-root", "_NET_SUPPORTING_WM_CHECK"],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    return "window id" in done.stdout


def take_picture(display: str, file: Path) -> None:
    """Save what `display` shows as PNG."""
    command("import", "-display", display, "-window", "root", str(file))


def read_picture(file: Path) -> str:
    """The text in a picture, as far as it can be recognised."""
    return output(*TESSERACT, str(file), "-", "--psm", "11")


def type_text(display: str, text: str) -> None:
    """Type at `display`, as a person would at the client."""
    environment = {**os.environ, "DISPLAY": display}
    subprocess.run(
        ["xdotool", "type", "--delay", "60", text],
        env=environment,
        check=True,
        capture_output=True,
        timeout=60,
    )
