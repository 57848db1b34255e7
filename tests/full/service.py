"""[full] service: the appliance as a service of a whole Debian 12, from installation to a power cut.

systemd as process 1, pure cgroup v2 and a kernel of Debian's own, all of which the machines that run
the suite lack. What must hold: one command installs it, a real client sees a desktop, and neither
restart, upgrade, kill -9 nor a hung daemon touches the guest; after a reboot and after a power cut
the desktop comes back with its home.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.trial import LOGIN, ROOT, Trial, command, end
from tests.full import measurements
from tests.full.debian_guest import (
    CHECKOUT,
    WHEELS,
    DebianGuest,
    build,
    copy_in,
    ensure_qemu,
    kernel_of,
    pack_checkout,
    qemu_version,
    sparse_copy,
)
from tests.support.desktop import Screen

PORT = 8443
IMAGE = ROOT / "build" / "desktop.tar.zst"
CACHE = ROOT / "build" / "service"
OFFLINE = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS}"
QA = f"{CHECKOUT}/.venv/bin/qa"
SLOW_S = 300
"""What a desktop takes here, where every instruction of the guest is translated."""


class Run:
    """One run of the scenario: the machine, the client's side, and what was measured."""

    def __init__(self, guest: DebianGuest, trial: Trial) -> None:
        self.guest = guest
        self.trial = trial
        self.figures: list[str] = []
        self._clients = itertools.count()

    def step(self, name: str, work: Callable[[], object]) -> None:
        """Do one part, and say how long it took."""
        begun = time.monotonic()
        print(f"{name} … ", end="", flush=True)
        said = work()
        line = f"{name}: {time.monotonic() - begun:.0f} s" + (f" ({said})" if isinstance(said, str) else "")
        print(line.removeprefix(f"{name}: "), flush=True)
        self.figures.append(line)

    def install(self) -> str:
        """The one command, on a machine that has everything but the product."""
        unpack = f"mkdir -p {CHECKOUT} && tar -C {CHECKOUT} -xf /opt/checkout.tar"
        self.guest.run(unpack)
        said = self.guest.run(f"cd {CHECKOUT} && {OFFLINE} scripts/setup --service", limit_s=1800)
        print(said.stdout)
        self.guest.wait_until("systemctl is-active qvd-appliance", limit_s=60)
        self.guest.run("test -e /sys/fs/cgroup/cgroup.controllers")
        exposure = self.guest.run("systemd-analyze security --no-pager qvd-appliance").stdout
        score = re.search(r"exposure level.*?: ([0-9.]+)", exposure)
        assert score is not None, exposure
        assert float(score[1]) < 5, exposure
        return f"exposure {score[1]}"

    def furnish(self) -> None:
        """A user, an OSF with every limit, the image and a desktop."""
        password = secrets.token_urlsafe(12)
        self.trial.password_file.write_text(password + "\n")
        self.trial.password_file.chmod(0o600)
        for line in (
            f"printf '%s\\n' {password} | {QA} user add login={LOGIN} password-file=-",
            f"{QA} osf add name=office memory=512 cpus=2 processes=500 root_size=1g user_storage_size=512m",
            f"{QA} di add path=/opt/desktop.tar.zst osf=office",
            f"{QA} vm add name=desk1 user={LOGIN} osf=office",
        ):
            self.guest.run(line, limit_s=900)
        certificate = self.guest.run("cat $(find /run/qvd /var/run/qvd -name cert.pem | head -1)").stdout
        self.trial.certificate.write_text(certificate)

    def desktop(self, *, makes: str | None = None, finds: str | None = None) -> None:
        """A real client sees the desktop; a file is made in the home, or found there."""
        with self.client() as screen:
            screen.shows(LOGIN, "desk1", limit_s=SLOW_S)
            if makes:
                screen.type(f"echo kept-{makes} > ~/kept; sync\n")
                time.sleep(5)
            if finds:
                screen.type("clear; cat ~/kept\n")
                screen.shows(f"kept-{finds}", limit_s=SLOW_S)

    @contextlib.contextmanager
    def client(self) -> Iterator[Screen]:
        """A client with a display of its own."""
        display = self.trial.open_display()
        log = self.trial.directory / f"client-{next(self._clients)}.log"
        client = self.trial.connect(display.name, "--vm", "desk1", log=log)
        try:
            yield Screen(self.trial, display, client, log)
        finally:
            end(client)
            self.trial.close_display(display)

    def init(self) -> str:
        """The one init of the desktop, with its start time: the same text means the same guest."""
        find = (
            "for p in $(pgrep -x 'busybox|init|systemd'); do "
            "grep -q 'lxc.payload.qvd-' /proc/$p/cgroup && grep -qP '^NSpid:.*\\t1$' /proc/$p/status && "
            "echo $p $(cut -d' ' -f22 /proc/$p/stat); done"
        )
        found = self.guest.run(find, check=False).stdout.split("\n")
        inits = [line for line in found if line]
        assert len(inits) == 1, f"not one init but {inits}"
        return inits[0]

    def limits(self) -> str:
        """The limits of the desktop, as this kernel has them."""
        pid = self.init().split()[0]
        group = f"/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/{pid}/cgroup)"
        said = self.guest.run(f"cd {group} && cat memory.max pids.max cpu.max").stdout.split("\n")
        assert said[:3] == [str(512 << 20), "500", "200000 100000"], said
        return "memory.max, pids.max and cpu.max in force"

    def row(self) -> dict[str, object]:
        """The desktop's row."""
        rows = json.loads(self.guest.run(f"{QA} vm list -o json").stdout)
        assert len(rows) == 1
        found: dict[str, object] = rows[0]
        return found

    def unharmed(self, disturb: Callable[[], object]) -> None:
        """The desktop is the same before and after, and can be used."""
        before = self.init()
        disturb()
        self.guest.wait_until(f"{QA} host list -o json | grep -q running", limit_s=180)
        self.guest.wait_until(ALIVE)
        assert self.init() == before, "the guest was touched"
        assert self.row()["vm_state"] == "running", self.row()
        self.desktop()

    def kill(self) -> None:
        """kill -9 the daemon; systemd starts it again."""
        pid = self.main_pid()
        self.guest.run(f"kill -9 {pid}")
        self.guest.wait_until(f"[ $(systemctl show -P MainPID qvd-appliance) -ne {pid} ]")
        self.guest.wait_until("systemctl is-active qvd-appliance", limit_s=120)

    def hang(self) -> None:
        """Stop the daemon's process: the watchdog ends it."""
        pid = self.main_pid()
        self.guest.run(f"kill -STOP {pid}")
        self.guest.wait_until(f"! [ -e /proc/{pid} ]", limit_s=300)
        self.guest.wait_until("systemctl is-active qvd-appliance", limit_s=120)

    def main_pid(self) -> int:
        """The daemon's process."""
        return int(self.guest.run("systemctl show -P MainPID qvd-appliance").stdout)

    def upgrade(self) -> None:
        """The next version over this one, by the same command."""
        old = self.guest.run(f"{CHECKOUT}/.venv/bin/qvd-appliance version").stdout.strip()
        newer = f"sed -i 's/^version = .*/version = \"{old}.post1\"/' {CHECKOUT}/pyproject.toml"
        self.guest.run(newer)
        self.guest.run(f"cd {CHECKOUT} && {OFFLINE} scripts/setup --service", limit_s=1800)
        new = self.guest.run(f"{CHECKOUT}/.venv/bin/qvd-appliance version").stdout.strip()
        assert new == f"{old}.post1", (old, new)

    def back_after(self, away: Callable[[], object]) -> None:
        """The machine was away; the desktop that ran comes back by itself, with its home."""
        before = self.init()
        away()
        self.guest.wait_until("systemctl is-active qvd-appliance", limit_s=300)
        self.guest.wait_until(f'{QA} vm list -o json | grep -q \'"vm_state": "running"\'', limit_s=300)
        assert self.init() != before
        self.desktop(finds="before")


ALIVE = (
    "python3 -c 'import socket,ssl; c=ssl._create_unverified_context(); "
    f's=c.wrap_socket(socket.create_connection(("127.0.0.1",{PORT}),5)); '
    's.sendall(b"GET /qvd/ping HTTP/1.1\\r\\n\\r\\n"); assert b" 200 " in s.recv(999)\''
)


def main() -> int:
    """Run the scenario; returns 0 if all of it held."""
    ensure_qemu()
    command(sys.executable, str(ROOT / "images" / "build_lxc.py"), str(IMAGE), timeout_s=1800)
    made = build(CACHE)
    directory = Path(tempfile.mkdtemp(prefix="qvd-service-"))
    netns = f"qvd-full-{os.getpid()}"
    trial = Trial(directory, netns=netns)
    guest = DebianGuest(directory, netns, ports=(PORT,))
    try:
        for file in ("vmlinuz", "initrd.img"):
            shutil.copy(made / file, directory / file)
        sparse_copy(made / "disk.raw", guest.disk)
        checkout = pack_checkout(directory / "checkout.tar")
        copy_in(guest.disk, {checkout: "/opt/checkout.tar", IMAGE: "/opt/desktop.tar.zst"})
        trial.make_netns(netns)
        return scenario(Run(guest, trial))
    finally:
        for client in trial.others:
            end(client)
        for display in list(trial.displays):
            trial.close_display(display)
        guest.close()
        command("ip", "netns", "del", netns)
        shutil.rmtree(directory, ignore_errors=True)


def scenario(run: Run) -> int:
    """Everything, in order."""
    guest = run.guest
    run.step(
        "boot", lambda: f"{guest.boot():.0f} s to the agent, kernel {kernel_of(guest)}, {qemu_version()}"
    )
    run.step("scripts/setup --service", run.install)
    run.step("user, OSF, image, VM", run.furnish)
    run.step("a desktop", lambda: run.desktop(makes="before"))
    run.step("limits on pure cgroup v2", run.limits)
    run.step("systemctl restart", lambda: run.unharmed(lambda: guest.run("systemctl restart qvd-appliance")))
    run.step("kill -9", lambda: run.unharmed(run.kill))
    run.step("a hung daemon", lambda: run.unharmed(run.hang))
    run.step("upgrade", lambda: run.unharmed(run.upgrade))
    run.step("reboot", lambda: run.back_after(guest.reboot))
    run.step("power cut", lambda: run.back_after(guest.pull_the_plug))
    run.step("nothing failed", lambda: guest.run("! systemctl --failed --plain --no-legend | grep ."))
    measurements.append("service: a Debian 12 in QEMU (TCG)", "\n\n- " + "\n- ".join(run.figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
