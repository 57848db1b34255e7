"""A libvirtd of its own for tests, in a network namespace, with directories of its own."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.netns import IN_NETNS

CACHE = Path(__file__).resolve().parents[2] / "build" / "libvirt-cache"
"""What libvirtd has found out about this host's QEMU: eight seconds of work, done once."""
BEGIN = """
set -e
mount --make-rprivate /
mkdir -p /run/libvirt
for place in run var/lib var/cache etc var/log; do mount --bind "$1/$place" "/$place/libvirt"; done
exec libvirtd -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid
"""
PARENT = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(36, 1)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for order in sys.stdin:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)
        os.execvp(sys.argv[1], sys.argv[1:])
    print(pid, flush=True)
while children := open(f"/proc/self/task/{os.getpid()}/children").read().split():
    for child in children:
        try:
            os.kill(int(child), signal.SIGKILL)
        except ProcessLookupError:
            pass
    time.sleep(0.01)
"""
"""Starts libvirtd whenever it is given a line, from outside of its namespaces, and is the parent of its
orphans. The kernel takes those off the table of processes at once: libvirtd waits for that when a QEMU has
ended, and whoever has number 1 here may take seconds over it. When nobody gives lines any more, it kills
all."""
LIBVIRTD = """\
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""
QEMU = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
"""
CGROUPS = Path("/sys/fs/cgroup")
LONGEST_S = 60.0


class Libvirtd:
    """The daemon, which may be killed and started again; domains outlive that."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self._folder = folder
        self._pid: int | None = None
        begin = [str(IN_NETNS), namespace, "sh", "-c", BEGIN, "sh", str(folder)]
        words = [sys.executable, "-I", "-S", "-c", PARENT, *begin]
        self._parent = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @property
    def uri(self) -> str:
        """Where it is reached, from any network namespace."""
        return f"qemu:///system?socket={self._socket}"

    def log(self, domain: str | None = None) -> str:
        """What it complained about, or what a domain's QEMU did."""
        name = "libvirtd.log" if domain is None else f"qemu/{domain}.log"
        with suppress(OSError):
            return (self._folder / "var/log" / name).read_text()
        return ""

    def start(self) -> None:
        """Start it unless it runs; returns when it accepts connections."""
        if self._pid is not None:
            return
        parent = self._parent
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(b"start\n")
        parent.stdin.flush()
        self._pid = int(parent.stdout.readline())
        deadline = time.monotonic() + LONGEST_S
        while not self._answers():
            assert Path(f"/proc/{self._pid}").exists(), f"libvirtd ended: {self.log()}"
            assert time.monotonic() < deadline, f"libvirtd does not answer: {self.log()}"
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self._pid is not None:
            os.kill(self._pid, number)

    def kill(self) -> None:
        """Kill it, if it runs, and nothing else."""
        if self._pid is not None:
            pidfd = os.pidfd_open(self._pid)
            os.kill(self._pid, signal.SIGKILL)
            select.select([pidfd], [], [], LONGEST_S)
            os.close(pidfd)
            self._pid = None

    def close(self) -> None:
        """Kill it, and whatever it started."""
        self._parent.communicate()

    @property
    def _socket(self) -> Path:
        return self._folder / "run" / "libvirt-sock"

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as attempt, suppress(OSError):
            attempt.connect(str(self._socket))
            return True
        return False


@contextmanager
def libvirtd(namespace: str) -> Iterator[Libvirtd]:
    """A libvirtd in a namespace; it and its directories go at the end, its domains with the namespace."""
    folder = Path(tempfile.mkdtemp(prefix="qvdt-lv-"))
    daemon = Libvirtd(namespace, folder)
    try:
        for name in ("run", "var/lib", "var/log", "etc"):
            (folder / name).mkdir(parents=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        (folder / "var/cache").symlink_to(CACHE)
        (folder / "etc" / "libvirtd.conf").write_text(LIBVIRTD)
        (folder / "etc" / "qemu.conf").write_text(QEMU)
        daemon.start()
        yield daemon
    finally:
        daemon.close()
        for machines in CGROUPS.glob("*/machine"):
            with suppress(OSError):  # other libvirtds may have guests there
                machines.rmdir()
        shutil.rmtree(folder, ignore_errors=True)
