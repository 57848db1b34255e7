"""Whether a container of an unpacked image has a login on its console, which is tty1 (CT09).

The hub attaches to tty1 alone (see runtime.lxc_console), so a getty on /dev/console, as images for other
uses have it, leaves an administrator before a dark screen. That is found out here, before any guest has
started, from the files by which the image's init decides. Each init has files of its own; of one that we
do not know, and of a script, nothing is said: a wrong warning is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.harmless import printable
from appliance.storage import systemd_login
from appliance.storage.image_root import ImageRoot, TooMuchError
from appliance.storage.systemd_login import OURS, NoLogin, program_of

ELF = "\x7fELF"
INITTAB = "/etc/inittab"
TTY_LINE = "tty1::respawn:/sbin/getty -L tty1 115200 xterm"
WORDS = re.compile(r"[\s'\"=;&|]+")
LONGEST_REASON = 200
STAYING = frozenset({"respawn", "once", "askfirst", "wait", "ondemand"})
"""Actions of an inittab by which somebody can still be there when a console is looked at."""
OPENRC_LEVELS = ("sysinit", "boot", "default")
RUNIT_FOLDERS = ("/etc/runit/runsvdir/default", "/etc/runit/runsvdir/current", "/etc/service", "/var/service")
UPSTART_OFF = re.compile(r"^manual\b|^start on\s+never\b", re.MULTILINE)
OPENRC = NoLogin(
    "no runlevel of OpenRC has agetty.tty1",
    "in the image: ln -s agetty /etc/init.d/agetty.tty1; rc-update add agetty.tty1 default",
)
RUNIT = NoLogin("runit has no service for tty1", "enable agetty-tty1 or getty-tty1 in the image")
UPSTART = NoLogin("upstart has no job /etc/init/tty1.conf that starts", "add it to the image")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an inittab: `id:levels:action:process`."""

    id: str
    levels: str
    action: str
    process: str

    @property
    def is_on_tty1(self) -> bool:
        """Whether it names our terminal, as its own or to its program."""
        return self.id in OURS or not OURS.isdisjoint(WORDS.split(self.process))

    @property
    def program(self) -> str:
        """The program that it runs."""
        return program_of(self.process)


def missing(root: Path) -> NoLogin | None:
    """Why nobody can log in on tty1 of an image; None if somebody can, or if that cannot be told.

    The reason may have words of the image in it: it is short, and nothing in it acts on a terminal.
    """
    try:
        found = _missing(ImageRoot(root))
    except TooMuchError:
        return None
    return None if found is None else replace(found, reason=printable(_shortened(found.reason), "?"))


def _missing(image: ImageRoot) -> NoLogin | None:
    init = image.leads_to("/sbin/init") or ""
    if init == "systemd":
        return systemd_login.missing(image)
    if init.startswith("busybox"):
        return _without_inittab_line(image, is_busybox=True)
    if init == "openrc-init":
        return None if _openrc_has_one(image) else OPENRC
    if init.startswith("runit"):
        return None if _runit_has_one(image) else RUNIT
    if init == "init" and (image.text("/sbin/init") or "").startswith(ELF):
        if image.text(INITTAB) is not None:
            return _without_inittab_line(image, is_busybox=False)
        if image.names("/etc/init"):
            return _without_upstart_job(image)
    return None


def entries(inittab: str) -> Iterator[Entry]:
    """The lines of an inittab, without comments and what is none."""
    for line in inittab.splitlines():
        parts = line.strip().split(":", 3)
        if len(parts) == 4 and not parts[0].startswith("#"):
            yield Entry(*(part.strip() for part in parts))


def _without_inittab_line(image: ImageRoot, *, is_busybox: bool) -> NoLogin | None:
    """Why no line of an inittab gives a login; other supervisors that it starts may give one as well."""
    lines = list(entries(image.text(INITTAB) or ""))
    level = next((entry.levels[:1] for entry in lines if entry.action == "initdefault"), "")
    found = [
        entry
        for entry in lines
        if entry.is_on_tty1
        and entry.action in STAYING
        and (is_busybox or not entry.levels or not level or level in entry.levels)
    ]
    gone = [entry.program for entry in found if image.lacks(entry.program)]
    if len(gone) < len(found):
        return None
    started = " ".join(entry.process for entry in lines)
    if "openrc" in started and _openrc_has_one(image):
        return None
    if "runsvdir" in started and _runit_has_one(image):
        return None
    if "s6-svscan" in started:
        return None
    if gone:
        return NoLogin(
            f"{INITTAB} starts {gone[0]} there, which is not in it", "add that program to the image"
        )
    line = TTY_LINE if is_busybox else "1:2345:respawn:/sbin/getty 38400 tty1"
    return NoLogin(f"its {INITTAB} starts none there", f"add the line {line}")


def _shortened(reason: str) -> str:
    """A reason without its middle if it is long: what is wrong stands at its end."""
    half = LONGEST_REASON // 2
    return reason if len(reason) <= LONGEST_REASON else f"{reason[: half - 1]}…{reason[-half:]}"


def _openrc_has_one(image: ImageRoot) -> bool:
    return any(
        name.endswith("tty1") and image.leads_to(f"/etc/runlevels/{level}/{name}") is not None
        for level in OPENRC_LEVELS
        for name in image.names(f"/etc/runlevels/{level}")
    )


def _runit_has_one(image: ImageRoot) -> bool:
    for folder in RUNIT_FOLDERS:
        for name in image.names(folder):
            run, inside = image.text(f"{folder}/{name}/run"), image.names(f"{folder}/{name}")
            if run is None or "down" in inside:
                continue
            if name.endswith("tty1") or not OURS.isdisjoint(WORDS.split(run)):
                return True
    return False


def _without_upstart_job(image: ImageRoot) -> NoLogin | None:
    for name in image.names("/etc/init"):
        job = image.text(f"/etc/init/{name}") or ""
        override = image.text(f"/etc/init/{name.removesuffix('.conf')}.override") or ""
        runs = name.endswith(".conf") and "start on" in job and not UPSTART_OFF.search(job + "\n" + override)
        if runs and any(
            not OURS.isdisjoint(WORDS.split(line)) for line in job.splitlines() if _executes(line)
        ):
            return None
    return UPSTART


def _executes(line: str) -> bool:
    return line.strip().startswith(("exec ", "respawn /", "respawn getty"))
