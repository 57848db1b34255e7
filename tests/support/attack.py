"""Tries, as root inside a guest, whatever no guest may do. Needs a Python of the guest's and nothing else.

`serve` is what an image's init runs: it waits for orders in `ORDERS`. `once` carries out one order, for
a process that nobody confines. An order names probes and tells them about their victims; every probe is
tried in a process of its own and told as one line of JSON: its name, whether it succeeded, and how.
Success never harms: what is written is what was there before.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

ORDERS = Path("/run/attack")
BEAT, NEXT_BEAT = Path("/home/beat"), Path("/home/beat.next")
PATIENCE_S = 20
KNOCK_S = 4.0
PAGE = 4096
MS_REMOUNT = 32
MADV_POPULATE_WRITE = 23

T = TypeVar("T")
PROBES: dict[str, Callable[[dict[str, Any]], str]] = {}
_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The attempt came to nothing."""


def probe(effort: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    """Register an attempt: it tells what it achieved, or raises `Refused` or `OSError`."""
    PROBES[effort.__name__.replace("_", "-")] = effort
    return effort


def call(number: int, *arguments: object) -> int:
    """A system call by its number on x86-64."""
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mounted(kind: str, options: str = "") -> Path:
    """A fresh mount of a file system without a device."""
    where = Path("/run") / f"mnt-{kind}-{options.replace(',', '-')}-{os.getpid()}"
    where.mkdir()
    words = (kind.encode(), str(where).encode(), kind.encode())
    if _libc.mount(*words, 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {kind} {options}: {os.strerror(ctypes.get_errno())}")
    return where


def rewritten(file: Path) -> str:
    """Write into a file what it holds already."""
    held = file.read_bytes()
    with file.open("r+b", buffering=0) as stream:
        stream.write(held or b"\n")
    return f"wrote {file}"


def first(attempt: Callable[[T], str], among: Iterable[T]) -> str:
    """The first of several victims with which an attempt succeeds."""
    reasons = []
    for victim in among:
        try:
            return attempt(victim)
        except (OSError, Refused) as exc:
            reasons.append(str(exc))
    raise Refused("; ".join(reasons) or "there is nothing to try it on")


def any_of(*ways: Callable[[], str]) -> str:
    """The first of several ways that leads somewhere."""
    return first(lambda way: way(), ways)


def device(kind: int, major: int, minor: int) -> Path:
    """A device node, where devices may be opened."""
    node = Path("/opt") / f"node-{os.getpid()}-{major}-{minor}"
    os.mknod(node, kind | 0o600, os.makedev(major, minor))
    return node


# --- the kernel ---------------------------------------------------------------------------------------


def remounted(where: str) -> None:
    """Make a mount writable."""
    if _libc.mount(b"none", where.encode(), None, MS_REMOUNT, None) != 0:
        raise OSError(ctypes.get_errno(), f"remount {where}: {os.strerror(ctypes.get_errno())}")


@probe
def proc_sys(victims: dict[str, Any]) -> str:
    """A setting of the kernel: as it is mounted, mounted writable, or mounted anew."""

    def below(top: Path) -> str:
        names = ("kernel/core_pattern", "kernel/panic", "vm/swappiness", "kernel/printk")
        return first(rewritten, [top / name for name in names])

    def writable() -> str:
        remounted("/proc/sys")
        return below(Path("/proc/sys"))

    return any_of(lambda: below(Path("/proc/sys")), writable, lambda: below(mounted("proc") / "sys"))


@probe
def sysrq(victims: dict[str, Any]) -> str:
    """An order to the kernel's emergency key; `h` prints help."""
    with Path("/proc/sysrq-trigger").open("wb", buffering=0) as trigger:
        trigger.write(b"h")
    return "sysrq h"


@probe
def sys_write(victims: dict[str, Any]) -> str:
    """A setting of a device or of memory management, by /sys as it is or mounted writable."""

    def present() -> str:
        devices = Path("/sys/block").glob("*/queue/read_ahead_kb")
        return first(rewritten, [*devices, Path("/sys/kernel/mm/ksm/pages_to_scan")])

    def writable() -> str:
        remounted("/sys")
        return present()

    return any_of(present, writable)


@probe
def fresh_sysfs(victims: dict[str, Any]) -> str:
    """A /sys of its own, with the devices of the host."""
    return f"mounted {mounted('sysfs')}"


@probe
def debug_file_systems(victims: dict[str, Any]) -> str:
    """Windows into the kernel's inside."""
    return first(lambda kind: f"mounted {mounted(kind)}", ("debugfs", "tracefs"))


@probe
def character_device(victims: dict[str, Any]) -> str:
    """A node for the kernel's messages, and reading it."""
    node = device(stat.S_IFCHR, 1, 11)
    os.close(os.open(node, os.O_RDONLY | os.O_NONBLOCK))
    return f"opened {node}"


@probe
def block_device(victims: dict[str, Any]) -> str:
    """The raw disk on which everybody's homes are, by a node of its own or as it is in /dev."""

    def made() -> str:
        node = device(stat.S_IFBLK, *victims["disk"])
        with node.open("rb") as disk:
            return f"read {len(disk.read(PAGE))} bytes of {node}"

    def present() -> str:
        nodes = [path for path in Path("/dev").rglob("*") if path.is_block_device()]
        return first(lambda node: f"read {len(node.open('rb').read(PAGE))} bytes of {node}", nodes)

    return any_of(made, present)


@probe
def kernel_log(victims: dict[str, Any]) -> str:
    """The kernel's messages, which tell about other guests."""
    space = ctypes.create_string_buffer(PAGE)
    return f"read {call(103, 3, space, PAGE)} bytes"


@probe
def release_agent(victims: dict[str, Any]) -> str:
    """The program that the kernel runs, as the host's root, when a control group is empty."""
    kinds = [line.split()[0] for line in Path("/proc/cgroups").read_text().splitlines()[1:]]

    return first(lambda kind: first(rewritten, mounted("cgroup", kind).glob("release_agent")), kinds)


@probe
def more_memory(victims: dict[str, Any]) -> str:
    """A higher limit for its own control group."""

    def old() -> str:
        top = mounted("cgroup", "memory")
        (own,) = (line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line)
        group = top / own.split(":", 2)[2].lstrip("/")
        limit = group / "memory.limit_in_bytes"
        limit.write_text(str(int(limit.read_text()) + (1 << 30)))
        return f"wrote {limit}"

    def new() -> str:
        limit = mounted("cgroup2") / "memory.max"
        limit.write_text("max")
        return f"wrote {limit}"

    return any_of(old, new)


@probe
def more_devices(victims: dict[str, Any]) -> str:
    """Every device for its own control group."""
    top = mounted("cgroup", "devices")
    (own,) = (line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":devices:" in line)
    file = top / own.split(":", 2)[2].lstrip("/") / "devices.allow"
    file.write_text("a")
    return f"wrote {file}"


@probe
def processes_of_the_host(victims: dict[str, Any]) -> str:
    """Tracing a process of the host."""
    pid = victims["pid"]
    if _libc.ptrace(0x4206, pid, None, None) != 0:  # PTRACE_SEIZE
        raise OSError(ctypes.get_errno(), f"ptrace of {pid}")
    return f"traces {pid}"


@probe
def files_of_the_host(victims: dict[str, Any]) -> str:
    """A file of the host, by way of the roots of all processes that are to be seen."""
    wanted = victims["file"].lstrip("/")
    ways = [entry / "root" / wanted for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return first(lambda way: f"read {len(way.read_bytes())} bytes by {way}", ways)


@probe
def handles(victims: dict[str, Any]) -> str:
    """Files by their numbers in the file system, past all directories: anybody's home."""
    handle = ctypes.create_string_buffer(136)
    ctypes.memmove(handle, (128).to_bytes(4, "little"), 4)
    mount = ctypes.c_int()
    call(303, -100, b"/opt", handle, ctypes.byref(mount), 0)
    root = os.open("/opt", os.O_RDONLY)
    return f"opened {call(304, root, handle, os.O_RDONLY)}"


@probe
def keyring(victims: dict[str, Any]) -> str:
    """Keys, which the kernel keeps for users and not for guests."""
    return f"has keyring {call(250, 0, -3, 1)}"


@probe
def bpf(victims: dict[str, Any]) -> str:
    """A program or a table in the kernel."""
    attributes = (ctypes.c_uint32 * 18)(2, 4, 4, 1)
    return f"has table {call(321, 0, attributes, ctypes.sizeof(attributes))}"


@probe
def io_uring(victims: dict[str, Any]) -> str:
    """Input and output past the filter of system calls."""
    return f"has ring {call(425, 1, ctypes.create_string_buffer(120))}"


@probe
def perf(victims: dict[str, Any]) -> str:
    """Counters of the processor, for all of this host's processes."""
    attributes = (ctypes.c_uint32 * 32)(1, 128)
    return f"counts by {call(298, attributes, -1, 0, -1, 0)}"


@probe
def userfaultfd(victims: dict[str, Any]) -> str:
    """Holding the kernel up in the middle of a copy."""
    return f"has {call(323, 0)}"


@probe
def mount_configuration(victims: dict[str, Any]) -> str:
    """The younger way to mount, and its mistakes."""
    return f"has {call(430, b'tmpfs', 0)}"


@probe
def kexec(victims: dict[str, Any]) -> str:
    """Another kernel; to load none is success."""
    call(246, 0, 0, None, 0)
    return "may load a kernel"


@probe
def module(victims: dict[str, Any]) -> str:
    """A module; to be told that this is none is success."""
    try:
        call(175, b"no module", 9, b"")
    except OSError as exc:
        if exc.errno == errno.ENOEXEC:
            return "may load modules"
        raise
    return "loaded"


@probe
def vsock(victims: dict[str, Any]) -> str:
    """A way to the machine below this host, past all network namespaces."""
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    return "has a socket"


@probe
def packet_socket(victims: dict[str, Any]) -> str:
    """Frames of its own making."""
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    return "has a socket"


@probe
def raw_socket(victims: dict[str, Any]) -> str:
    """Packets of its own making."""
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "has a socket"


@probe
def own_hardware_address(victims: dict[str, Any]) -> str:
    """Another hardware address for its own link."""
    return _ip("link", "set", "eth0", "address", "54:52:00:00:00:77")


@probe
def second_address(victims: dict[str, Any]) -> str:
    """A second address for its own link."""
    return _ip("address", "add", "10.44.0.77/32", "dev", "eth0")


@probe
def subvolume(victims: dict[str, Any]) -> str:
    """A subvolume or snapshot of one's own, which no quota would count."""
    place = os.open("/opt", os.O_RDONLY | os.O_DIRECTORY)

    def made(request: int, upper: int) -> str:
        name = f"volume-{request:x}-{upper:x}".encode()
        header = struct.pack("=q", place) if request < 0x50009410 else struct.pack("=q48x", place)
        source = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        arguments = struct.pack("=q", source) + header[8:] + name
        call(16, place, ctypes.c_ulong(upper << 32 | request), arguments.ljust(PAGE, b"\0"))
        return f"ioctl {request:x}"

    requests = (0x50009401, 0x5000940E, 0x50009417, 0x50009418)
    return any_of(*(partial(made, request, upper) for request in requests for upper in (0, 1)))


@probe
def shared_blocks(victims: dict[str, Any]) -> str:
    """Two files that share their blocks, which stay on the account of whoever wrote them."""
    clone, clone_range = 0x40049409, 0x4020940D
    source, target = (os.open(f"/opt/shared-{name}", os.O_RDWR | os.O_CREAT) for name in "ab")
    os.write(source, bytes(PAGE))

    def cloned() -> str:
        call(16, target, clone, source)
        return "cloned"

    def cloned_range() -> str:
        arguments = struct.pack("=qQQQ", source, 0, 0, 0)
        call(16, target, clone_range, arguments)
        return "cloned a range"

    def copied() -> str:
        return f"the kernel copied {os.copy_file_range(source, target, PAGE, 0)}"

    return any_of(cloned, cloned_range, copied)


def fill(order: str) -> str:
    """`fill FOLDER MIB` writes a file that stays, `burst FOLDER MIB` one that goes."""
    how, folder, wanted = order.split()
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = Path(folder) / "filling"
    block, done = os.urandom(1 << 20), 0
    with file.open("wb", buffering=0) as stream:
        if how == "burst":
            file.unlink()
        try:
            for done in range(int(wanted)):  # noqa: B007, how far it came is told
                stream.write(block)
            os.fsync(stream.fileno())
        except OSError as exc:
            raise OSError(exc.errno, f"{os.strerror(exc.errno or 0)} after {done} MiB") from exc
    return f"wrote {wanted} MiB below {folder}"


@probe
def setuid_in_home(victims: dict[str, Any]) -> str:
    """A program in the home that makes a user root, also in the next image."""
    program = Path("/home/id")
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    try:
        said = subprocess.run(
            [program, "-u"], user=1000, group=1000, capture_output=True, text=True, check=True
        ).stdout.strip()
    finally:
        program.unlink()
    if said != "0":
        raise Refused(f"runs as {said}")
    return "runs as root"


# --- too much -----------------------------------------------------------------------------------------


@probe
def fork_bomb(victims: dict[str, Any]) -> str:
    """More processes than it may have, all at once."""
    reader, writer = os.pipe()
    made = 0
    try:
        for _ in range(victims["processes"]):
            if os.fork() == 0:
                os.close(writer)
                os.read(reader, 1)
                os._exit(0)
            made += 1
    except OSError as exc:
        raise Refused(f"{exc.strerror} after {made}") from exc
    finally:
        os.close(writer)
        for _ in range(made):
            os.wait()
    return f"made {made}"


@probe
def memory_hog(victims: dict[str, Any]) -> str:
    """More memory than it may have.

    The kernel is asked for all of it at once. A program that touched page after page would at the limit
    read its own code from the disk again and again, for ever: to the kernel that is progress.
    """
    size = victims["memory_mib"] << 20
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(PATIENCE_S)
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).madvise(MADV_POPULATE_WRITE)
        os.write(writer, b"!")
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    if os.read(reader, 1) != b"!":
        raise Refused(f"ended by signal {os.WTERMSIG(status)}")
    return f"has {size} bytes"


# --- the network --------------------------------------------------------------------------------------


def tcp(address: str, port: int) -> str:
    """A connection."""
    with socket.create_connection((address, port), KNOCK_S):
        return f"reached {address} port {port}"


def udp(address: str, port: int) -> str:
    """A datagram, and its echo."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(KNOCK_S)
        asking.sendto(b"?", (address, port))
        return "heard {!r} from {}".format(*asking.recvfrom(16))


def knock(name: str) -> str:
    """Carry out a probe named `tcp ADDRESS PORT` or `udp ADDRESS PORT`."""
    kind, address, port = name.split()
    return {"tcp": tcp, "udp": udp}[kind](address, int(port))


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr.strip())
    return "ip " + " ".join(words)


# --- the order ----------------------------------------------------------------------------------------


def effort(name: str, victims: dict[str, Any]) -> str:
    """Try what a name says: a probe, a filling of a folder, or a knock."""
    if name in PROBES:
        return PROBES[name](victims)
    return fill(name) if name.startswith(("fill ", "burst ")) else knock(name)


def begin(name: str, victims: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Try one probe in a process of its own, bounded in time; the value waits for what came of it."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(PATIENCE_S)
        Path("/proc/self/oom_score_adj").write_text("1000")  # whoever lacks memory ends this, not who waits
        try:
            how = effort(name, victims)
            told: dict[str, Any] = {"open": True, "how": how}
        except (OSError, Refused) as exc:
            told = {"open": False, "how": str(exc), "errno": getattr(exc, "errno", None)}
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)

    def outcome() -> dict[str, Any]:
        with os.fdopen(reader, "rb") as told:
            said = told.read()
        os.waitpid(child, 0)
        return {"probe": name, **(json.loads(said) if said else {"open": False, "how": "ended by force"})}

    return outcome


def attempted(names: list[str], victims: dict[str, Any]) -> list[dict[str, Any]]:
    """What comes of probes: of those of the network, which mostly wait, all at once; of others, in turn."""
    by_turns = [name for name in names if name in PROBES or name.startswith(("fill ", "burst "))]
    own = [begin(name, victims)() for name in by_turns]
    knocks = [begin(name, victims) for name in names if name not in by_turns]
    return [*own, *(outcome() for outcome in knocks)]


def carry_out(order: Path, results: Path) -> None:
    """Try what an order says, again and again if it names a file that ends it.

    The results appear all at once, under their name, at the end.
    """
    wanted = json.loads(order.read_text())
    unfinished = results.with_suffix(".part")
    with unfinished.open("w") as file:
        while True:
            for told in attempted(wanted["probes"], wanted["victims"]):
                file.write(json.dumps(told) + "\n")
            if not wanted["until"] or Path(wanted["until"]).exists():
                break
    unfinished.rename(results)


def serve() -> None:
    """Carry out one order after another, for ever; with nothing to do, count in the home.

    An order that was taken by a server of before, which did not live to tell, is carried out again.
    """
    ORDERS.mkdir(exist_ok=True)
    for taken in ORDERS.glob("*.taken"):
        if not taken.with_suffix(".results").exists():
            taken.rename(taken.with_suffix(".order"))
    count = 0
    while True:
        for order in sorted(ORDERS.glob("*.order")):
            taken = order.with_suffix(".taken")
            order.rename(taken)
            carry_out(taken, order.with_suffix(".results"))
        count += 1
        with NEXT_BEAT.open("w") as file:
            file.write(str(count))
            file.flush()
            os.fsync(file.fileno())
        NEXT_BEAT.rename(BEAT)
        time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        with contextlib.suppress(KeyboardInterrupt):
            serve()
    else:
        carry_out(Path(sys.argv[2]), Path(sys.argv[3]))
