"""Whether systemd in a container of an unpacked image would start a login on tty1.

Followed is what systemd follows: from default.target along Wants= and Requires= in units, in their drop-ins
and in the directories beside them. A unit that is reached counts if it holds our terminal, its program is
there and its conditions hold in a container. One condition is what most often keeps a console dark: the
getty@tty1.service of every distribution is enabled, and waits for /dev/tty0, which no container has. And
systemd's own container-getty@N.service, meant for containers, starts by itself only where init is told the
terminals in `container_ttys`, as LXC 5 does not (both measured with systemd 252).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from appliance.storage.image_root import ImageRoot, TooMuchError

FOLDERS = (
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Where units are, those that win first. What is in /run is made at each start."""
ROOTS = ("default.target", "basic.target", "sysinit.target")
"""Where a boot begins: the second and third are required by nearly every unit without being named."""
PULLING = ("wants", "requires", "upholds")
PULLS = frozenset({"Wants", "Requires", "BindsTo", "Upholds"})
LOOKED_AT = re.compile(
    r"Condition\w+|Assert\w+|ExecStart|Type|Standard(?:In|Out)put|TTYPath|" + "|".join(PULLS)
)
"""Settings that decide something here; no others are kept in mind."""
MOST_UNITS = 4000
LONGEST_NAME = 255
"""Of a unit, as systemd has it."""
OURS = frozenset({"/dev/tty1", "tty1", "/dev/pts/1", "pts/1"})
"""tty1 by all its names: the console is the first of a container's terminals, tty1 the second."""
ABSENT = re.compile(r"/dev/(tty(?!1$)\w+|vcs\w*|hvc\d+|fb\d+)")
"""Devices that no container has."""
NOT_HERE = frozenset({"!container", "!lxc", "!private-users", "!yes", "!true", "no", "false", "vm", "kvm"})
"""Values of ConditionVirtualization= that do not hold in one."""
WORD = re.compile(r"[\w.@:\\-]+")
CONTAINER_GETTY, TEMPLATE = "container-getty@1.service", "container-getty@.service"

Settings = Sequence[tuple[str, str]]
"""A unit's settings in their order: those of its file, then of its drop-ins."""


@dataclass(frozen=True, slots=True)
class NoLogin:
    """Why nobody can log in on tty1, and what is to be done in the image."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as systemd would load it."""

    name: str
    settings: Settings

    def last(self, key: str) -> str:
        """The value that holds, for a key that has one."""
        return next((value for name, value in reversed(self.settings) if name == key), "")

    @property
    def holds_tty1(self) -> bool:
        """Whether it is a service that stays at our terminal."""
        if not self.name.endswith(".service") or self.last("Type") == "oneshot":
            return False
        is_its_own = any(self.last(key).startswith("tty") for key in ("StandardInput", "StandardOutput"))
        if is_its_own and self.last("TTYPath") in OURS:
            return True
        return any(not OURS.isdisjoint(command.split()) for command in self.commands)

    @property
    def commands(self) -> Sequence[str]:
        """What it runs."""
        return list(_since_reset(self.settings, "ExecStart"))

    @property
    def unmet(self) -> str | None:
        """A condition that does not hold in a container, as a person would say it."""
        conditions = [item for item in self.settings if item[0].startswith(("Condition", "Assert"))]
        resets = [place for place, (_, value) in enumerate(conditions) if not value]
        for key, value in conditions[resets[-1] + 1 if resets else 0 :]:
            if key.endswith("PathExists") and ABSENT.fullmatch(value):
                return f"waits for {value}, which no container has"
            if key.endswith("Virtualization") and value in NOT_HERE:
                return "is not for containers"
        return None


class Units:
    """The units of an image."""

    def __init__(self, image: ImageRoot) -> None:
        self._image = image
        self._names: Mapping[str, frozenset[str]] = {f: frozenset(image.names(f)) for f in FOLDERS}

    def has(self, name: str) -> bool:
        """Whether there is a unit of this name that can start."""
        return self._file(name) is not None and not self.is_masked(name)

    def is_masked(self, name: str) -> bool:
        """Whether somebody has seen to it that it never starts."""
        return any(self._is_void(folder, file) for folder, file in self._first(name))

    def load(self, name: str) -> Unit | None:
        """A unit with its drop-ins; None if it is masked or there is none."""
        path = self._file(name)
        if path is None or self.is_masked(name):
            return None
        instance = _unescaped(name.partition("@")[2].rpartition(".")[0])
        texts = [self._image.text(path) or "", *self._drop_ins(name)]
        found = []
        for key, value in (setting for text in texts for setting in settings_of(text)):
            if LOOKED_AT.fullmatch(key):
                found.append((key, _specified(value, instance)))
                self._image.take(len(found[-1][1]))  # an instance may stand in it ten thousand times
        return Unit(name, found)

    def reached(self) -> Iterator[Unit | str]:
        """All units of a boot; of those that are masked, the names.

        :raises TooMuchError: nobody has so many
        """
        seen, ahead = set(ROOTS), list(ROOTS)
        while ahead:
            name = ahead.pop()
            unit = self.load(name)
            if unit is None:
                if self.is_masked(name):
                    yield name
                    continue
            else:
                yield unit
            for found in self._pulled(name, unit):
                if found not in seen and len(found) <= LONGEST_NAME:
                    seen.add(found)
                    ahead.append(found)
                if len(seen) > MOST_UNITS:
                    raise TooMuchError

    def _pulled(self, name: str, unit: Unit | None) -> Iterator[str]:
        for folder, file in self._first(name):
            if alias := self._image.link(folder, file):
                target = alias.rpartition("/")[2]
                if target != file and not target.endswith("@.service"):
                    yield target
        for key, value in unit.settings if unit else ():
            if key in PULLS:
                yield from WORD.findall(value)
        for folder in FOLDERS:
            for known in _names_of(name):
                for how in PULLING:
                    if f"{known}.{how}" in self._names[folder]:
                        yield from self._image.names(f"{folder}/{known}.{how}")

    def _first(self, name: str) -> Iterator[tuple[str, str]]:
        """Where systemd finds the unit, if anywhere: its own file anywhere before the template's."""
        for known in _names_of(name):
            for folder in FOLDERS:
                if known in self._names[folder]:
                    yield folder, known
                    return

    def _file(self, name: str) -> str | None:
        return next((f"{folder}/{file}" for folder, file in self._first(name)), None)

    def _is_void(self, folder: str, file: str) -> bool:
        link = self._image.link(folder, file)
        if link is not None and link.endswith("/dev/null"):
            return True
        return self._image.text(f"{folder}/{file}") == ""

    def _drop_ins(self, name: str) -> Iterator[str]:
        """The texts of its drop-ins, in the order in which they hold; one of a name hides later folders'."""
        found: dict[str, str] = {}
        for known in _names_of(name):
            for folder in FOLDERS:
                if f"{known}.d" in self._names[folder]:
                    for file in self._image.names(f"{folder}/{known}.d"):
                        if file.endswith(".conf"):
                            found.setdefault(file, f"{folder}/{known}.d/{file}")
        for _, path in sorted(found.items()):
            yield self._image.text(path) or ""


def missing(image: ImageRoot) -> NoLogin | None:
    """Why systemd starts no login on tty1; None if it does."""
    units = Units(image)
    reasons = []
    targets = []
    for unit in units.reached():
        if isinstance(unit, str):
            if unit in ("getty@tty1.service", CONTAINER_GETTY, "getty.target"):
                reasons.append(f"{unit} is masked")
            continue
        targets.append(unit.name)
        if not unit.holds_tty1:
            continue
        gone = [program for program in map(program_of, unit.commands) if image.lacks(program)]
        if gone:
            reasons.append(f"{unit.name} needs {gone[0]}, which is not in it")
        elif unit.unmet:
            reasons.append(f"{unit.name} {unit.unmet}")
        else:
            return None
    reason = reasons[0] if reasons else "systemd starts none there"
    return NoLogin(reason, _remedy(units, "getty.target" in targets, reason))


def settings_of(text: str) -> Iterator[tuple[str, str]]:
    """The settings of a unit file: `key=value` lines, long ones put together; an empty value resets."""
    joined = re.sub(r"\\\n", " ", text)
    for line in joined.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";", "[")):
            yield key.strip(), value.strip()


def program_of(command: str) -> str:
    """The program of a command, without the signs that an init takes before it."""
    return next(iter(command.split(maxsplit=1)), "").lstrip("-@:+!")


def _remedy(units: Units, has_target: bool, reason: str) -> str:
    if "which is not in it" in reason:
        return "add that program to the image"
    if units.has(TEMPLATE) and not units.is_masked(CONTAINER_GETTY):
        target = "getty.target" if has_target else "default.target"
        return f"in the image: systemctl add-wants {target} {CONTAINER_GETTY}"
    return "give the image a getty@tty1.service without ConditionPathExists=/dev/tty0"


def _since_reset(settings: Settings, key: str) -> Iterator[str]:
    values = [value for name, value in settings if name == key]
    resets = [place for place, value in enumerate(values) if not value]
    return iter(values[resets[-1] + 1 if resets else 0 :])


def _names_of(name: str) -> Sequence[str]:
    """A unit's own name, and that of its template if it is an instance."""
    stem, at, instance = name.partition("@")
    return (name, f"{stem}@.{name.rpartition('.')[2]}") if at and not instance.startswith(".") else (name,)


def _specified(value: str, instance: str) -> str:
    return value.replace("%I", instance).replace("%i", instance)


def _unescaped(instance: str) -> str:
    """An instance as a path would be: `pts-1` is pts/1."""
    return instance.replace("-", "/")
