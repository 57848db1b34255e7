"""Looks at this host for what guests have while they run, and for homes, images and kept things.

Nothing here changes anything. What is told belongs to one instant only as far as nobody acts meanwhile,
so it is compared with rows that are read afterwards, and checked again where it is acted upon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import VolumeError
from appliance.model import DiId, InstallationId, Mark, VmId
from appliance.runtime import lxc_config
from appliance.runtime.cgroups import Cgroups
from appliance.runtime.survey import Found
from appliance.storage import marks
from appliance.storage.paths import HOME_SNAPSHOT, Paths
from appliance.storage.qcow2 import HALF as HALF_DISK
from appliance.storage.qcow2 import HOME, KEPT, OVERLAY

NET = Path("/sys/class/net")
VOLUME = re.compile(r"([1-9][0-9]*)-fs")
LOCK = re.compile(r"([1-9][0-9]*)\.lock")
CONSOLE = re.compile(r"([1-9][0-9]*)\..+")
ARCHIVE = re.compile(r"([1-9][0-9]*)-.+|\.([1-9][0-9]*)\.(?:part|adding)")
BASE = re.compile(r"([1-9][0-9]*)|\.\.?([1-9][0-9]*)\.unpacking.*")
HALF = re.compile(r"\.[1-9][0-9]*-fs\.[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look, and for whom."""

    paths: Paths
    installation: InstallationId
    bridge: str
    link_prefix: str


def look(places: Places, *, half_before: Iterable[Path] = ()) -> Found:
    """What there is now; `half_before` is what has looked half made for long.

    :raises OSError: a folder cannot be read
    """
    paths, installation = places.paths, places.installation
    traces: dict[VmId, list[str]] = {}
    for number in _numbers(paths.all_rootfs, LOCK):
        traces.setdefault(VmId(number), []).append("lock")
    for name in _names(paths.lxc):
        if (vm_id := lxc_config.vm_of(installation, name)) is not None:
            traces.setdefault(vm_id, []).append("configuration")
    for container in Cgroups(paths.cgroup).containers():
        if (vm_id := lxc_config.vm_of(installation, container)) is not None:
            traces.setdefault(vm_id, []).append("control groups")
    for vm_id in links(places):
        traces.setdefault(vm_id, []).append("link")
    half = half_made(paths)
    return Found(
        traces=traces,
        roots=dict((*_marked(paths.all_rootfs, VOLUME), *_marked(paths.overlays, OVERLAY))),
        homes=dict((*_marked(paths.all_homefs, VOLUME), *_marked(paths.homes, HOME))),
        kept={path: _mark(path) for path in kept_things(paths)},
        consoles=sorted({VmId(number) for number in _numbers(paths.consoles, CONSOLE)}),
        images=sorted(
            {DiId(n) for n in (*_numbers(paths.images, ARCHIVE), *_numbers(paths.all_basefs, BASE))}
        ),
        half=sorted(half & set(half_before)),
    )


def links(places: Places) -> list[VmId]:
    """The VMs for whose guests there is a port on our bridge."""
    ours = re.compile(rf"{re.escape(places.link_prefix)}([1-9][0-9]*)")
    return [VmId(number) for number in _numbers(NET / places.bridge / "brif", ours)]


def half_made(paths: Paths) -> set[Path]:
    """Volumes without their name yet: being made, or left so by a crash."""
    folders = (paths.all_rootfs, paths.all_homefs, paths.overlays, paths.homes)
    found = (path for folder in folders for path in _inside(folder))
    return {path for path in found if HALF.fullmatch(path.name) or HALF_DISK.fullmatch(path.name)}


def kept_things(paths: Paths) -> list[Path]:
    """What was put aside, and snapshots of homes."""
    return [
        *_inside(paths.kept),
        *(path for path in _inside(paths.overlays) if KEPT.fullmatch(path.name)),
        *(path for path in _inside(paths.homes) if HOME_SNAPSHOT.fullmatch(path.name)),
    ]


def _marked(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[VmId, Mark | None]]:
    """The volumes whose names match, by VM: the last number of the name."""
    for path in _inside(folder):
        if match := pattern.fullmatch(path.name):
            yield VmId(int(match.groups()[-1])), _mark(path)


def _mark(path: Path) -> Mark | None:
    with suppress(VolumeError):
        return marks.mark_of(path)
    return None


def _numbers(folder: Path, pattern: re.Pattern[str]) -> Iterator[int]:
    for name in _names(folder):
        if match := pattern.fullmatch(name):
            yield int(next(group for group in match.groups() if group))


def _names(folder: Path) -> list[str]:
    return [path.name for path in _inside(folder)]


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
