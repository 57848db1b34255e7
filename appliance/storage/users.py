"""Repository of `users`. Password hashes leave it as `Secret` only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from appliance.errors import ConflictError, NotFoundError
from appliance.filters import Filter
from appliance.model import FIRST_USER_UID, LAST_USER_UID, Secret, User, UserId, UserState
from appliance.storage.connection import Connection
from appliance.storage.schema import user_properties, users, vm_runtimes, vms
from appliance.storage.where import Keys, property_of, where

KEYS: Keys = {
    "id": users.c.id,
    "login": users.c.login,
    "uid": users.c.uid,
    "gid": users.c.gid,
    "enabled": users.c.enabled,
}

_OWNED = select(func.count()).where(vms.c.user_id == users.c.id).scalar_subquery().label("vms")
_CONNECTED = (
    select(func.count())
    .where(vm_runtimes.c.real_user_id == users.c.id, vm_runtimes.c.user_state != UserState.DISCONNECTED)
    .scalar_subquery()
    .label("connected")
)
_SELECT = select(users, _OWNED, _CONNECTED)

NOT_YET = 2**31 - 1
"""The uid of a row whose id is not known yet; overwritten in the same transaction."""


class Users:
    """The owners of desktops."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, user_id: UserId) -> User:
        """One user.

        :raises NotFoundError: there is none with this id
        """
        found = await self.find(Filter.where(id=user_id))
        if not found:
            raise NotFoundError(f"there is no user with id {user_id}")
        return found[0]

    async def by_login(self, login: str) -> User | None:
        """The user of this login, spelled as stored."""
        row = (await self._connection.execute(_SELECT.where(users.c.login == login))).one_or_none()
        return None if row is None else _user(row)

    async def find(self, filter_: Filter | None = None) -> list[User]:
        """The users who pass, by id."""
        passes = where(filter_, KEYS, property_of(user_properties, users.c.id))
        rows = await self._connection.execute(_SELECT.where(passes).order_by(users.c.id))
        return [_user(row) for row in rows]

    async def add(self, login: str, password_hash: Secret | None) -> User:
        """A new user, with the uid and gid that are theirs for good; the login must be free.

        :raises ConflictError: the range of uids is used up
        """
        stored = None if password_hash is None else password_hash.reveal()
        row = insert(users).values(login=login, password=stored, uid=NOT_YET, gid=NOT_YET)
        user_id = UserId((await self._connection.execute(row.returning(users.c.id))).scalar_one())
        uid = FIRST_USER_UID + user_id
        if uid > LAST_USER_UID:
            raise ConflictError(f"no uid is left for {login}: the last, {LAST_USER_UID}, is taken")
        await self._connection.execute(update(users).where(users.c.id == user_id).values(uid=uid, gid=uid))
        return User(id=user_id, login=login, uid=uid, gid=uid, enabled=True)

    async def delete(self, ids: Collection[UserId]) -> int:
        """Remove users to whom nothing refers; returns how many."""
        return (await self._connection.execute(delete(users).where(users.c.id.in_(ids)))).rowcount

    async def rename(self, user_id: UserId, login: str) -> None:
        """Give a user another login, which must be free."""
        await self._connection.execute(update(users).where(users.c.id == user_id).values(login=login))

    async def enable(self, ids: Collection[UserId], enabled: bool) -> list[UserId]:
        """Say whether users may log in; returns those of whom the opposite was said."""
        changed = update(users).where(users.c.id.in_(ids), users.c.enabled != enabled).values(enabled=enabled)
        return sorted(UserId(row) for row in await self._connection.scalars(changed.returning(users.c.id)))

    async def password_hash(self, user_id: UserId) -> Secret | None:
        """The stored hash; None for a user who cannot log in by password."""
        found = await self._connection.scalar(select(users.c.password).where(users.c.id == user_id))
        return None if found is None else Secret(found)

    async def set_password_hash(self, user_id: UserId, password_hash: Secret) -> None:
        """Replace the stored hash."""
        await self._connection.execute(
            update(users).where(users.c.id == user_id).values(password=password_hash.reveal())
        )


def _user(row: Row[Any]) -> User:
    return User(
        id=UserId(row.id),
        login=row.login,
        uid=row.uid,
        gid=row.gid,
        enabled=row.enabled,
        vms=row.vms,
        connected=row.connected,
    )
