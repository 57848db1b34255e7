"""Desktops in virtual machines: an appliance with a libvirtd of its own, and a shell inside its guests."""

from __future__ import annotations

import os
import re
import secrets
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.demo import LIBVIRT_URI
from scripts.private_libvirtd import PrivateLibvirtd
from scripts.trial import BIN, Trial
from tests.support.desktop import SLOWLY, Desk, leftovers

DESKTOP = ("nxagent", "openbox", "xterm")
ANSWERS_WITHIN_S = 120.0
ASKED_AGAIN_S = 2.0
ENDS_WITHIN_S = 30.0
_ESCAPES = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


@dataclass(slots=True)
class Site:
    """An appliance for virtual machines, and the libvirtd that runs them."""

    trial: Trial
    libvirtd: PrivateLibvirtd


@contextmanager
def kvm_site(directory: Path, *, pool_size: str = "6G", **settings: str) -> Iterator[Site]:
    """Both of them at work; nothing of them is left afterwards."""
    trial = Trial(directory)
    libvirtd = PrivateLibvirtd(trial.libvirt, trial.netns, environment=trial.environment)
    try:
        with trial:
            trial.settings |= {name.replace("__", "."): value for name, value in settings.items()}
            trial.settings |= {"vm.hypervisor": "kvm", "vm.kvm.accel": "tcg", LIBVIRT_URI: libvirtd.uri}
            trial.lay_out(pool_size=pool_size)
            installation = trial.marker.read_text()
            libvirtd.start()
            trial.start()
            yield Site(trial, libvirtd)
    finally:
        if libvirtd.process is not None:  # the trial has ended it, and its parent is us
            libvirtd.process.wait(ENDS_WITHIN_S)
    assert leftovers(trial, installation) == []


def resident_bytes(trial: Trial) -> int:
    """The memory of the daemon."""
    assert trial.daemon is not None
    _, pages, *_ = Path(f"/proc/{trial.daemon.pid}/statm").read_text().split()
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class MachineDesk(Desk):
    """A running appliance and one of its virtual machines."""

    def __init__(self, trial: Trial, vm: str) -> None:
        super().__init__(trial, vm, patience=SLOWLY)

    def programs(self, vm: str | None = None) -> frozenset[tuple[str, int, int]]:
        """The programs that make the desktop, each by name, pid and start, as the guest itself tells them."""
        with self.shell(vm) as shell:
            told = shell.run(f"cd /proc; for p in $(pgrep -x '{'|'.join(DESKTOP)}'); do cat $p/stat; done")
        fields = [re.split(r"[()]", line) for line in told.splitlines()]
        found = {(name, int(pid), int(rest.split()[19])) for pid, name, rest in fields}
        assert {name for name, _, _ in found} == {*DESKTOP}, f"not a whole desktop: {found}"
        return frozenset(found)

    def shell(self, vm: str | None = None) -> Shell:
        """The guest's root shell."""
        return Shell(self.trial, vm or self.vm)


class Shell:
    """The shell on a guest's serial line, by `qa vm console`."""

    def __init__(self, trial: Trial, vm: str) -> None:
        self._trial = trial
        self._vm = vm
        self._shown = ""

    def __enter__(self) -> Self:
        words = [str(BIN / "qa"), "--config", str(self._trial.config), "vm", "console", "-f"]
        self._console = subprocess.Popen(
            [*words, f"name={self._vm}"],
            env=self._trial.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            self._await_prompt()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        if exc is not None:
            exc.add_note(f"console of {self._vm}:\n{self._shown[-3000:]}")
        self._end()

    def run(self, command: str, limit_s: float = ANSWERS_WITHIN_S) -> str:
        """Run a command; what it prints. AssertionError if it fails."""
        status, text = self.attempt(command, limit_s)
        assert status == 0, f"{command}: {status}: {text}"
        return text

    def attempt(self, command: str, limit_s: float = ANSWERS_WITHIN_S) -> tuple[int, str]:
        """Run a command, whatever comes of it: its status, and what it prints."""
        return self.end(self.begin(command), limit_s)

    def begin(self, command: str) -> str:
        """Run a command; the mark by which its end is awaited."""
        mark = secrets.token_hex(4)
        # The quotes keep the command, which the line shows as well, from looking like its answer.
        self._send(f"echo 'begin'-{mark}; {command}; echo 'end'-{mark}-$?.\n")
        return mark

    def end(self, mark: str, limit_s: float = ANSWERS_WITHIN_S) -> tuple[int, str]:
        """Wait for the end of a command: its status, and what it printed."""
        marked = re.compile(rf"begin-{mark}\r?\n(.*)end-{mark}-(\d+)\.", re.DOTALL)
        until = time.monotonic() + limit_s
        while not (done := marked.search(self._shown)):
            assert time.monotonic() < until, f"no end of the command within {limit_s:g} s"
            self._read()
        return int(done[2]), _ESCAPES.sub("", done[1]).replace("\r", "").strip()

    def _await_prompt(self) -> None:
        """What is typed before somebody is logged in is lost: ask until there is an answer."""
        mark, until = secrets.token_hex(4), time.monotonic() + ANSWERS_WITHIN_S
        while f"ready-{mark}" not in self._shown:
            assert time.monotonic() < until, "nobody answers on the console"
            self._send(f"\necho 'ready'-{mark}\n")
            self._read(ASKED_AGAIN_S)

    def _send(self, text: str) -> None:
        assert self._console.stdin is not None
        self._console.stdin.write(text.encode())
        self._console.stdin.flush()

    def _read(self, quiet_s: float = 1.0) -> None:
        """Take what the console shows within so many seconds."""
        assert self._console.stdout is not None
        until = time.monotonic() + quiet_s
        while select.select([self._console.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
            data = os.read(self._console.stdout.fileno(), 65536)
            assert data, "the console has ended"
            self._shown += data.decode(errors="replace")
            until = min(until, time.monotonic() + 0.05)

    def _end(self) -> None:
        self._console.kill()
        self._console.communicate()
