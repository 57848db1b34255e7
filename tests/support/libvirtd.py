"""The libvirtd of trials for tests: its parent takes orphans off the table of processes at once."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from scripts.private_libvirtd import PrivateLibvirtd

PARENT = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(36, 1)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for order in sys.stdin:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)
        log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.setsid()
        os.execvp(sys.argv[2], sys.argv[2:])
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


class Grandchild:
    """A process whose parent is not ours."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """None for as long as it runs."""
        return 0 if select.select([self._pidfd], [], [], 0)[0] else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        :raises subprocess.TimeoutExpired: it goes on
        """
        if not select.select([self._pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("libvirtd", timeout or 0)
        return 0

    def send_signal(self, number: int, /) -> None:
        """Send it a signal, if it is there."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)


class Libvirtd(PrivateLibvirtd):
    """The daemon, which may be killed, stopped and started again; its guests outlive that."""

    def __init__(self, namespace: str, directory: Path) -> None:
        super().__init__(directory, namespace)
        self._parent: subprocess.Popen[bytes] | None = None

    def log_of(self, domain: str) -> str:
        """What a domain's QEMU did."""
        with suppress(OSError):
            return (self.directory / "log" / "qemu" / f"{domain}.log").read_text()
        return ""

    def start(self) -> None:
        """Start it unless it runs."""
        if self.process is None:
            super().start()

    def launch(self, words: Sequence[str], log: IO[bytes]) -> Grandchild:
        """Have it started by the parent."""
        if self._parent is None:
            parent = [sys.executable, "-I", "-S", "-c", PARENT, log.name, *words]
            self._parent = subprocess.Popen(
                parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment
            )
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(b"start\n")
        self._parent.stdin.flush()
        return Grandchild(int(self._parent.stdout.readline()))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9 it, if it runs; its guests go on."""
        if self.process is not None:
            super().kill()

    def remove(self) -> None:
        """End it and all that it started, and remove its state."""
        try:
            super().remove()
        finally:
            if self._parent is not None:
                self._parent.communicate()


class DebianLibvirtd(Libvirtd):
    """The same as Debian ships it: QEMU is `libvirt-qemu`'s, and a daemon of its own writes its logs.

    Only a /dev of its own QEMU does not get: what covers /dev/kvm cannot be moved there.
    """

    qemu_conf = "namespaces = [ ]\n"
    before = "virtlogd --daemon --pid-file /run/libvirt/virtlogd.pid"


@contextmanager
def libvirtd(namespace: str, kind: type[Libvirtd] = Libvirtd) -> Iterator[Libvirtd]:
    """A libvirtd in a namespace; it, its domains and its directory go at the end."""
    with tempfile.TemporaryDirectory(prefix="qvdt-lv-") as folder, contextlib.ExitStack() as stack:
        daemon = kind(namespace, Path(folder) / "libvirt")
        stack.callback(daemon.remove)
        daemon.start()
        yield daemon
