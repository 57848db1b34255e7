"""What people do with users: add, delete, give a password.

Hashing is slow and happens before the transaction: these functions take hashes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from appliance import config
from appliance.config import Settings
from appliance.errors import ConflictError, NotFoundError, UsageError
from appliance.filters import Filter
from appliance.model import Secret, User
from appliance.storage.store import Tx

LOGIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
RESERVED = ("root",)


def normalised_login(settings: Settings, login: str) -> str:
    """A login as it is stored and looked up: trimmed, and in lower case unless case matters."""
    trimmed = login.strip()
    return trimmed if settings[config.LOGIN_CASE_SENSITIVE] else trimmed.lower()


async def add(tx: Tx, settings: Settings, login: str, password_hash: Secret | None, *, by: str) -> User:
    """A new user.

    :raises UsageError: the login cannot be an account name in a guest
    :raises ConflictError: the login is taken
    """
    stored = checked_login(settings, login)
    if await tx.users.by_login(stored) is not None:
        raise ConflictError(f"login={stored}: there is a user of this login")
    user = await tx.users.add(stored, password_hash)
    await tx.log.append(by=by, what="user add", object=f"user {user.id}", now=stored)
    return user


async def delete(tx: Tx, users: Sequence[User], *, by: str) -> int:
    """Delete users, all or none.

    :raises ConflictError: one of them has VMs
    """
    for user in users:
        owned = await tx.vms.find(Filter.where(user_id=user.id))
        present = await tx.vms.find(Filter.where(real_user_id=user.id))
        if owned or present:
            names = ", ".join(vm.name for vm in (owned or present)[:5])
            verb = "owns" if owned else "uses"
            raise ConflictError(
                f"the user {user.login} {verb} the VMs {names}",
                hint="delete the VMs first; nothing was deleted",
            )
    await tx.users.delete([user.id for user in users])
    for user in users:
        await tx.log.append(by=by, what="user del", object=f"user {user.id}", was=user.login)
    return len(users)


async def set_password(tx: Tx, user: User, password_hash: Secret, *, by: str) -> None:
    """Give a user another password."""
    await tx.users.set_password_hash(user.id, password_hash)
    await tx.log.append(by=by, what="user passwd", object=f"user {user.id}", now=user.login)


async def named(tx: Tx, settings: Settings, login: str) -> User:
    """The user of this login, however it is spelled.

    :raises NotFoundError: there is none
    """
    user = await tx.users.by_login(normalised_login(settings, login))
    if user is None:
        raise NotFoundError(f"there is no user {login!r}")
    return user


def checked_login(settings: Settings, login: str) -> str:
    """The login as it is stored.

    :raises UsageError: it cannot be an account name in a guest
    """
    stored = normalised_login(settings, login)
    if not LOGIN.fullmatch(stored):
        raise UsageError(
            f"login={stored}: this cannot be an account name",
            hint="a letter or _, then up to 31 letters, digits, '_', '.' or '-'",
        )
    if stored.lower() in RESERVED:
        raise UsageError(f"login={stored}: a desktop user cannot be {stored}")
    return stored
