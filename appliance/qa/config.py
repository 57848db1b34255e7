"""`qa config`: settings."""

from __future__ import annotations

import sys

from appliance.ops import settings
from appliance.qa.context import Context
from appliance.qa.verbs import Given, Verb


async def get(context: Context, given: Given) -> None:
    """`qa config get`."""
    async with context.database():
        found = settings.shown(context.settings, given.rest)
    if context.for_programs:
        context.data([{"key": key, "value": value} for key, value in found.items()])
    else:
        sys.stdout.writelines(f"{key}={value}\n" for key, value in found.items())
    if unset := sorted(set(given.rest) - found.keys()):
        context.note(f"Not set: {', '.join(unset)}")


async def set_(context: Context, given: Given) -> None:
    """`qa config set`."""
    async with context.database() as store:
        async with store.write() as tx:
            warnings = await settings.set_all(tx, context.settings, given.values, by=context.by)
        context.changed = True
    for warning in warnings:
        context.note(f"Warning: {warning}")


async def delete(context: Context, given: Given) -> None:
    """`qa config del`."""
    if not given.rest and not context.confirmed("delete all configuration variables"):
        context.note("Nothing was done.")
        return
    async with context.database() as store:
        async with store.write() as tx:
            deleted = await settings.delete(tx, given.rest or None, by=context.by)
        context.changed = deleted > 0
    context.say(f"{deleted} config entries deleted.\n")


VERBS = (
    Verb(
        "get",
        "Shows what is in force: for some keys, or for all but internal.*.",
        get,
        words="KEY…",
        examples=("qa config get", "qa config get l7r.port"),
    ),
    Verb(
        "set",
        "Sets keys in the database; it wins over the file.",
        set_,
        pairs="keys and values",
        examples=("qa config set vm.network.dns_server=10.3.15.254",),
    ),
    Verb(
        "del",
        "Removes keys from the database, or all of them: the file and the defaults are in force again.",
        delete,
        words="KEY…",
        examples=("qa config del vm.network.dns_server",),
    ),
)
