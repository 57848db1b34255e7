"""What people do with settings: set, delete, look at them; and the one way to read what is in force."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from appliance import config
from appliance.config import Settings
from appliance.errors import ConflictError, UsageError
from appliance.storage.settings import SSL_CA
from appliance.storage.store import Store, Tx
from appliance.values import without_passwords

SSL = "l7r.ssl."
HIDDEN = "***"


async def in_force(store: Store, file: Settings) -> Settings:
    """The settings of the file under those of the database."""
    async with store.read() as tx:
        return file.with_database(await tx.settings.all())


async def set_all(tx: Tx, settings: Settings, values: Mapping[str, str], *, by: str) -> list[str]:
    """Set keys, all or none; returns warnings.

    :raises UsageError: a key cannot be set here
    :raises ConfigError: a key is misspelled, or its value cannot be read
    """
    for name in values:
        _check_settable(settings, name)
    warnings = config.vetted(values, "config set")
    before = await tx.settings.all()
    after = settings.with_database({**before, **values})
    for name in values:
        declared = config.REGISTRY.get(name)
        if declared is None:
            after.text(name)
        else:
            after[declared]
    if after[config.L7R_CLIENT_CERT] and config.L7R_CLIENT_CERT.name in values:
        await _check_authority(tx)
    persistent = config.VM_OVERLAY_PERSISTENT
    if settings.with_database(before)[persistent] and not after[persistent]:
        warnings.append(
            f"{persistent.name}: roots kept so far are deleted within the hour, those of running VMs at"
            " their next stop; set it to 1 again at once to keep them"
        )
    await tx.settings.set(values)
    for name, value in values.items():
        await tx.log.append(
            by=by, what="config set", object=name, was=_shown(name, before.get(name)), now=_shown(name, value)
        )
    return warnings


async def delete(tx: Tx, names: Collection[str] | None, *, by: str) -> int:
    """Remove keys from the database, or with None all of them; returns how many there were."""
    before = await tx.settings.all()
    for name in before if names is None else names:
        if name in before:
            await tx.log.append(by=by, what="config del", object=name, was=_shown(name, before[name]))
    return await tx.settings.delete(names)


def shown(settings: Settings, names: Collection[str]) -> dict[str, str]:
    """What is in force for these keys, or with none for all but the experts'; secrets masked."""
    wanted = sorted(set(names)) if names else [n for n in settings.names() if not config.is_hidden(n)]
    found = {name: _shown(name, settings.text(name)) for name in wanted}
    return {name: text for name, text in found.items() if text is not None}


def _shown(name: str, text: str | None) -> str | None:
    if text is None or not config.is_secret(name):
        return None if text is None else without_passwords(text)
    return HIDDEN if text else text


def _check_settable(settings: Settings, name: str) -> None:
    if not name.strip() or len(name) > 64:
        raise UsageError(f"{name!r} cannot be the name of a setting", hint="1 to 64 characters")
    if name.startswith(SSL) and name not in config.REGISTRY:
        raise UsageError(f"{name} is set by qa config ssl, or by qa admin init")
    if config.is_file_only(name):
        raise UsageError(
            f"{name} is read before the database is known", hint=f"set it in {settings.source} instead"
        )


async def _check_authority(tx: Tx) -> None:
    if await tx.settings.ssl(SSL_CA) is None:
        raise ConflictError(
            "l7r.client.cert.require: no authority is set against which certificates could be checked",
            hint="set it first with qa config ssl ca=FILE, beside key= and cert=",
        )
