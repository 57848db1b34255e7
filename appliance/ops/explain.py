"""Explains settings: who says what, which of them wins, and when a change takes effect. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from appliance import config
from appliance.config import Settings
from appliance.errors import ConfigError, NotFoundError
from appliance.ops.settings import HIDDEN, SSL

AT_START = (
    "nodename",
    "database.",
    "log.",
    "path.",
    "storage.pool.",
    "vm.hypervisor",
    "vm.kvm.",
    "vm.serial.capture",
    "internal.hkd.kvm.timeout.",
    "vm.network.bridge",
    "vm.network.gateway",
    "vm.network.netmask",
    "vm.network.ip.start",
    "vm.network.use_dhcp",
    "vm.network.dns_server",
    "vm.network.domain",
    "vm.network.firewall.",
    "internal.vm.network.firewall.",
    "l7r.auth.plugins",
)
"""What the daemon reads when it starts: keys, or beginnings of keys. All else holds from the next use on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All that there is to say about one setting. Secrets are masked."""

    key: str
    value: str | None
    """What is in force, references resolved; None if nobody says anything."""
    source: str | None
    """Who won: `database`, `file` or `default`."""
    database: str | None
    file: str | None
    default: str | None
    doc: str
    restart: bool
    """Whether the daemon must be restarted for a change to take effect."""
    wrong: str | None
    """Why the value in force cannot be used."""


def explain(settings: Settings, key: str) -> Explanation:
    """Everything about one key.

    :raises ConfigError: the name looks like a slip of a declared one
    :raises NotFoundError: nobody knows the key
    """
    declared = config.REGISTRY.get(key)
    said = settings.said(key)
    if declared is None and said.database is None and said.file is None:
        _refuse_unknown(settings, key)
    value, wrong = None, None
    try:
        value = settings.text(key)
        if declared is not None:
            _ = settings[declared]
    except ConfigError as exc:
        wrong = exc.message
    return Explanation(
        key=key,
        value=_masked(key, value),
        source=said.winner,
        database=_masked(key, said.database),
        file=_masked(key, said.file),
        default=_masked(key, said.default),
        doc=declared.doc if declared else _no_doc(key),
        restart=key.startswith(AT_START),
        wrong=_masked(key, wrong),
    )


def everything(settings: Settings, *, hidden: bool) -> list[Explanation]:
    """Every key that is declared or set, by name; those of experts only with `hidden`."""
    return [explain(settings, name) for name in settings.names() if hidden or not config.is_hidden(name)]


def _refuse_unknown(settings: Settings, key: str) -> None:
    if key.startswith(SSL):
        raise NotFoundError(f"{key} is kept apart from the settings", hint="qa config ssl sets it")
    if config.is_without_effect(key):
        return
    near = difflib.get_close_matches(key.lower(), settings.names(), n=1, cutoff=config.NEAR)
    raise NotFoundError(
        f"there is no setting {key!r}",
        hint=f"did you mean {near[0]}?" if near else "qa config list shows all",
    )


def _no_doc(key: str) -> str:
    if config.is_without_effect(key):
        return "A setting of QVD that has no effect in this version."
    return "Not a setting of this version: kept, but not used."


def _masked(key: str, text: str | None) -> str | None:
    return HIDDEN if text and config.is_secret(key) else text
