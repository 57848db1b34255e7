"""The control groups of guests: which kinds this host has, where a guest's are, what they say."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from appliance.errors import BackendError
from appliance.log import facts
from appliance.runtime.lxc_config import CgroupLayout, Limit, Version

logger = logging.getLogger(__name__)

NO_WEIGHTS = "its kernel does not weigh disk access: modprobe bfq, and restart the appliance"
REMEDY = "mount it where the daemon runs: `ip netns exec` hides it, scripts/in-netns keeps it"


class Cgroups:
    """The hierarchies below one mount point, version 1, version 2 or both (hybrid)."""

    def __init__(self, mount: Path) -> None:
        self._mount = mount
        self._layout: CgroupLayout | None = None

    def layout(self) -> CgroupLayout:
        """Which version limits what. Looked at once, but for swap, which only a first group may show.

        :raises BackendError: a controller that limits guests is missing
        """
        if self._layout is None or not self._layout.swap:
            self._layout = self._found_layout()
        return self._layout

    def _found_layout(self) -> CgroupLayout:
        return CgroupLayout(
            memory=self._version("memory"),
            cpu=self._version("cpu"),
            pids=self._version("pids"),
            devices=1 if (self._mount / "devices").is_dir() else 2,
            swap=self._accounts_for_swap(),
            io_weight=self.io_weight(),
        )

    def io_weight(self) -> str | None:
        """The file of a group that weighs its reads and writes; None: this host does not weigh them.

        The topmost group has no such file, so the signs are others: those below it, or what comes with it.
        """
        blkio = self._mount / "blkio"
        if blkio.is_dir() and not self._is_pure():
            return "blkio.bfq.weight" if (blkio / "blkio.bfq.io_serviced").exists() else None
        if "io" not in self._unified_controllers():
            return None
        if any(self._unified().glob("*/io.bfq.weight")):
            return "io.bfq.weight"
        by_cost = (self._unified() / "io.cost.qos").exists() or any(self._unified().glob("*/io.weight"))
        return "io.weight" if by_cost else None

    def of(self, pid: int, controller: str) -> Path:
        """The directory of a process's group under `controller`.

        :raises BackendError: it has none there, and so no limits
        """
        return self._of(pid, controller, _lines(Path(f"/proc/{pid}/cgroup")))

    def _of(self, pid: int, controller: str, groups: Sequence[str]) -> Path:
        for line in groups:
            _, names, inside = line.split(":", 2)
            if controller in names.split(","):
                return self._mount / controller / inside.lstrip("/")
            unified = inside
        if self._version(controller) == 1:
            raise BackendError(f"process {pid} is in no control group of {controller}", hint=REMEDY)
        return self._unified() / unified.lstrip("/")

    def unmet(self, pid: int, limits: Sequence[Limit]) -> list[str]:
        """The limits that are not in force for a process, each as a phrase; empty if all are."""
        found, groups = [], _lines(Path(f"/proc/{pid}/cgroup"))
        for limit in limits:
            where = self._of(pid, limit.controller, groups) / limit.file
            try:
                value = where.read_text().partition("\n")[0]  # io.weight goes on about single disks
            except OSError as exc:
                value = f"unreadable ({exc.strerror})"
            if "lxc.payload." not in str(where) or value != limit.value:
                found.append(f"{limit.file} is {value} instead of {limit.value}")
        return found

    def cpu_s(self, pid: int) -> float:
        """Processor time used by a process's group, in seconds."""
        if self._version("cpuacct" if (self._mount / "cpuacct").is_dir() else "cpu") == 1:
            return int((self.of(pid, "cpuacct") / "cpuacct.usage").read_text()) / 1e9
        return _counters(self.of(pid, "cpu") / "cpu.stat")["usage_usec"] / 1e6

    def memory_bytes(self, pid: int) -> int:
        """Memory used by a process's group, without file cache that could be dropped at once."""
        group = self.of(pid, "memory")
        if self._version("memory") == 1:
            used, idle = "memory.usage_in_bytes", "total_inactive_file"
        else:
            used, idle = "memory.current", "inactive_file"
        return max(0, int((group / used).read_text()) - _counters(group / "memory.stat")[idle])

    def containers(self) -> set[str]:
        """The names of all containers that have, or had, groups here; also with the number of a later run."""
        group = re.compile(r"lxc\.(?:payload|monitor)\.((.+?)(?:-[0-9]+)?)")
        names = {path.name for hierarchy in self._hierarchies for path in hierarchy.iterdir()}
        return {part for name in names if (match := group.fullmatch(name)) for part in match.groups()}

    def sweep(self, container: str) -> None:
        """Remove the empty groups of a container's earlier runs.

        :raises BackendError: processes of an earlier run live in one
        """
        for top in self._leftovers(container):
            _remove(top, container)

    def sweep_domain(self, domain: str) -> None:
        """Remove the groups of a domain whose QEMU ended while libvirtd was away, and which it forgets.

        :raises BackendError: processes live in one
        """
        for hierarchy in self._hierarchies:
            for top in (hierarchy / "machine").glob(f"qemu-*-{domain}.libvirt-qemu"):
                _remove(top, domain)

    def _leftovers(self, container: str) -> Iterator[Path]:
        ours = re.compile(rf"lxc\.(payload|monitor)\.{re.escape(container)}(-[0-9]+)?")
        for hierarchy in self._hierarchies:
            for name in os.listdir(hierarchy):  # noqa: PTH208, a Path for each group takes ten times as long
                if container in name and ours.fullmatch(name):
                    yield hierarchy / name

    @functools.cached_property
    def _hierarchies(self) -> list[Path]:
        if self._is_pure():
            return [self._mount]
        return [path for path in self._mount.iterdir() if path.is_dir() and not path.is_symlink()]

    def _is_pure(self) -> bool:
        return (self._mount / "cgroup.controllers").exists()

    def _unified(self) -> Path:
        return self._mount if self._is_pure() else self._mount / "unified"

    def _version(self, controller: str) -> Version:
        if (self._mount / controller).is_dir() and not self._is_pure():
            return 1
        if controller not in self._unified_controllers():
            raise BackendError(f"there is no control group for {controller} below {self._mount}", hint=REMEDY)
        return 2

    def _unified_controllers(self) -> list[str]:
        try:
            return (self._unified() / "cgroup.controllers").read_text().split()
        except OSError:
            return []

    def _accounts_for_swap(self) -> bool:
        if self._version("memory") == 1:
            return (self._mount / "memory" / "memory.memsw.limit_in_bytes").exists()
        return any(self._unified().glob("*/memory.swap.max"))


@functools.cache
def tell_weightless(reason: str) -> None:
    """Say once that OSFs ask for an `io_weight` in vain: a desktop without it is better than none."""
    logger.warning("io_weight has no effect on this host", extra=facts(because=reason))


def _remove(top: Path, guest: str) -> None:
    for group in (*_deepest_first(top), top):
        try:
            group.rmdir()
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise BackendError(
                f"processes of an earlier run of {guest} still live in {group}",
                hint="end them: their numbers are in cgroup.procs there",
            ) from exc


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError as exc:
        raise BackendError(f"{file} cannot be read: the process has ended") from exc


def _counters(file: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in file.read_text().splitlines())}


def _deepest_first(top: Path) -> list[Path]:
    inside = [path for path in top.rglob("*") if path.is_dir() and not path.is_symlink()]
    return sorted(inside, key=lambda path: len(path.parts), reverse=True)
