"""How the VMs of an OSF move to another image, as arguments of `qa osf` (interfaces.md, "Per-OSF policy")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from appliance.model import AgeingPolicy
from appliance.qa.output import Json
from appliance.qa.verbs import Argument
from appliance.scalars import boolean, count, duration


def optional_duration(text: str) -> int | None:
    """A duration in seconds, or nothing for no limit."""
    return duration(text) if text not in ("", "no") else None


def warning(text: str) -> int:
    """How long before a hard limit its warning comes, in seconds; 0: never."""
    return optional_duration(text) or 0


def postponing(text: str) -> tuple[int, int] | None:
    """How often a restart may be put off, and for how many seconds each time; nothing: not at all."""
    if text in ("", "no"):
        return None
    times, sign, each = text.partition("x")
    if not sign:
        raise ValueError("write how often and for how long, such as 3x2h; no for not at all")
    return count(times), duration(each)


ARGUMENTS = (
    Argument(
        "expire-idle",
        "whether an expired desktop at which nobody is moves at once; default no",
        boolean,
        shape="yes|no",
    ),
    Argument(
        "expire-on-disconnect",
        "whether an expired desktop moves when its user leaves; default no",
        boolean,
        shape="yes|no",
    ),
    Argument(
        "postpone",
        "how often and for how long a user may put a restart off, such as 3x2h; default no",
        postponing,
        shape="NxTIME",
    ),
    Argument(
        "expire-warn",
        "how long before its hard limit a desktop is warned; default 15m",
        warning,
        shape="TIME|no",
    ),
    Argument(
        "idle-limit",
        "how long a desktop may run with nobody at it before it is stopped; default no",
        optional_duration,
        shape="TIME|no",
    ),
    Argument(
        "session-limit",
        "how long somebody may stay connected; default no",
        optional_duration,
        shape="TIME|no",
    ),
)

_COLUMNS: Mapping[str, Callable[[Any], Mapping[str, object]]] = {
    "expire-idle": lambda idle: {"expire_idle": idle},
    "expire-on-disconnect": lambda leaves: {"expire_on_disconnect": leaves},
    "postpone": lambda put_off: dict(
        zip(("postpone_times", "postpone_s"), put_off or (None, None), strict=True)
    ),
    "expire-warn": lambda warn: {"expire_warn_s": warn},
    "idle-limit": lambda limit: {"idle_limit_s": limit},
    "session-limit": lambda limit: {"session_limit_s": limit},
}


def columns(values: Mapping[str, Any]) -> dict[str, object]:
    """The values of a call, those of a policy by their columns and all others as they are."""
    found: dict[str, object] = {}
    for name, value in values.items():
        found |= _COLUMNS[name](value) if name in _COLUMNS else {name: value}
    return found


def policy(values: Mapping[str, Any]) -> AgeingPolicy:
    """The policy of a new OSF, as far as it is said."""
    said = {name: value for name, value in values.items() if name in _COLUMNS}
    return AgeingPolicy(**columns(said))  # type: ignore[arg-type]


def plain(ageing: AgeingPolicy) -> Mapping[str, Json]:
    """A policy for programs."""
    return {
        "expire_idle": ageing.expire_idle,
        "expire_on_disconnect": ageing.expire_on_disconnect,
        "postpone_times": ageing.postpone_times,
        "postpone_s": ageing.postpone_s,
        "expire_warn_s": ageing.expire_warn_s,
        "idle_limit_s": ageing.idle_limit_s,
        "session_limit_s": ageing.session_limit_s,
    }
