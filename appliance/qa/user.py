"""`qa user`: the owners of desktops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from appliance.model import User
from appliance.ops import users
from appliance.passwords import hash_password
from appliance.qa.context import Context
from appliance.qa.output import Column, Json
from appliance.qa.verbs import Argument, Given, Verb

COLUMNS: tuple[Column[User], ...] = (
    Column("Id", lambda user: user.id),
    Column("Login", lambda user: user.login),
)

PASSWORD = (
    Argument("password-file", "the first line of this file; - reads standard input", shape="PATH"),
    Argument("password", "the password itself, which others can see"),
)


def plain(user: User) -> Mapping[str, Json]:
    """A user for programs."""
    return {"id": user.id, "login": user.login, "uid": user.uid, "gid": user.gid, "enabled": user.enabled}


async def add(context: Context, given: Given) -> None:
    """`qa user add`."""
    users.checked_login(context.file_settings, given["login"])
    async with context.database() as store:
        password_hash = await asyncio.to_thread(hash_password, context.password(given.values))
        async with store.write() as tx:
            user = await users.add(tx, context.settings, given["login"], password_hash, by=context.by)
    context.added("User", plain(user))


async def list_(context: Context, given: Given) -> None:
    """`qa user list`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.users.find(context.filter)
    context.show(COLUMNS, found, plain)


async def delete(context: Context, given: Given) -> None:
    """`qa user del`."""
    async with context.database() as store, store.write() as tx:
        deleted = await users.delete(tx, await tx.users.find(context.filter), by=context.by)
    context.say(f"Deleting {deleted} user(s)")
    context.note_if_nothing(deleted)


async def passwd(context: Context, given: Given) -> None:
    """`qa user passwd`."""
    async with context.database() as store:
        async with store.read() as tx:
            user = await users.named(tx, context.settings, given["user"])
        password_hash = await asyncio.to_thread(hash_password, context.password(given.values))
        async with store.write() as tx:
            await users.set_password(tx, user, password_hash, by=context.by)
    context.note(f"The password of {user.login} is changed.")


VERBS = (
    Verb(
        "add",
        "Adds a user; asks for the password unless it is given.",
        add,
        arguments=(Argument("login", "the name of the account, also in guests", required=True), *PASSWORD),
        examples=("qa user add login=alice", "pass show alice | qa user add login=alice password-file=-"),
    ),
    Verb("list", "Lists users.", list_, filters=True, examples=("qa user list -f login=a*",)),
    Verb(
        "del",
        "Deletes users who have no VMs.",
        delete,
        filters=True,
        confirm="delete all users",
        examples=("qa user del -f login=alice",),
    ),
    Verb(
        "passwd",
        "Gives a user another password.",
        passwd,
        arguments=(Argument("user", "the login", required=True), *PASSWORD),
        examples=("qa user passwd user=alice",),
    ),
)
