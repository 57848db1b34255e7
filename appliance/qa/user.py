"""`qa user`: the owners of desktops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from appliance.errors import UsageError
from appliance.model import User
from appliance.ops import image_accounts, users
from appliance.passwords import hash_password
from appliance.qa import accounts
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, yes_no
from appliance.qa.subject import Subject, property_verbs, show_verb
from appliance.qa.verbs import Argument, Given, Verb
from appliance.storage.properties import Owner

COLUMNS: tuple[Column[User], ...] = (
    Column("Id", lambda user: user.id),
    Column("Login", lambda user: user.login),
    Column("Enabled", lambda user: yes_no(user.enabled)),
    Column("VMs", lambda user: user.vms),
    Column("Connected", lambda user: user.connected),
)

PASSWORD = (
    Argument("password-file", "the first line of this file; - reads standard input", shape="PATH"),
    Argument("password", "the password itself, which others can see"),
)


def plain(user: User) -> Mapping[str, Json]:
    """A user for programs."""
    return {
        "id": user.id,
        "login": user.login,
        "uid": user.uid,
        "gid": user.gid,
        "enabled": user.enabled,
        "vms": user.vms,
        "connected": user.connected,
    }


async def add(context: Context, given: Given) -> None:
    """`qa user add`."""
    if "csv" in given:
        _check_alone(given)
        await accounts.add_csv(context, given)
        return
    if "passwords-out" in given:
        raise UsageError("passwords-out= goes with csv=")
    login = users.checked_login(context.file_settings, given["login"])
    async with context.database() as store:
        async with store.read() as tx:
            image_accounts.check_login(login, await image_accounts.all_accounts(tx, context.settings))
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


def _check_alone(given: Given) -> None:
    if beside := [argument.name for argument in PASSWORD if argument.name in given]:
        raise UsageError(
            f"csv= and {beside[0]}= exclude one another", hint="the file may have a column password"
        )


SUBJECT = Subject(
    Owner.USER,
    "users",
    lambda tx, filter_: tx.users.find(filter_),
    lambda user: user.login,
    plain,
    "login=alice",
)

VERBS = (
    Verb(
        "add",
        "Adds a user, and asks for the password unless it is given; or many from a file, all or none.",
        add,
        arguments=(
            Argument("login", "the name of the account, also in guests"),
            *PASSWORD,
            *accounts.CSV,
        ),
        one_of=(("login", "csv"),),
        examples=(
            "qa user add login=alice",
            "pass show alice | qa user add login=alice password-file=-",
            "qa user add csv=users.csv passwords-out=passwords.csv",
        ),
    ),
    Verb("list", "Lists users.", list_, filters=True, examples=("qa user list -f login=a*",)),
    Verb(
        "del",
        "Deletes users who have no VMs.",
        delete,
        filters=True,
        rehearsable=True,
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
    *accounts.VERBS,
    show_verb(SUBJECT),
    *property_verbs(SUBJECT),
)
