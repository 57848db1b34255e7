"""`qa config`: settings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from appliance.config import L7R_CLIENT_CERT, is_hidden
from appliance.errors import AdminError, UsageError
from appliance.harmless import printable
from appliance.model import Secret
from appliance.ops import explain as explaining
from appliance.ops import settings
from appliance.ops.explain import Explanation
from appliance.qa.context import Context
from appliance.qa.output import ABSENT, Column, yes_no
from appliance.qa.verbs import Argument, Given, Verb
from appliance.scalars import boolean

LONGEST_PEM = 32_768
"""Bytes of a file with keys or certificates: what the database holds."""


async def get(context: Context, given: Given) -> None:
    """`qa config get`."""
    async with context.database():
        found = settings.shown(context.settings, given.rest)
    if context.for_programs:
        context.data([{"key": key, "value": value} for key, value in found.items()])
    else:
        context.output.writelines(f"{key}={value}\n" for key, value in found.items())
    if unset := sorted(set(given.rest) - found.keys()):
        context.note(f"Not set: {', '.join(unset)}")


async def explain(context: Context, given: Given) -> None:
    """`qa config explain`."""
    if not given.rest:
        raise UsageError("which settings?", hint="give keys; qa config list shows all")
    async with context.database():
        found = [explaining.explain(context.settings, key) for key in given.rest]
    if context.for_programs:
        context.data([asdict(one) for one in found])
    else:
        print("\n".join(_paragraph(one) for one in found), end="", file=context.output)


async def list_(context: Context, given: Given) -> None:
    """`qa config list`."""
    async with context.database():
        found = explaining.everything(context.settings, hidden=given.get("all", False))
    context.show(COLUMNS, found, asdict)


async def set_(context: Context, given: Given) -> None:
    """`qa config set`."""
    experts = [key for key in given.values if is_hidden(key)]
    if experts and not context.confirmed(f"change {', '.join(experts)}, which only experts should"):
        context.note("Nothing was done.")
        return
    async with context.database() as store:
        async with store.write() as tx:
            warnings = await settings.set_all(tx, context.settings, given.values, by=context.by)
        context.changed = True
    for warning in warnings:
        context.note(f"Warning: {warning}")
    if late := [key for key in given.values if key.startswith(explaining.AT_START)]:
        context.note(f"In force from the next start of the daemon: {', '.join(late)}")


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


async def ssl(context: Context, given: Given) -> None:
    """`qa config ssl`."""
    from appliance.clock import SystemClock
    from appliance.ops import certificate

    texts = {name: _pem(name, given[name]) for name in ("key", "cert", "ca", "crl") if name in given}
    identity = certificate.Identity(
        key=Secret(texts["key"]), cert=texts["cert"], ca=texts.get("ca"), crl=texts.get("crl")
    )
    async with context.database() as store:
        required = context.settings[L7R_CLIENT_CERT]
        async with store.write() as tx:
            warnings = await certificate.install(
                tx, identity, SystemClock().now(), clients_need_one=required, by=context.by
            )
        context.changed = True
    for warning in warnings:
        context.note(f"Warning: {warning}")
    more = [name for name in ("ca", "crl") if name in texts]
    *most, last = ["SSL certificate", "private key", *more]
    context.say(f"{', '.join(most)} and {last} set.\n")


def _pem(name: str, file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            text = stream.read(LONGEST_PEM + 1)
    except OSError as exc:
        raise AdminError(f"{name}={file} cannot be read: {exc.strerror}") from exc
    if len(text) > LONGEST_PEM:
        raise AdminError(f"{name}={file} is longer than {LONGEST_PEM} bytes: is it the right file?")
    try:
        return text.decode()
    except UnicodeDecodeError as exc:
        raise AdminError(
            f"{name}={file} is not in PEM form", hint="openssl x509 -inform DER turns a certificate into it"
        ) from exc


def _paragraph(one: Explanation) -> str:
    """A setting for people."""
    said = (("database", one.database), ("file", one.file), ("default", one.default))
    width = max(len(text or ABSENT) for _, text in said)
    lines = [f"{one.key} = {one.value or ''}", f"  {one.doc}"]
    for source, text in said:
        won = "in force" if source == one.source else ""
        lines.append(f"  {source:<8}  {printable(text or ABSENT):<{width}}  {won}".rstrip())
    if one.wrong is not None:
        lines.append(f"  WRONG: {one.wrong}")
    when = "when the daemon is started again" if one.restart else "from the next use on"
    return "\n".join([*lines, f"  A change holds {when}.", ""])


COLUMNS: tuple[Column[Explanation], ...] = (
    Column("Key", lambda one: one.key),
    Column("Value", lambda one: one.value),
    Column("From", lambda one: one.source),
    Column("Restart", lambda one: yes_no(one.restart)),
    Column("Meaning", lambda one: one.doc),
)

VERBS = (
    Verb(
        "get",
        "Shows what is in force: for some keys, or for all but internal.*.",
        get,
        words="KEY…",
        examples=("qa config get", "qa config get l7r.port"),
    ),
    Verb(
        "list",
        "Lists settings: what is in force, who says so, what it is for; all but internal.* unless asked.",
        list_,
        arguments=(Argument("all", "whether to list internal.* too", boolean, shape="yes|no"),),
        examples=("qa config list", "qa config list all=yes -o json"),
    ),
    Verb(
        "explain",
        "Says of settings what the database, the file and the defaults have, which wins, and from when on.",
        explain,
        words="KEY…",
        examples=("qa config explain l7r.port",),
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
    Verb(
        "ssl",
        "Has the L7R show another certificate to new clients; ca and crl go, unless they are given again.",
        ssl,
        arguments=(
            Argument(
                "key", "the private key, in PEM form and without a pass phrase", required=True, shape="FILE"
            ),
            Argument(
                "cert",
                "the certificate, followed by those that lead to the root",
                required=True,
                shape="FILE",
            ),
            Argument("ca", "whose client certificates are good (l7r.client.cert.require)", shape="FILE"),
            Argument("crl", "which of those are revoked", shape="FILE"),
        ),
        examples=("qa config ssl key=server.key cert=server-and-chain.pem",),
    ),
)
