"""A guest without a container: the VMA's zipapp in namespaces of its own, with a host's end to call it from.

Guest and host are two network namespaces joined by a veth, the host being the guest's default gateway, as
on the bridge. The guest also has its own mounts: /etc is a throw-away copy, /home and /tmp are empty, so that
accounts and homes made by the VMA are never this machine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from appliance.vma.wire import XState
from appliance.vma_client import VmaClient
from images.build_vma import zipapp

T = TypeVar("T")
HOST, GUEST = "10.77.0.1", "10.77.0.2"
DISPLAY = 77
SCREENS = 1000 + 2 * (os.getpid() % 20000)
"""Two display numbers at the host's end: others test at the same time, and X locks numbers for all."""
PORT = 3030
CLIENT = {
    "qvd.client.keyboard": "pc105/us",
    "qvd.client.os": "linux",
    "qvd.client.link": "lan",
    "qvd.client.geometry": "800x600",
    "qvd.client.fullscreen": "",
}
_CLONE_NEWNET = 0x40000000
_SET_UP_GUEST = """
set -e
ip link set lo up; ip addr add {guest}/24 dev eth0; ip link set eth0 up; ip route add default via {host}
cp -a /etc {work}/etc; mount --bind {work}/etc /etc
mount -t tmpfs none /home; mount -t tmpfs none /tmp; chmod 1777 /tmp
"""


class Guest:
    """The running guest. `call` speaks to its VMA from the host's end."""

    def __init__(self, work: Path, guest_pid: int, host_pid: int) -> None:
        self.work, self._guest, self._host = work, guest_pid, host_pid
        self.vma: subprocess.Popen[bytes] | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._thread = ThreadPoolExecutor(1, initializer=_enter_network, initargs=(host_pid,))

    # -- the host's end

    def call(self, method: Callable[[VmaClient], Coroutine[Any, Any, T]], timeout_s: float = 4.0) -> T:
        """Run one client call from the host's namespace."""
        client = VmaClient(GUEST, PORT, timeout_s=timeout_s)
        return self._thread.submit(lambda: asyncio.run(method(client))).result(30)

    def run(self, scene: Callable[[], Coroutine[Any, Any, T]], timeout_s: float = 120.0) -> T:
        """Run a coroutine, servers and all, in the host's namespace."""
        return self._thread.submit(lambda: asyncio.run(scene())).result(timeout_s)

    def raw(self, data: bytes) -> bytes:
        """What a bare connection from the host is answered before both are silent."""

        def talk() -> bytes:
            with socket.create_connection((GUEST, PORT), timeout=3) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: sock.recv(4096), b""))

        return self._thread.submit(talk).result(10)

    def state(self) -> XState:
        return self.call(lambda client: client.x_state())

    def start(self, **params: str) -> None:
        """`x_start` for alice, as the L7R would."""
        named = {f"qvd.{key.replace('_', '.')}": value for key, value in params.items()}
        wish = {**CLIENT, "qvd.vm.user.name": "alice", "qvd.slave.key": "K" * 64, **named}
        self.call(lambda client: client.x_start(wish))

    def wait(self, wanted: XState, within_s: float = 30.0) -> None:
        """Wait until `x_state` answers `wanted`."""
        until(lambda: self.state() is wanted, within_s, f"X state {wanted}", lambda: self.logs())

    def host(self, *argv: str, **env: str) -> subprocess.Popen[bytes]:
        """A program at the host's end; ended with the guest at the latest."""
        return self._spawn(["nsenter", f"--net=/proc/{self._host}/ns/net", *argv], env)

    # -- the guest's inside

    def inside(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program as root in the guest."""
        return subprocess.run(
            [*self._nsenter(), *argv], capture_output=True, text=True, timeout=30, check=False
        )

    def boot(self) -> None:
        """Start the VMA and wait for its answer."""
        self.vma = self._spawn(
            [*self._nsenter(), "/usr/bin/python3", "-S", "-I", str(self.work / "qvd-vma.pyz"),
             str(self.work / "vma.conf")], {}, log="vma.log",
        )  # fmt: skip
        until(self._answers, 30, "an answer of the VMA", lambda: self.logs())

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            self.call(lambda client: client.ping())
            return True
        return False

    def vma_pid(self) -> int:
        return int((self.work / "run/vma.pid").read_text())

    def processes(self, name: str) -> list[int]:
        """Pids of the guest's programs of that name."""
        here = _namespace(self._guest, "mnt")
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                same = entry.name.isdecimal() and _namespace(entry.name, "mnt") == here
                if same and (entry / "comm").read_text().strip() == name:
                    found.append(int(entry.name))
        return found

    def logs(self) -> str:
        paths = [self.work / "vma.log", *sorted((self.work / "log").glob("*"))]
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')}" for path in paths if path.exists()
        )

    def nx_log(self) -> str:
        return (self.work / "log/qvd-nxagent.log").read_text(errors="replace")

    def settings(self, **values: str) -> None:
        """Write vma.conf; `__` stands for a dot in a key, `_` for a hyphen."""
        lines = {
            "path.run": str(self.work / "run"),
            "path.log": str(self.work / "log"),
            "command.x-session": "/usr/bin/xterm",
            "internal.nxagent.display": str(DISPLAY),
            "vma.user.home.drive": "",
            **{key.replace("__", "."): value for key, value in values.items()},
        }
        (self.work / "vma.conf").write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))

    def _nsenter(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._guest}/ns/net", f"--mount=/proc/{self._guest}/ns/mnt"]

    def _spawn(self, argv: Sequence[str], env: dict[str, str], log: str = "") -> subprocess.Popen[bytes]:
        with (self.work / log if log else Path("/dev/null")).open("ab") as output:
            child = subprocess.Popen(
                argv, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._children.append(child)
        return child

    def close(self) -> None:
        self._thread.shutdown()
        here = {_namespace(self._guest, "mnt"), _namespace(self._host, "mnt")}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and _namespace(entry.name, "mnt") in here:
                    os.kill(int(entry.name), signal.SIGKILL)
        for child in self._children:
            child.kill()
            child.wait(10)


@contextlib.contextmanager
def guest(**settings: str) -> Iterator[Guest]:
    """A guest whose VMA is about to boot; everything of it is gone afterwards."""
    work = Path(tempfile.mkdtemp(prefix="vma-guest-", dir="/var/tmp"))
    work.chmod(0o755)
    holders: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(2):
            holders.append(
                subprocess.Popen(["unshare", "-n", "-m", "--propagation", "private", "sleep", "600"])
            )
        inside, outside = (holder.pid for holder in holders)
        until(lambda: all(map(_is_apart, (inside, outside))), 20, "namespaces", str)
        _sh(outside, f"ip link add veth0 type veth peer name eth0 netns {inside}; ip link set lo up;"
                     f" ip addr add {HOST}/24 dev veth0; ip link set veth0 up")  # fmt: skip
        _sh(inside, _SET_UP_GUEST.format(guest=GUEST, host=HOST, work=work))
        (work / "qvd-vma.pyz").write_bytes(zipapp())
        found = Guest(work, inside, outside)
        found.settings(**settings)
        try:
            yield found
        finally:
            found.close()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait(10)
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def screen(of: Guest, number: int = SCREENS) -> Iterator[None]:
    """A display with a window manager at the client's end; `viewer` connects it."""
    socket = Path(f"/tmp/.X11-unix/X{number}")
    socket.unlink(missing_ok=True)  # of one that was killed, long ago
    server = of.host("Xvfb", f":{number}", "-screen", "0", "1024x768x24", "-nolisten", "tcp")
    manager = None
    try:
        until(socket.exists, 30, "Xvfb", str)
        manager = of.host("openbox", DISPLAY=f":{number}")
        yield
    finally:
        for child in (manager, server):
            if child is not None:
                child.terminate()
                child.wait(10)


def viewer(of: Guest, number: int = SCREENS) -> subprocess.Popen[bytes]:
    """An NX client on that display, connected to the guest's session."""
    return of.host("nxproxy", "-S", f"{GUEST}:{DISPLAY}", DISPLAY=f":{number}", HOME=str(of.work))


def until(true: Callable[[], bool], within_s: float, what: str, evidence: Callable[[], str]) -> None:
    """Wait for something, ten times a second; fail with evidence."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {within_s:g} s\n{evidence()}")
        time.sleep(0.1)


def _namespace(pid: int | str, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def _is_apart(pid: int) -> bool:
    moved = _namespace(pid, "net") != _namespace("self", "net")
    return moved and Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


def _sh(pid: int, script: str) -> None:
    argv = ["nsenter", f"--net=/proc/{pid}/ns/net", f"--mount=/proc/{pid}/ns/mnt", "sh", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def _enter_network(pid: int) -> None:
    """Move this one thread into the network namespace of `pid`."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/net").open() as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
