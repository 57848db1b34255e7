"""The sandbox of a unit, without systemd: what it makes of the directives of the service, made here.

    python -m tests.support.sandbox UNIT COMMAND…

For machines on which systemd is not in charge. It knows the directives that the unit of the appliance
uses and refuses any other one that concerns a sandbox, so that the two cannot drift apart. The kernel's
parts are the real ones: mount namespace, capabilities, filter of system calls.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)

PR_CAPBSET_DROP = 24
CLONE_NEWNS = 0x20000
MNT_DETACH = 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EPERM, EAFNOSUPPORT = 1, 97
FLTATR_CTL_NNP = 3
NE, EQ, GT = 1, 4, 6
ARCH_X86 = 0x40000003
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
LAST_FAMILY = 45
CURRENT_PERSONALITY = 0
REALTIME = (1, 2, 4)
"""SCHED_FIFO, SCHED_RR, and the one that was never used."""
LAST_POLICY = 5

CAPABILITIES = (  # noqa: SIM905, forty words are read more easily so
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable "
    "net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot "
    "sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease "
    "audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read "
    "perfmon bpf checkpoint_restore"
).split()
"""By number, from 0."""
TAKEN_BY = {
    "ProtectKernelModules": {"sys_module"},
    "ProtectClock": {"sys_time", "wake_alarm"},
    "ProtectKernelLogs": {"syslog"},
    "PrivateDevices": {"mknod", "sys_rawio"},
}
CALLS_TAKEN_BY = {
    "ProtectKernelModules": "@module",
    "ProtectClock": "@clock",
    "ProtectKernelLogs": "syslog",
    "PrivateDevices": "@raw-io",
}
READ_ONLY_TUNABLES = "acpi apm asound bus fs irq latency_stats mtrr scsi sys sysrq-trigger timer_stats"
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}

LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}

IMPLEMENTED = {
    *("ProtectSystem", "ReadWritePaths", "ProtectKernelTunables", "ProtectKernelLogs", "ProtectProc"),
    *("ProtectHome", "BindReadOnlyPaths", "PrivateTmp", "PrivateMounts", "PrivateDevices"),
    *("CapabilityBoundingSet", "ProtectKernelModules", "ProtectClock", "SystemCallFilter"),
    *("SystemCallErrorNumber", "SystemCallArchitectures", "RestrictAddressFamilies", "RestrictRealtime"),
    *(
        "DevicePolicy",
        "DeviceAllow",
        "LockPersonality",
        "UMask",
        "LimitNOFILE",
        "RuntimeDirectory",
        "RuntimeDirectoryMode",
    ),
}
ELSEWHERE = {
    *("Type", "NotifyAccess", "ExecStart", "WatchdogSec", "TimeoutStartSec", "TimeoutStopSec", "Restart"),
    *("RestartSec", "KillMode", "OOMPolicy", "TasksMax", "CPUWeight", "MemoryAccounting", "TasksAccounting"),
    "RuntimeDirectoryPreserve",
}
"""What systemd does around a process, not to it."""


class Argument(ctypes.Structure):
    """One comparison of an argument of a system call, as libseccomp wants it."""

    _fields_ = (
        ("number", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


seccomp.seccomp_init.restype = ctypes.c_void_p
seccomp.seccomp_rule_add_array.argtypes = (
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(Argument),
)


def directives(unit: str) -> dict[str, list[str]]:
    """The words of every directive in the section of the service."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.splitlines():
        if line.startswith("["):
            section = line
        name, assigned, value = line.partition("=")
        if section == "[Service]" and assigned and not line.startswith("#"):
            found.setdefault(name, []).extend(value.split())
    unknown = found.keys() - IMPLEMENTED - ELSEWHERE
    assert not unknown, f"the sandbox of the tests does not know {sorted(unknown)}"
    return found


def enter(unit: dict[str, list[str]]) -> None:
    """Put this process, and all that it starts, into the sandbox."""
    _checked(libc.unshare(CLONE_NEWNS))
    mount("--make-rslave", "/")
    cover(unit)
    os.umask(int(unit["UMask"][0], 8))
    soft, hard = map(int, unit["LimitNOFILE"][0].split(":"))
    most = min(hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
    refused = filtered(unit)
    kept = {name.removeprefix("CAP_").lower() for name in unit["CapabilityBoundingSet"]}
    for directive, taken in TAKEN_BY.items():
        kept -= taken if directive in unit else set()
    refuse(unit, refused)
    for number, name in enumerate(CAPABILITIES):
        if name not in kept:
            _checked(libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0))


# --- files ----------------------------------------------------------------------------------------


def cover(unit: dict[str, list[str]]) -> None:
    """Make the mounts that the unit asks for, in systemd's order: outer paths first."""
    runtime = [Path("/run") / name for name in unit["RuntimeDirectory"]]
    for folder in runtime:
        folder.mkdir(mode=int(unit["RuntimeDirectoryMode"][0], 8), exist_ok=True)
    shown = [Path(word) for word in unit["BindReadOnlyPaths"]]
    wanted = [*map(Path, (word.removeprefix("-") for word in unit["ReadWritePaths"])), *runtime]
    writable = [path for path in wanted if path.exists()]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["ProtectHome"] == ["tmpfs"]
    with tempfile.TemporaryDirectory(prefix="sandbox.", dir="/run") as kept:
        _kept_aside(Path(kept), shown)
        for home in ("/home", "/root", "/run/user"):
            if Path(home).is_dir():
                mount("-t", "tmpfs", "-o", "mode=755,nosuid,nodev", "tmpfs", home)
        for temporary in ("/tmp", "/var/tmp"):
            mount("-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "tmpfs", temporary)
        for number, path in enumerate(shown):
            path.mkdir(parents=True, exist_ok=True)
            mount("--rbind", f"{kept}/{number}", str(path))
            unmount(Path(kept) / str(number))
    _private_devices([Path(word) for word in unit.get("DeviceAllow", []) if word.startswith("/")])
    if "ProtectProc" in unit:
        mount("-t", "proc", "-o", "hidepid=invisible,nosuid,nodev,noexec", "proc", "/proc")
    for path in writable:
        mount("--rbind", str(path), str(path))
    api = [Path("/proc"), Path("/sys"), Path("/dev"), Path("/tmp"), Path("/var/tmp")]
    for point in mount_points():
        if not any(point.is_relative_to(path) for path in (*writable, *api)):
            read_only(point)
    for name in READ_ONLY_TUNABLES.split():
        if (path := Path("/proc") / name).exists():
            _read_only_here(path, but=[path for path in writable if path.is_relative_to("/proc")])
    there = [Path("/sys/fs/cgroup"), *writable]
    for point in mount_points():
        if point.is_relative_to("/sys") and not any(point.is_relative_to(path) for path in there):
            read_only(point)
    for name in ("/proc/kallsyms", "/proc/kcore", "/proc/kmsg", "/usr/lib/modules"):
        _hide(Path(name))


def _kept_aside(place: Path, paths: list[Path]) -> None:
    for number, path in enumerate(paths):
        (place / str(number)).mkdir()
        mount("--rbind", str(path), str(place / str(number)))


def _private_devices(allowed: list[Path]) -> None:
    """The devices of every sandbox and those allowed. A policy leaves the others in sight, and closed."""
    fresh = Path(tempfile.mkdtemp(prefix="sandbox-dev.", dir="/run"))
    mount("-t", "tmpfs", "-o", "mode=755,nosuid,noexec", "tmpfs", str(fresh))
    mask = os.umask(0)
    for name, (major, minor) in NODES.items():
        os.mknod(fresh / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    os.umask(mask)
    for name in ("pts", "shm", "mqueue"):
        (fresh / name).mkdir()
        if (Path("/dev") / name).is_dir():
            mount("--rbind", f"/dev/{name}", str(fresh / name))
    for name, target in LINKS.items():
        (fresh / name).symlink_to(target)
    for device in allowed:
        if device.exists():
            there = fresh / device.relative_to("/dev")
            there.parent.mkdir(exist_ok=True)
            there.touch()
            mount("--bind", str(device), str(there))
    mount("--rbind", str(fresh), "/dev")
    unmount(fresh)
    fresh.rmdir()


def _read_only_here(path: Path, *, but: list[Path]) -> None:
    mount("--rbind", str(path), str(path))
    read_only(path)
    for inner in but:
        if inner.is_relative_to(path):
            mount("--bind", str(inner), str(inner))
            mount("-o", "remount,bind,rw", str(inner))


def _hide(path: Path) -> None:
    if path.is_dir():
        mount("-t", "tmpfs", "-o", "mode=000,ro", "tmpfs", str(path))
    elif path.exists():
        mount("--bind", "/dev/null", str(path))
        read_only(path)


def mount_points() -> list[Path]:
    """Every mount point that can be reached, outer ones first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = {line.split()[4].replace("\\040", " ") for line in lines}
    return sorted(path for path in map(Path, points) if path.exists())


def read_only(point: Path) -> None:
    """Make one mount read-only, keeping its other flags; one that another mount covers stays.

    One that is gone by now, as others of this host come and go, needs nothing.
    """
    try:
        flags = os.statvfs(point).f_flag
    except FileNotFoundError:
        return
    names = {os.ST_NOSUID: "nosuid", os.ST_NODEV: "nodev", os.ST_NOEXEC: "noexec"}
    kept = [name for flag, name in names.items() if flags & flag]
    mount("-o", ",".join(("remount", "bind", "ro", *kept)), str(point))


def mount(*words: str) -> None:
    """Call mount(8)."""
    subprocess.run(["mount", *words], check=True)


def unmount(path: Path) -> None:
    """Detach a mount."""
    _checked(libc.umount2(str(path).encode(), MNT_DETACH))


# --- system calls ---------------------------------------------------------------------------------


def filtered(unit: dict[str, list[str]]) -> list[str]:
    """The names of the system calls that are refused whatever their arguments are."""
    words = [word.removeprefix("~") for word in unit["SystemCallFilter"]]
    words += [calls for directive, calls in CALLS_TAKEN_BY.items() if directive in unit]
    names: list[str] = []
    for word in words:
        names += _members(word) if word.startswith("@") else [word]
    return names


def _members(name: str) -> list[str]:
    asked = ["systemd-analyze", "--no-pager", "syscall-filter", name]
    said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    found: list[str] = []
    for word in (line.strip() for line in said.splitlines()[1:]):
        if word and not word.startswith("#"):
            found += _members(word) if word.startswith("@") else [word]
    return found


def refuse(unit: dict[str, list[str]], names: Iterable[str]) -> None:
    """Load the filter of system calls; no-new-privileges stays off, as for a unit with CAP_SYS_ADMIN."""
    assert unit["SystemCallErrorNumber"] == ["EPERM"]
    assert unit["SystemCallArchitectures"] == ["native", "x86"]
    context = seccomp.seccomp_init(ctypes.c_uint32(ALLOW))
    assert context
    handle = ctypes.c_void_p(context)
    _zero(seccomp.seccomp_arch_add(handle, ctypes.c_uint32(ARCH_X86)))
    _zero(seccomp.seccomp_attr_set(handle, FLTATR_CTL_NNP, 0))
    rule = _rules(handle)
    for name in names:
        rule(name, EPERM)
    allowed = {FAMILIES[name] for name in unit["RestrictAddressFamilies"]}
    for family in range(LAST_FAMILY + 1):
        if family not in allowed:
            rule("socket", EAFNOSUPPORT, Argument(0, EQ, family, 0))
    rule("socket", EAFNOSUPPORT, Argument(0, GT, LAST_FAMILY, 0))
    if "RestrictRealtime" in unit:
        for policy in REALTIME:
            rule("sched_setscheduler", EPERM, Argument(1, EQ, policy, 0))
        rule("sched_setscheduler", EPERM, Argument(1, GT, LAST_POLICY, 0))
    if "LockPersonality" in unit:
        rule("personality", EPERM, Argument(0, NE, CURRENT_PERSONALITY, 0))
    _zero(seccomp.seccomp_load(handle))


def _rules(handle: ctypes.c_void_p) -> Callable[..., None]:
    def rule(name: str, error: int, *arguments: Argument) -> None:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            return  # Unknown here.
        array = (Argument * len(arguments))(*arguments)
        _zero(seccomp.seccomp_rule_add_array(handle, ERRNO | error, number, len(arguments), array))

    return rule


def _zero(status: int) -> None:
    if status != 0:
        raise OSError(-status, os.strerror(-status))


def _checked(status: int) -> None:
    if status != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    enter(directives(Path(sys.argv[1]).read_text()))
    os.execvp(sys.argv[2], sys.argv[2:])
