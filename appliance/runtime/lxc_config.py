"""What LXC is told about a guest: `GuestSpec` in, configuration text out. Nothing here performs I/O.

The recipe, for LXC 5: unprivileged with a range of host ids of its own, root and home shown through
idmapped mounts (files keep their owners on disk), a short list of devices and system calls, the
login on tty1, /dev/console only into a bounded file, and names that never change.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from appliance.model import SUBID_COUNT
from appliance.runtime.backend import GuestSpec
from appliance.runtime.names import name as name
from appliance.runtime.names import vm_of as vm_of
from appliance.storage.paths import Paths

Version = Literal[1, 2]

VIEW = Path("/mnt")
"""Where a monitor, in a mount namespace of its own, sees its guest's root and home (see lxc_launch)."""
ROOT_VIEW = VIEW / "root"
HOME_VIEW = VIEW / "home"

CPU_PERIOD_US = 100_000

MOST_GROUPS = 1000
"""Control groups below a guest's own, which its root may make as it likes. The kernel has 65535 numbers for
those that count memory, on the whole host. (Version 1 cannot bound them.)"""

DROPPED = (
    "mac_admin mac_override sys_time sys_module sys_rawio syslog audit_control audit_write audit_read "
    "wake_alarm block_suspend sys_pacct net_admin net_raw net_broadcast bpf perfmon checkpoint_restore "
    "mknod linux_immutable ipc_lock lease"
)
"""Not sys_admin, by which systemd mounts, nor any of login, su, sudo, apt or a browser's sandbox."""
DEVICES = ("c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2", "c 136:*")
"""null zero full random urandom tty console ptmx, and the terminals behind tty1 and ptmx."""
MOUNT_POINTS = ("dev", "proc", "sys", "tmp", "run", "home")
"""Where something is mounted in a root: a directory, or nothing yet."""
MASKED = "kallsyms kcore kmsg keys key-users timer_list sched_debug latency_stats config.gz"
"""Files of /proc that tell about the host; whoever reads one finds it empty."""

EPERM_CALLS = (
    "kexec_load kexec_file_load open_by_handle_at init_module finit_module delete_module bpf "
    "perf_event_open userfaultfd syslog swapon swapoff acct quotactl quotactl_fd"
)
ENOSYS_CALLS = (
    "add_key keyctl request_key io_uring_setup io_uring_enter io_uring_register "
    "fsopen fsconfig fsmount fspick"
)
"""Programs that find these missing go on without them: mount(8) by mount(2), for one."""
FAMILIES = {1: "unix", 2: "inet", 10: "inet6", 16: "netlink"}
"""The only sockets there are. Others reach past network namespaces (vsock: the machine below this host),
or are kernel code that no desktop needs. Not so for 32-bit calls, of which libseccomp cannot tell (ADR 7)."""
SUBVOLUME_CALLS = (0x50009401, 0x5000940E, 0x50009417, 0x50009418)
"""Requests of ioctl(2) that make a subvolume or a snapshot of btrfs. A guest may make them as it may make
directories, its quota does not count them, and a snapshot makes the whole pool lose count."""
SHARING_CALLS = (0x40049409, 0x4020940D, 0xC0189436)
"""Requests of ioctl(2) by which two files share their blocks. Simple quotas count a block for whoever wrote
it: a guest could write into its root, share with its home, and have the space again with its next root."""
SECCOMP_PROFILE = "\n".join(
    (
        "2",
        "denylist allow",
        "reject_force_umount",
        "[all]",
        *(f"{call} errno 1" for call in EPERM_CALLS.split()),
        *(f"{call} errno 38" for call in ENOSYS_CALLS.split()),
        *(f"socket errno 97 [0,{n},SCMP_CMP_EQ]" for n in range(max(FAMILIES)) if n not in FAMILIES),
        f"socket errno 97 [0,{max(FAMILIES)},SCMP_CMP_GT]",
        # The kernel looks at the lower half of a request, so the rule does as well.
        *(f"ioctl errno 1 [1,{0xFFFFFFFF},SCMP_CMP_MASKED_EQ,{request}]" for request in SUBVOLUME_CALLS),
        *(f"ioctl errno 95 [1,{0xFFFFFFFF},SCMP_CMP_MASKED_EQ,{request}]" for request in SHARING_CALLS),
        "copy_file_range errno 18",  # cp(1) and others then read and write
        "",
    )
)


class Init(Enum):
    """The init programs that we know how to ask for a power-off: name in the configuration, signal."""

    BUSYBOX = ("SIGUSR2", signal.SIGUSR2)
    SYSTEMD = ("SIGRTMIN+3", signal.SIGRTMIN + 3)
    OTHER = ("SIGPWR", signal.SIGPWR)

    @classmethod
    def of(cls, program: str | None) -> Init:
        """Which one a program of this name is."""
        return {"busybox": cls.BUSYBOX, "systemd": cls.SYSTEMD}.get(program or "", cls.OTHER)

    @property
    def halt(self) -> int:
        """The number of the signal that asks for a power-off."""
        return int(self.value[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLayout:
    """Which version of the control groups this host uses for what; `swap`: it accounts for swap."""

    memory: Version
    cpu: Version
    pids: Version
    devices: Version
    swap: bool
    io_weight: str | None = None
    """The file by which it weighs reads and writes; None: it does not."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: a file of a control group and what must stand in it."""

    controller: str
    version: Version
    file: str
    value: str


def limits(guest: GuestSpec, layout: CgroupLayout) -> tuple[Limit, ...]:
    """What the guest may use, in the words of this host's control groups. It gets no swap."""
    memory = str(guest.memory_mib << 20)
    found = []
    if layout.memory == 1:
        found.append(Limit("memory", 1, "memory.limit_in_bytes", memory))
        if layout.swap:
            found.append(Limit("memory", 1, "memory.memsw.limit_in_bytes", memory))
    else:
        found.append(Limit("memory", 2, "memory.max", memory))
        if layout.swap:
            found.append(Limit("memory", 2, "memory.swap.max", "0"))
    if guest.cpus is not None:
        quota = str(round(guest.cpus * CPU_PERIOD_US))
        if layout.cpu == 1:
            found.append(Limit("cpu", 1, "cpu.cfs_period_us", str(CPU_PERIOD_US)))
            found.append(Limit("cpu", 1, "cpu.cfs_quota_us", quota))
        else:
            found.append(Limit("cpu", 2, "cpu.max", f"{quota} {CPU_PERIOD_US}"))
    found.append(Limit("pids", layout.pids, "pids.max", str(guest.processes)))
    if guest.io_weight is not None and layout.io_weight is not None:
        controller = layout.io_weight.partition(".")[0]
        if controller == "blkio":
            found.append(Limit(controller, 1, layout.io_weight, str(guest.io_weight)))
        else:
            found.append(Limit(controller, 2, layout.io_weight, f"default {guest.io_weight}"))
    return tuple(found)


def written_limits(configuration: str) -> tuple[Limit, ...]:
    """The limits in a configuration file: those under which its guest was started."""
    found = []
    for line in configuration.splitlines():
        match = re.fullmatch(r"lxc\.cgroup(2?)\.((memory|cpu|pids|blkio|io)\..+?) = (.*)", line)
        if match:
            found.append(Limit(match[3], 2 if match[1] else 1, match[2], match[4]))
    return tuple(found)


def render(guest: GuestSpec, paths: Paths, init: Init, layout: CgroupLayout) -> str:
    """The guest's configuration file."""
    container = name(guest.mark.installation, guest.vm_id)
    ids = f"0 {guest.subid_first} {SUBID_COUNT}"
    devices = "lxc.cgroup.devices" if layout.devices == 1 else "lxc.cgroup2.devices"
    lines = [
        ("lxc.uts.name", guest.hostname),
        ("lxc.rootfs.path", f"dir:{ROOT_VIEW}"),
        ("lxc.rootfs.options", "idmap=container"),
        ("lxc.idmap", f"u {ids}"),
        ("lxc.idmap", f"g {ids}"),
        ("lxc.signal.halt", init.value[0]),
        ("lxc.net.0.type", "veth"),
        ("lxc.net.0.link", guest.bridge),
        ("lxc.net.0.veth.pair", guest.interface),
        ("lxc.net.0.hwaddr", guest.mac),
        ("lxc.net.0.name", "eth0"),
        ("lxc.net.0.flags", "up"),
        ("lxc.net.0.ipv4.address", str(guest.address)),
        ("lxc.net.0.ipv4.gateway", guest.gateway),
        ("lxc.autodev", "1"),
        ("lxc.tty.max", "1"),
        ("lxc.pty.max", "256"),
        ("lxc.console.logfile", str(paths.console_log(guest.vm_id))),
        ("lxc.console.size", "64KB"),
        ("lxc.console.rotate", "1"),
        ("lxc.mount.auto", "proc:mixed sys:ro"),
        ("lxc.mount.entry", _tmpfs("dev/shm", "size=256m,mode=1777,create=dir")),
        ("lxc.mount.entry", _tmpfs("tmp", "size=512m,mode=1777,create=dir")),
        ("lxc.mount.entry", _tmpfs("run", "size=64m,mode=755,create=dir")),
        ("lxc.mount.entry", f"{HOME_VIEW} home none bind,create=dir,nosuid,nodev,idmap=container 0 0"),
        *(("lxc.mount.entry", f"/dev/null proc/{file} none bind,optional 0 0") for file in MASKED.split()),
        ("lxc.cap.drop", DROPPED),
        ("lxc.seccomp.profile", str(directory(paths, container) / "seccomp")),
        ("lxc.cgroup.relative", "0"),
        (f"{devices}.deny", "a"),
        *((f"{devices}.allow", f"{device} rwm") for device in DEVICES),
        *((_key(limit), limit.value) for limit in limits(guest, layout)),
        *([("lxc.cgroup2.cgroup.max.descendants", str(MOST_GROUPS))] if layout.memory == 2 else []),
    ]
    return "".join(_line(key, value) for key, value in lines)


def directory(paths: Paths, container: str) -> Path:
    """Where a container's configuration, list of refused system calls, mark and logs are."""
    return paths.lxc / container


def host_files(guest: GuestSpec, hosts: str) -> Mapping[str, str]:
    """The files of /etc by which a guest knows itself, given the image's own `hosts`."""
    qualified = f"{guest.hostname}.{guest.domain} " if guest.domain else ""
    kept = [line for line in hosts.splitlines() if not line.endswith(HOSTS_TAG)] or ["127.0.0.1\tlocalhost"]
    own = f"{guest.address.ip}\t{qualified}{guest.hostname} {HOSTS_TAG}"
    files = {"hostname": f"{guest.hostname}\n", "hosts": "\n".join((*kept, own, ""))}
    if guest.resolver:
        search = f"search {guest.domain}\n" if guest.domain else ""
        files["resolv.conf"] = f"{search}nameserver {guest.resolver}\n"
    return files


HOSTS_TAG = "# this desktop"


def _tmpfs(where: str, options: str) -> str:
    return f"tmpfs {where} tmpfs rw,nosuid,nodev,{options} 0 0"


def _key(limit: Limit) -> str:
    return f"lxc.cgroup{'' if limit.version == 1 else '2'}.{limit.file}"


def _line(key: str, value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"{key} = {value!r} cannot be written in one line")
    return f"{key} = {value}\n"
