"""A libvirtd of one's own, below one directory and inside one network namespace.

The demo and the tests of virtual machines have one each, beside the host's and beside one another's. It is
the host's program with other files in its places: a mount namespace shows it its own `/etc/libvirt`,
`/run/libvirt` and so on. Guests outlive it, as they outlive the host's. They get no /dev/kvm, which is
there on many a machine that hangs when it is used: guests of trials are emulated.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol, Self
from urllib.parse import quote

from scripts.trial import BELONGS, IN_NETNS, ROOT, TrialError

CACHE = ROOT / "build" / "libvirt-cache"
"""What libvirt has found out about QEMU: it takes seconds, and is checked each time before it is believed."""
PLACES = ("etc", "run", "var", "log")
"""Its own of what the host's has below /etc, /run, /var/lib and /var/log."""
LIBVIRTD_CONF = """\
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_outputs = "3:stderr"
"""
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = [ ]
"""
"""What holds for trials alone: on a server, guests are not root's, and have a /dev of their own."""
INSIDE = """
cd "$0"
mkdir -p /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
mount --bind etc /etc/libvirt
mount --bind run /run/libvirt
mount --bind var /var/lib/libvirt
mount --bind log /var/log/libvirt
mount --bind "$1" /var/cache/libvirt
if [ -e /dev/kvm ]; then
    mount --bind nothing /dev/kvm
    mount -o remount,bind,ro /dev/kvm
fi
$2
exec libvirtd --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/libvirtd.pid
"""
GROUP = re.compile(r"/(qemu-\d+-[^/]*\.libvirt-qemu)")
"""The name of a guest's control groups."""
LONGEST_SOCKET = 107
READY_WITHIN_S = 60
PATIENCE_S = 10


class Process(Protocol):
    """What is asked of a process, as `subprocess.Popen` answers."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    def poll(self) -> int | None:
        """None for as long as it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        :raises subprocess.TimeoutExpired: it goes on
        """
        ...

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""
        ...


class PrivateLibvirtd:
    """One libvirtd, which may be killed and started again."""

    qemu_conf = QEMU_CONF
    before = ":"
    """A command that runs first, where libvirtd will."""

    def __init__(self, directory: Path, netns: str, *, environment: Mapping[str, str] | None = None) -> None:
        """Its state is in `directory`; what it starts has the `environment`, by which others may know it.

        :raises TrialError: the directory's name is too long for a socket below it
        """
        self.directory = directory.resolve()
        self.netns = netns
        self.socket = self.directory / "run" / "libvirt-sock"
        self.log = self.directory / "libvirtd.log"
        self.environment = {**os.environ, BELONGS: str(self.directory), **(environment or {})}
        self.process: Process | None = None
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET:
            raise TrialError(
                f"{self.socket} is too long for a socket: choose a directory with a shorter name"
            )

    @property
    def uri(self) -> str:
        """By what libvirt's clients find it, in whichever network namespace they are."""
        return f"qemu:///system?socket={quote(str(self.socket))}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start it, and wait until it answers.

        :raises TrialError: it ended, or did not answer in time
        """
        for name in PLACES:
            (self.directory / name).mkdir(mode=0o711, parents=True, exist_ok=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        (self.directory / "nothing").touch()
        (self.directory / "etc" / "libvirtd.conf").write_text(LIBVIRTD_CONF)
        (self.directory / "etc" / "qemu.conf").write_text(self.qemu_conf)
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            inside = ["sh", "-euc", INSIDE, str(self.directory), str(CACHE), self.before]
            self.process = self.launch([str(IN_NETNS), self.netns, *inside], log)
        until = time.monotonic() + READY_WITHIN_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise TrialError(f"libvirtd did not start; it said:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.05)

    def launch(self, words: Sequence[str], log: IO[bytes]) -> Process:
        """Start the process that becomes libvirtd."""
        return subprocess.Popen(
            words,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def answers(self) -> bool:
        """Whether it takes connections and knows QEMU."""
        asked = ["virsh", "--quiet", "--connect", self.uri, "version"]
        return self.socket.exists() and (
            subprocess.run(asked, capture_output=True, check=False, timeout=READY_WITHIN_S).returncode == 0
        )

    def kill(self) -> None:
        """kill -9 it; its guests go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def guests(self) -> Iterator[int]:
        """The QEMUs that it, or one before it here, has started and that still run."""
        needle = f"{self.directory}/".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                program = (process / "cmdline").read_text(errors="replace").split("\0", 1)[0]
                ours = needle in (process / "mountinfo").read_bytes()
                if ours and Path(program).name.startswith("qemu-system-"):
                    yield int(process.name)

    def remove(self) -> None:
        """End it and its guests, and remove its state."""
        groups = set()
        for pid in self.guests():
            with contextlib.suppress(OSError):
                groups |= {*GROUP.findall(Path(f"/proc/{pid}/cgroup").read_text())}
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.process = None
        remove_groups(groups)
        shutil.rmtree(self.directory, ignore_errors=True)


def remove_groups(names: Collection[str]) -> None:
    """Remove control groups of guests, which a libvirtd that was killed leaves behind."""
    until = time.monotonic() + PATIENCE_S
    for directory, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
        while any(name in directory for name in names) and Path(directory).exists():
            try:
                Path(directory).rmdir()
            except OSError:  # the processes in it are still ending
                if time.monotonic() > until:
                    break
                time.sleep(0.02)
