"""How a setting of one word is read: switches, numbers, sizes, paths. Another word is a `ValueError`."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from pathlib import Path

from appliance.model import BackendKind

LOG_LEVELS = ("ALL", "TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "OFF")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
MIB_PER_UNIT = {"k": 1 / 1024, "": 1, "m": 1, "g": 1024, "t": 1024 * 1024}
LARGEST_MIB = 1 << 40
LARGEST_NUMBER = (1 << 31) - 1
"""No count of ours comes near; the database and the kernel could not hold much more."""
LONGEST_DAYS = 36_500
SPAN = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
UNITS_S = (86_400, 3600, 60, 1)


def boolean(text: str) -> bool:
    """yes/no, y/n, true/false, on/off, 1/0; empty is no.

    :raises ValueError: another word
    """
    word = text.strip().lower()
    if word in {"1", "y", "yes", "true", "on"}:
        return True
    if word in {"", "0", "n", "no", "false", "off"}:
        return False
    raise ValueError("write yes or no")


def port(text: str) -> int:
    """A TCP port."""
    number = _whole(text, "a port is between 1 and 65535")
    if not 0 < number < 65_536:
        raise ValueError("a port is between 1 and 65535")
    return number


def seconds(text: str) -> float:
    """A positive duration in seconds."""
    try:
        duration = float(text)
    except ValueError:
        duration = 0.0
    if not 0 < duration < float("inf"):
        raise ValueError("a duration is a positive number of seconds")
    return duration


def duration(text: str) -> int:
    """A time span in seconds, written with its units: `90s`, `15m`, `1h30m`, `3d`.

    :raises ValueError: it is none, or longer than a century
    """
    wanted = "write a time span with its unit, such as 90s, 15m, 8h or 3d"
    match = SPAN.fullmatch(text.strip().lower())
    if match is None or not match.group():
        raise ValueError(wanted)
    total = sum(int(number or 0) * unit for number, unit in zip(match.groups(), UNITS_S, strict=True))
    if not 0 < total <= LONGEST_DAYS * UNITS_S[0]:
        raise ValueError(wanted)
    return total


def count(text: str) -> int:
    """A whole number, 1 or more."""
    number = _whole(text, "write a whole number, 1 or more")
    if number < 1:
        raise ValueError("write a whole number, 1 or more")
    return number


def natural(text: str) -> int:
    """A whole number, 0 or more."""
    number = _whole(text, "write a whole number, 0 or more")
    if number < 0:
        raise ValueError("write a whole number, 0 or more")
    return number


def days(text: str) -> int:
    """A number of days, up to a century: no calendar goes on for ever."""
    wanted = f"write 0 to {LONGEST_DAYS} days"
    number = _whole(text, wanted)
    if not 0 <= number <= LONGEST_DAYS:
        raise ValueError(wanted)
    return number


def _whole(text: str, wanted: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(wanted) from None
    if abs(number) > LARGEST_NUMBER:
        raise ValueError("that is more than there can be")
    return number


def mib(text: str) -> int:
    """A size in MiB, as a plain number or with one of the suffixes k m g t (trap T22).

    :raises ValueError: it is none, less than 1 MiB, or beyond any disk
    """
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("write a size in MiB, or with a suffix k, m, g or t")
    size = float(match.group(1)) * MIB_PER_UNIT[match.group(2).lower()]
    if size < 1:
        raise ValueError("a size is at least 1 MiB")
    if size > LARGEST_MIB:
        raise ValueError("that is more than there can be")
    return round(size)


def limit_mib(text: str) -> int | None:
    """A size in MiB as `mib` reads it, or `no` for none."""
    return None if text.strip().lower() == "no" else mib(text)


def backend(text: str) -> BackendKind:
    """A backend by its name."""
    try:
        return BackendKind(text.strip())
    except ValueError:
        raise ValueError(f"write one of {', '.join(BackendKind)}") from None


def optional(text: str) -> str | None:
    """Any text; empty means none."""
    return text.strip() or None


def prefix_length(text: str) -> int:
    """A netmask as prefix length or dotted mask."""
    return IPv4Network(f"0.0.0.0/{text.strip()}").prefixlen


def log_level(text: str) -> str:
    """How grave a record must be to be logged, in the words of Log4perl."""
    word = text.strip().upper()
    if word not in LOG_LEVELS:
        raise ValueError(f"write one of {', '.join(LOG_LEVELS)}")
    return word


def optional_path(text: str) -> Path | None:
    """An absolute path; empty means none."""
    return path(text.strip()) if text.strip() else None


def path(text: str) -> Path:
    """An absolute path."""
    where = Path(text)
    if not where.is_absolute():
        raise ValueError("write an absolute path")
    return where
