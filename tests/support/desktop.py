"""A desktop in use: its client, what can be read on the client's display, and who its init is."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.model import InstallationId, VmId
from appliance.runtime import lxc_process, names
from scripts.trial import LOGIN, Display, Trial, end, output, read_picture, take_picture, type_text
from tests.support.traces import traces

SEEN_WITHIN_S = 60
APPEARS_WITHIN_S = 15
SLOWLY = 10
"""How many times as long an emulated guest may take."""
FAR = "%24"
"""Where answers are printed: nxagent may resume with its window beyond the display's left edge."""
PROGRAMS = {"nxagent", "openbox", "xterm", "bash"}


@dataclass(slots=True)
class Screen:
    """A client showing a desktop on a display of its own."""

    trial: Trial
    display: Display
    client: subprocess.Popen[bytes]
    log: Path
    patience: int = 1
    """How many times as long as a container the guest may take."""
    picture: bytes = b""
    words: str = ""
    """What can be read in `picture`: reading takes a second or two."""

    def text(self) -> str:
        """What can be read on the display now."""
        file = self.log.with_suffix(".png")
        take_picture(self.display.name, file)
        if (picture := file.read_bytes()) != self.picture:
            self.picture, self.words = picture, read_picture(file)
        return self.words

    def shows(self, *words: str, limit_s: float = SEEN_WITHIN_S) -> str:
        """Wait until all `words` can be read; the text in which they are."""
        seen = ""

        def readable() -> bool:
            nonlocal seen
            seen = self.text()
            return all(word in seen for word in words)

        try:
            self.trial.wait_for(f"{words} on {self.display.name}", readable, limit_s * self.patience)
        except Exception as exc:
            found = f"read: {seen!r}\nwindows: {self.windows()}\nclient: {self.log.read_text()}"
            raise AssertionError(f"{exc}\n{found}") from exc
        return seen

    def appears(self, *words: str) -> None:
        """Wait until `words` can be read on the desktop.

        nxagent sometimes resumes with a window that hangs beyond the display's left edge.
        """
        with contextlib.suppress(AssertionError):
            self.shows(*words, limit_s=APPEARS_WITHIN_S)
            return
        self.pull_into_view()
        self.shows(*words)

    def pull_into_view(self) -> None:
        """Move the client's window, if it has one, to the corner of its display."""
        subprocess.run(
            ["xdotool", "search", "--onlyvisible", "--name", ".", "windowmove", "%@", "0", "0"],
            env={**os.environ, "DISPLAY": self.display.name},
            check=False,
            capture_output=True,
            timeout=20,
        )

    def windows(self) -> str:
        """What is open on the display, and where."""
        shown = subprocess.run(
            ["xwininfo", "-root", "-tree"],
            env={**os.environ, "DISPLAY": self.display.name},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return shown.stdout

    def type(self, text: str) -> None:
        """Type through the client."""
        type_text(self.display.name, text)

    def run(self, command: str, answer: str) -> str:
        """Type a command into the desktop's terminal and wait until `answer` can be read."""
        self.type(f"{command}\n")
        return self.shows(answer)

    def remember(self, word: str) -> None:
        """Put `word` into a variable of the terminal's shell: it lives as long as that process."""
        self.run(f'kept={word}; printf "{FAR}s\\n" "length ${{#kept}}"', f"length {len(word)}")

    def recalls(self, word: str) -> None:
        """The terminal's shell still has `word`, which was never shown in capitals before."""
        self.run(f'printf "{FAR}s\\n" ${{kept^^}}', word.upper())

    def ends_by_itself(self, limit_s: float = 60) -> int:
        """Wait until the client has ended without being told to; its exit status."""
        try:
            return self.client.wait(limit_s)
        except subprocess.TimeoutExpired as exc:
            raise AssertionError(f"the client goes on: {self.log.read_text()}") from exc

    def leave(self) -> None:
        """End the client and its display."""
        end(self.client)
        self.trial.close_display(self.display)


@dataclass(frozen=True, slots=True)
class Init:
    """A guest's first process: its init, or its QEMU. Pids are reused, pairs of these are not."""

    pid: int
    started: int


@dataclass(slots=True)
class Desk:
    """A running appliance and one of its VMs."""

    trial: Trial
    vm: str
    numbers: Iterator[int] = itertools.count()  # noqa: RUF009
    patience: int = 1

    def open(self, vm: str | None = None, *, login: str = LOGIN, netns: str | None = None) -> Screen:
        """Connect to a VM from a display of its own."""
        log = self.trial.directory / f"client-{next(self.numbers)}.log"
        display = self.trial.open_display()
        client = self.trial.connect(display.name, "--vm", vm or self.vm, login=login, log=log, netns=netns)
        return Screen(self.trial, display, client, log, self.patience)

    def open_and_see(self, vm: str | None = None, *, login: str = LOGIN, netns: str | None = None) -> Screen:
        """Connect, and wait until the desktop tells who and where it is."""
        screen = self.open(vm, login=login, netns=netns)
        screen.appears(login, vm or self.vm)
        return screen

    def row(self, vm: str | None = None) -> dict[str, object]:
        """The row of `qa vm list`."""
        return self.trial.vm(vm or self.vm)

    def inits(self, vm: str | None = None) -> list[Init]:
        """Every init that runs for a VM: there must never be two."""
        return inits_of(self.guest(vm))

    def programs(self, vm: str | None = None) -> frozenset[tuple[str, int, int]]:
        """The programs that make the desktop of a VM, each by name, pid and start."""
        group = rf"/lxc\.payload\.{self.guest(vm)}(-\d+)?(/|$)"
        found = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                name = (entry / "comm").read_text().strip()
                ours = re.search(group, (entry / "cgroup").read_text(), re.MULTILINE) is not None
                started = lxc_process.started(int(entry.name))
                if ours and name in PROGRAMS and started is not None:
                    found.add((name, int(entry.name), started))
        assert {name for name, _, _ in found} == PROGRAMS, f"not a whole desktop: {found}"
        return frozenset(found)

    def guest(self, vm: str | None = None) -> str:
        """The name of a VM's guest at its hypervisor."""
        identity = InstallationId(self.trial.marker.read_text())
        return names.name(identity, VmId(int(str(self.row(vm)["id"]))))

    def init(self, vm: str | None = None) -> Init:
        """The one init of a VM."""
        (one,) = self.inits(vm)
        return one


def inits_of(guest: str) -> list[Init]:
    """Every first process of guests of this name."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            ours = is_init(entry, guest) or is_qemu(entry, guest)
            if ours and (started := lxc_process.started(int(entry.name))) is not None:
                found.append(Init(int(entry.name), started))
    return found


def is_init(process: Path, container: str) -> bool:
    """Whether a process is the init of a container: number 1 in its namespace, in its payload's group."""
    numbers = re.search(r"^NSpid:\s*(.*)$", (process / "status").read_text(), re.MULTILINE)
    if numbers is None or numbers[1].split()[1:] != ["1"]:
        return False
    return (
        re.search(rf"/lxc\.payload\.{container}(-\d+)?(/|$)", (process / "cgroup").read_text(), re.MULTILINE)
        is not None
    )


def is_qemu(process: Path, machine: str) -> bool:
    """Whether a process is the QEMU of a virtual machine."""
    words = (process / "cmdline").read_text(errors="replace").split("\0")
    if not Path(words[0]).name.startswith("qemu-system-") or "-name" not in words:
        return False
    return words[words.index("-name") + 1].partition(",")[0] == f"guest={machine}"


def leftovers(trial: Trial, installation: str) -> list[str]:
    """What a trial has left on this machine."""
    loops = [line for line in output("losetup", "-a").splitlines() if str(trial.directory) in line]
    spaces = [line for line in output("ip", "netns", "list").splitlines() if trial.netns in line]
    kept = {"appliance.log"}
    files = [
        path.name
        for path in (trial.directory.iterdir() if trial.directory.exists() else ())
        if path.name not in kept and path.suffix not in {".png", ".log"}
    ]
    return [*traces(str(trial.directory)), *traces(installation), *loops, *spaces, *files]
