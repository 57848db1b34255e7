"""Repository of `configs`, `ssl_configs` and the installation's identity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from appliance.errors import StoreError
from appliance.model import InstallationId
from appliance.storage.connection import Connection
from appliance.storage.schema import configs, installation, ssl_configs

SSL_KEY = "l7r.ssl.key"
SSL_CERT = "l7r.ssl.cert"
SSL_CA = "l7r.ssl.ca"
SSL_CRL = "l7r.ssl.crl"


class SettingRows:
    """What the database says about the configuration."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def all(self) -> dict[str, str]:
        """Every row of `configs`."""
        rows = await self._connection.execute(select(configs.c.key, configs.c.value))
        return {row.key: row.value for row in rows}

    async def set(self, values: Mapping[str, str]) -> None:
        """Set keys, whether or not they were set before."""
        for key, value in values.items():
            row = upsert(configs).values(key=key, value=value)
            await self._connection.execute(
                row.on_conflict_do_update(index_elements=[configs.c.key], set_={"value": value})
            )

    async def delete(self, keys: Iterable[str] | None) -> int:
        """Remove keys, or with None all of them; returns how many there were."""
        what = delete(configs)
        if keys is not None:
            what = what.where(configs.c.key.in_(list(keys)))
        return (await self._connection.execute(what)).rowcount

    async def ssl(self, key: str) -> str | None:
        """A PEM text: `l7r.ssl.key`, `l7r.ssl.cert`, `l7r.ssl.ca` or `l7r.ssl.crl`."""
        found: str | None = await self._connection.scalar(
            select(ssl_configs.c.value).where(ssl_configs.c.key == key)
        )
        return found

    async def ssl_all(self) -> dict[str, str]:
        """Every PEM text there is."""
        rows = await self._connection.execute(select(ssl_configs.c.key, ssl_configs.c.value))
        return {row.key: row.value for row in rows}

    async def replace_ssl(self, values: Mapping[str, str]) -> None:
        """Have these PEM texts, and no other."""
        await self._connection.execute(delete(ssl_configs))
        await self.set_ssl(values)

    async def set_ssl(self, values: Mapping[str, str]) -> None:
        """Replace the PEM texts under these keys."""
        await self._connection.execute(delete(ssl_configs).where(ssl_configs.c.key.in_(list(values))))
        await self._connection.execute(
            insert(ssl_configs), [{"key": key, "value": value} for key, value in values.items()]
        )

    async def installation(self) -> InstallationId:
        """Who we are, in every mark on every guest.

        :raises StoreError: the database was never initialised
        """
        found = await self._connection.scalar(select(installation.c.id))
        if found is None:
            raise StoreError("the database names no installation", hint="run qa admin init")
        return InstallationId(found)

    async def found_installation(self, identity: InstallationId, at: datetime) -> bool:
        """Give the installation its identity for good; whether it had none."""
        row = upsert(installation).values(one=1, id=identity, created=at)
        return (await self._connection.execute(row.on_conflict_do_nothing())).rowcount == 1
