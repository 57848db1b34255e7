"""What an exported image says of itself: checked word by word, as it may come from anybody. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from appliance.errors import ImageError, UsageError
from appliance.model import IO_WEIGHT_MOST, AgeingPolicy, BackendKind, Di, Osf
from appliance.ops.image_edit import checked_notes
from appliance.ops.images import checked_tag
from appliance.scalars import LARGEST_MIB, LARGEST_NUMBER, LONGEST_DAYS

FORMAT = "qvd-appliance-image"
FORMAT_VERSION = 1
LONGEST = 64 << 10
"""Bytes of a manifest."""
LONGEST_NAME = 200
"""Bytes of a file's name, to which the number of its DI is added."""
LONGEST_OSF_NAME = 64
MOST_CPUS = 4096
DAY_S = 86_400
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

Check = Callable[[Any], bool]


def _is_whole(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_cpus(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= MOST_CPUS


def _or_nothing(check: Check) -> Check:
    return lambda value: value is None or check(value)


_COUNT = _or_nothing(_is_whole(1, LARGEST_NUMBER))
_SIZE = _or_nothing(_is_whole(1, LARGEST_MIB))
_SPAN = _or_nothing(_is_whole(1, LONGEST_DAYS * DAY_S))
POLICY: Mapping[str, Check] = {
    "memory_mib": _is_whole(1, LARGEST_MIB),
    "cpus": _or_nothing(_is_cpus),
    "use_overlay": _is_flag,
    "user_storage_mib": _SIZE,
    "processes": _COUNT,
    "root_mib": _SIZE,
    "io_weight": _or_nothing(_is_whole(1, IO_WEIGHT_MOST)),
}
"""What an OSF gives its VMs, and what can be said of it."""
AGEING: Mapping[str, Check] = {
    "expire_idle": _is_flag,
    "expire_on_disconnect": _is_flag,
    "postpone_times": _COUNT,
    "postpone_s": _SPAN,
    "expire_warn_s": _is_whole(0, LONGEST_DAYS * DAY_S),
    "idle_limit_s": _SPAN,
    "session_limit_s": _SPAN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image on its way to another box, and the OSF that it was for."""

    kind: BackendKind
    file: str
    """The name of its file, without a folder and without a number."""
    sha256: str
    size: int
    """Bytes."""
    version: str
    notes: str | None
    osf: str
    policy: Mapping[str, Any]
    """Values of `POLICY`."""
    ageing: Mapping[str, Any]
    """Values of `AGEING`."""


def manifest_of(di: Di, osf: Osf) -> Manifest:
    """What is to be said of a DI."""
    return Manifest(
        kind=osf.backend,
        file=di.path.removeprefix(f"{di.id}-"),
        sha256=di.sha256,
        size=di.size_bytes,
        version=di.version,
        notes=di.notes,
        osf=osf.name,
        policy={name: getattr(osf, name) for name in POLICY},
        ageing={name: value for name, value in asdict(osf.ageing).items() if name in AGEING},
    )


def encoded(manifest: Manifest) -> bytes:
    """A manifest as it is written."""
    values = asdict(manifest)
    osf = {"name": values.pop("osf"), **values.pop("policy"), **values.pop("ageing")}
    text = {"format": FORMAT, "format_version": FORMAT_VERSION, **values, "osf": osf}
    return (json.dumps(text, ensure_ascii=False, indent=2) + "\n").encode()


def decoded(text: bytes) -> Manifest:
    """A manifest as it was written, by whomever.

    :raises ImageError: it is none, is of a later format, or says what cannot be
    """
    try:
        said = json.loads(text.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise ImageError("its manifest is no JSON") from exc
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise ImageError("its manifest is of another format")
    if said.get("format_version") != FORMAT_VERSION:
        raise ImageError(
            f"its manifest is of the format {_shown(said.get('format_version'))}, and this version reads "
            f"{FORMAT_VERSION}",
            hint="upgrade the appliance",
        )
    osf = said.get("osf")
    if not isinstance(osf, dict):
        raise _wrong("osf", osf)
    policy = {name: osf[name] for name in POLICY if name in osf}
    ageing = {name: osf[name] for name in AGEING if name in osf}
    _check_known(said, {"format", "format_version", *(field.name for field in fields(Manifest))})
    _check_known(osf, {"name", *POLICY, *AGEING})
    for name, value in {**policy, **ageing}.items():
        if not {**POLICY, **AGEING}[name](value):
            raise _wrong(f"osf.{name}", value)
    if "memory_mib" not in policy or "use_overlay" not in policy:
        raise ImageError("its manifest does not say memory_mib and use_overlay of its osf")
    return Manifest(
        kind=_kind(said.get("kind")),
        file=_checked("file", said.get("file"), _is_file_name),
        sha256=_checked("sha256", said.get("sha256"), lambda text: bool(SHA256.fullmatch(text))),
        size=_size(said.get("size")),
        version=_checked("version", said.get("version"), _is_version),
        notes=_notes(said.get("notes")),
        osf=_checked("osf.name", osf.get("name"), _is_osf_name),
        policy=policy,
        ageing=ageing,
    )


def ageing_of(manifest: Manifest) -> AgeingPolicy:
    """How VMs of the OSF move to other images, as far as the manifest says."""
    return AgeingPolicy(**manifest.ageing)


def _check_known(said: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(said.keys() - known):
        raise ImageError(f"its manifest says something unknown: {_shown(unknown[0])}")


def _checked(key: str, value: Any, is_right: Callable[[str], bool]) -> str:
    if not isinstance(value, str) or not is_right(value):
        raise _wrong(key, value)
    return value


def _kind(value: Any) -> BackendKind:
    try:
        return BackendKind(value)
    except ValueError:
        raise _wrong("kind", value) from None


def _size(value: Any) -> int:
    if not _is_whole(0, LARGEST_MIB << 20)(value):
        raise _wrong("size", value)
    return int(value)


def _notes(value: Any) -> str | None:
    try:
        return None if value is None else checked_notes(_checked("notes", value, lambda _: True))
    except UsageError as exc:
        raise ImageError(f"its manifest is wrong: {exc.message}") from exc


def _is_version(text: str) -> bool:
    try:
        return checked_tag(text) == text
    except UsageError:
        return False


def _is_osf_name(text: str) -> bool:
    return bool(text.strip()) and text.isprintable() and len(text) <= LONGEST_OSF_NAME


def _is_file_name(text: str) -> bool:
    return (
        text not in ("", ".", "..")
        and "/" not in text
        and text.isprintable()
        and len(text.encode()) <= LONGEST_NAME
    )


def _wrong(key: str, value: Any) -> ImageError:
    return ImageError(f"its manifest is wrong: {key} is {_shown(value)}")


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")
