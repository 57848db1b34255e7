"""A whole Debian 12 with systemd and pure cgroup v2, in QEMU without KVM: a server as customers have it.

Its disk is built with everything that `scripts/setup` installs, as the guest reaches no network: QEMU
runs in a network namespace of its own, and only ports of that namespace lead into the guest. A small
agent in the guest runs what it is told; it is the harness's, not the product's.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from scripts.trial import ROOT, command, end, output

DISK_SIZE = "32G"
MEMORY_MIB = 4096
AGENT_PORT = 9999
BOOT_S = 600
CHECKOUT = "/opt/qvd-appliance"
WHEELS = "/opt/wheels"
PACKAGES = (
    "systemd-sysv udev dbus linux-image-amd64 initramfs-tools iproute2 iputils-ping ifupdown openssh-client "
    "procps less ca-certificates sqlite3"
)
AGENT = """
import http.server, json, subprocess
class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        words = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        done = subprocess.run(["bash", "-c", words["command"]], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", timeout=words["limit_s"])
        body = json.dumps({"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", %d), Agent).serve_forever()
"""
UNIT = """
[Unit]
Description=Does what the test harness says
After=network.target
[Service]
ExecStart=/usr/bin/python3 /opt/agent.py
Restart=always
[Install]
WantedBy=multi-user.target
"""
NETWORK = """
auto lo
iface lo inet loopback
auto eth0
iface eth0 inet static
    address 10.0.2.15/24
    gateway 10.0.2.2
"""


@dataclass(frozen=True, slots=True)
class Said:
    """How a command in the guest ended."""

    status: int
    stdout: str
    stderr: str


class DebianGuest:
    """One virtual machine: its disk in `directory`, its ports in the namespace `netns`."""

    def __init__(self, directory: Path, netns: str, ports: tuple[int, ...]) -> None:
        self.directory = directory
        self.netns = netns
        self.ports = ports
        self.disk = directory / "disk.raw"
        self.console = directory / "console.log"
        self._machine: subprocess.Popen[bytes] | None = None

    def boot(self) -> float:
        """Start the machine and wait for its agent; how many seconds that took."""
        begun = time.monotonic()
        forwards = ",".join(
            f"hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{port}" for port in (*self.ports, AGENT_PORT)
        )
        words = [
            *("ip", "netns", "exec", self.netns, "qemu-system-x86_64"),
            *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
            *("-m", str(MEMORY_MIB), "-nodefaults", "-display", "none", "-no-reboot"),
            *("-kernel", str(self.directory / "vmlinuz"), "-initrd", str(self.directory / "initrd.img")),
            *("-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 systemd.show_status=0 quiet"),
            *("-drive", f"file={self.disk},format=raw,if=virtio,cache=writeback"),
            *("-netdev", f"user,id=net,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=net"),
            *("-device", "virtio-rng-pci", "-serial", f"file:{self.console}"),
        ]
        self._machine = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
        until = begun + BOOT_S
        while time.monotonic() < until:
            if self._machine.poll() is not None:
                raise AssertionError(f"QEMU ended:\n{self.console_tail()}")
            try:
                self.run("true", limit_s=20)
            except (OSError, http.client.HTTPException, subprocess.TimeoutExpired):
                time.sleep(1)
            else:
                return time.monotonic() - begun
        raise AssertionError(f"the guest did not boot within {BOOT_S} s:\n{self.console_tail()}")

    def run(self, line: str, *, check: bool = True, limit_s: float = 300) -> Said:
        """Run a line of shell in the guest."""
        asked = json.dumps({"command": line, "limit_s": limit_s})
        program = ROOT / "tests" / "full" / "ask_agent.py"
        asking = ["ip", "netns", "exec", self.netns, "/usr/bin/python3", str(program), str(AGENT_PORT)]
        answer = subprocess.run(
            asking, input=asked, capture_output=True, text=True, timeout=limit_s + 30, check=False
        )
        if answer.returncode != 0:
            raise ConnectionError(answer.stderr.strip().splitlines()[-1] if answer.stderr else "no answer")
        said = Said(**json.loads(answer.stdout))
        if check and said.status != 0:
            raise AssertionError(f"{line}: exit {said.status}\n{said.stdout[-3000:]}\n{said.stderr[-3000:]}")
        return said

    def wait_until(self, line: str, *, limit_s: float = 300) -> None:
        """Run a line again and again until it succeeds."""
        until = time.monotonic() + limit_s
        while (said := self.run(line, check=False)).status != 0:
            if time.monotonic() > until:
                raise AssertionError(f"{line}: not within {limit_s:g} s\n{said.stdout}\n{said.stderr}")
            time.sleep(1)

    def reboot(self) -> float:
        """Restart in good order; seconds until the agent answers again."""
        begun = time.monotonic()
        self.run("systemctl reboot", check=False)
        assert self._machine is not None
        self._machine.wait(timeout=BOOT_S)
        self.boot()
        return time.monotonic() - begun

    def pull_the_plug(self) -> None:
        """End the machine at this instant, and boot it again."""
        assert self._machine is not None
        self._machine.kill()
        self._machine.wait()
        self.boot()

    def close(self) -> None:
        """End the machine."""
        if self._machine is not None:
            end(self._machine)

    def console_tail(self, lines: int = 40) -> str:
        """What the machine's console showed last."""
        if not self.console.exists():
            return ""
        return "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:])


def build(cache: Path) -> Path:
    """A directory with a bootable disk, kernel and initrd; built once for each set of packages and wheels."""
    wheels = make_wheels(cache / "wheels")
    text = (ROOT / "scripts" / "setup").read_text()
    (array,) = re.findall(r"^packages=\((.*?)^\)", text, re.MULTILINE | re.DOTALL)
    named = " ".join(line.partition("#")[0] for line in array.splitlines()).split()
    packages = ",".join(sorted({*PACKAGES.split(), *named}))
    inputs = hashlib.sha256(
        f"{packages}{sorted(file.name for file in wheels.iterdir())}".encode()
    ).hexdigest()
    made = cache / f"debian-{inputs[:12]}"
    if (made / "disk.raw").exists():
        return made
    tree = cache / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    command(
        *("mmdebstrap", "--variant=minbase", f"--include={packages}", "--format=directory"),
        *("--aptopt=Apt::Install-Recommends false", "bookworm", str(tree)),
        timeout_s=1800,
    )
    shutil.copytree(wheels, tree / WHEELS.lstrip("/"))
    (tree / "opt/agent.py").write_text(AGENT % AGENT_PORT)
    (tree / "etc/systemd/system/agent.service").write_text(UNIT)
    (tree / "etc/network/interfaces").write_text(NETWORK)
    (tree / "etc/hostname").write_text("office\n")
    (tree / "etc/hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\toffice\n")
    (tree / "etc/fstab").write_text("")
    command("chroot", str(tree), "systemctl", "enable", "agent.service")
    made.mkdir(parents=True, exist_ok=True)
    (kernel,) = (tree / "boot").glob("vmlinuz-*")
    (initrd,) = (tree / "boot").glob("initrd.img-*")
    shutil.copy(kernel, made / "vmlinuz")
    shutil.copy(initrd, made / "initrd.img")
    scratch = made / "disk.part"
    command("truncate", "-s", DISK_SIZE, str(scratch))
    command("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(tree), str(scratch), timeout_s=600)
    scratch.rename(made / "disk.raw")
    shutil.rmtree(tree)
    return made


def make_wheels(directory: Path) -> Path:
    """Every Python package that `scripts/setup` installs, built for Debian 12's Python."""
    mark = directory / f".{hashlib.sha256((ROOT / 'pyproject.toml').read_bytes()).hexdigest()[:12]}"
    if mark.exists():
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    builder = directory.parent / "builder"
    command("/usr/bin/python3", "-m", "venv", "--clear", str(builder))
    pip = str(builder / "bin" / "pip")
    command(pip, "install", "-q", "setuptools", "wheel", timeout_s=600)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = ["setuptools", "wheel", *project["dependencies"], *project["optional-dependencies"]["dev"]]
    command(pip, "wheel", "-q", "-w", str(directory), *needed, timeout_s=1200)
    shutil.rmtree(builder)
    mark.touch()
    return directory


def pack_checkout(target: Path) -> Path:
    """The committed tree as an archive."""
    with target.open("wb") as archive:
        subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], stdout=archive, check=True, timeout=60)
    return target


def copy_in(disk: Path, files: dict[Path, str]) -> None:
    """Put files into a disk that is not in use."""
    with_mount = disk.parent / "mnt"
    with_mount.mkdir(exist_ok=True)
    command("mount", "-o", "loop", str(disk), str(with_mount))
    try:
        for source, where in files.items():
            there = with_mount / where.lstrip("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, there)
    finally:
        command("umount", str(with_mount))
    with_mount.rmdir()


def kernel_of(guest: DebianGuest) -> str:
    """The guest's kernel."""
    return guest.run("uname -r").stdout.strip()


def sparse_copy(source: Path, target: Path) -> None:
    """Copy a disk without its holes."""
    command("cp", "--sparse=always", "--reflink=auto", str(source), str(target), timeout_s=600)


def qemu_version() -> str:
    """Which QEMU this is."""
    return output("qemu-system-x86_64", "--version").splitlines()[0]


def ensure_qemu() -> None:
    """Install QEMU, if it is not there."""
    if shutil.which("qemu-system-x86_64") is None:
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        command("apt-get", "-q", "update", timeout_s=600)
        command(
            *("apt-get", "-q", "-y", "install", "--no-install-recommends", "qemu-system-x86"), timeout_s=900
        )
