"""What people do with users: add, delete, give a password.

Hashing is slow and happens before the transaction: these functions take hashes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from appliance import config
from appliance.config import Settings
from appliance.errors import ConflictError, NotFoundError, UsageError, few
from appliance.filters import Filter
from appliance.model import Secret, User, UserId
from appliance.ops import sessions
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
    await _check_is_free(tx, stored)
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
            names = few([vm.name for vm in owned or present])
            verb = "owns" if owned else "uses"
            raise ConflictError(
                f"the user {user.login} {verb} the VMs {names}",
                hint="delete the VMs first; nothing was deleted",
            )
    await tx.users.delete([user.id for user in users])
    for user in users:
        await tx.log.append(by=by, what="user del", object=f"user {user.id}", was=user.login)
    return len(users)


async def disable(tx: Tx, users: Sequence[User], *, by: str) -> int:
    """Let users log in no more, and end their sessions; their desktops go on. Returns how many changed."""
    changed = await tx.users.enable([user.id for user in users], False)
    await sessions.end_of_users(tx, [user.id for user in users], by=by)
    await _note_each(tx, users, changed, by=by, what="user disable")
    return len(changed)


async def enable(tx: Tx, users: Sequence[User], *, by: str) -> int:
    """Let users log in again; returns how many could not."""
    changed = await tx.users.enable([user.id for user in users], True)
    await _note_each(tx, users, changed, by=by, what="user enable")
    return len(changed)


async def rename(tx: Tx, user: User, login: str, *, by: str) -> None:
    """Give a user the login `login`, as `checked_login` returns it; homes are not this function's.

    :raises ConflictError: the login is taken
    """
    await _check_is_free(tx, login)
    await tx.users.rename(user.id, login)
    await tx.log.append(by=by, what="user edit login", object=f"user {user.id}", was=user.login, now=login)


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


async def _check_is_free(tx: Tx, login: str) -> None:
    if await tx.users.by_login(login) is not None:
        raise ConflictError(f"login={login}: there is a user of this login")


async def _note_each(
    tx: Tx, users: Sequence[User], changed: Collection[UserId], *, by: str, what: str
) -> None:
    for user in users:
        if user.id in changed:
            await tx.log.append(by=by, what=what, object=f"user {user.id}", now=user.login)
