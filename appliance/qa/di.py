"""`qa di`: the disk images and their tags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from appliance.errors import few
from appliance.model import Di, DiId, Osf, OsfId
from appliance.ops import image_accounts, images, osfs
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant
from appliance.qa.progress import Progress
from appliance.qa.subject import Subject, property_verbs, show_verb
from appliance.qa.verbs import Argument, Given, Verb, whole
from appliance.scalars import boolean
from appliance.storage.properties import Owner
from appliance.storage.store import Tx

COLUMNS: tuple[Column[Di], ...] = (
    Column("Id", lambda di: di.id),
    Column("OSF (id)", lambda di: f"{di.osf} ({di.osf_id})"),
    Column("Version", lambda di: di.version),
    Column("Path", lambda di: di.path),
    Column("Tags", lambda di: ", ".join(di.tags)),
)


def plain(di: Di) -> Mapping[str, Json]:
    """A DI for programs."""
    return {
        "id": di.id,
        "osf_id": di.osf_id,
        "osf": di.osf,
        "version": di.version,
        "path": di.path,
        "sha256": di.sha256,
        "size_bytes": di.size_bytes,
        "created": instant(di.created),
        "tags": list(di.tags),
    }


async def add(context: Context, given: Given) -> None:
    """`qa di add`."""
    async with context.database() as store:
        async with store.read() as tx:
            osf = await _osf(tx, given)
        source = images.source_file(context.settings, given["path"])
        progress = Progress(context.invocation.quiet)
        try:
            di = await images.add(
                store,
                context.settings,
                osf,
                source,
                version=given.get("version"),
                by=context.by,
                report=progress,
                note=context.note,
            )
        finally:
            progress.end_line()
        if given.get("delete"):
            _delete(context, source)
        async with store.read() as tx:
            clashes = await image_accounts.clashes(tx, context.settings, [di.id])
    if clashes:
        shown = few(clashes)
        context.note(f"Warning: the image has accounts that are users, whose desktops cannot start: {shown}")
    context.added("DI", plain(di))


def _delete(context: Context, source: Path) -> None:
    try:
        source.unlink()
    except OSError as exc:
        context.note(f"Warning: {source} was imported and cannot be deleted: {exc.strerror}")


async def list_(context: Context, given: Given) -> None:
    """`qa di list`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.images.find(context.filter)
    context.show(COLUMNS, found, plain)


async def tag(context: Context, given: Given) -> None:
    """`qa di tag`."""
    async with context.database() as store:
        async with store.write() as tx:
            await images.tag(tx, await tx.images.get(DiId(given["di_id"])), given["tag"], by=context.by)
        context.changed = True
    context.say("DI tagged")


async def untag(context: Context, given: Given) -> None:
    """`qa di untag`."""
    async with context.database() as store, store.write() as tx:
        await images.untag(tx, await tx.images.get(DiId(given["di_id"])), given["tag"], by=context.by)


async def delete(context: Context, given: Given) -> None:
    """`qa di del`."""
    async with context.database() as store:
        deleted = await images.delete(store, context.settings, context.filter, by=context.by)
    context.say(f"Deleting {deleted} di(s)\n{deleted} DIs deleted.")
    context.note_if_nothing(deleted)


async def _osf(tx: Tx, given: Given) -> Osf:
    if "osf" in given:
        return await osfs.named(tx, given["osf"])
    return await tx.osfs.get(OsfId(given["osf_id"]))


DI_ID = Argument("di_id", "the DI", whole, required=True, shape="ID")

SUBJECT = Subject(
    Owner.DI, "DIs", lambda tx, filter_: tx.images.find(filter_), lambda di: di.path, plain, "id=2"
)

VERBS = (
    Verb(
        "add",
        "Copies an archive or a disk to the images, checks and registers it; head moves to it.",
        add,
        arguments=(
            Argument(
                "path",
                "the archive, or for kvm the qcow2 or raw disk: in the staging directory, or a full path",
                required=True,
            ),
            Argument("osf", "the name of its OSF"),
            Argument("osf_id", "or the OSF's id", whole, shape="ID"),
            Argument("version", "its version; default YYYY-MM-DD-NNN", images.checked_tag),
            Argument("delete", "whether the file at path goes once it is imported", boolean, shape="yes|no"),
        ),
        one_of=(("osf", "osf_id"),),
        examples=(
            "qa di add path=desktop.tar.zst osf=office",
            "qa di add path=/tmp/d.tar.gz osf_id=1 version=7",
            "qa di add path=desktop.qcow2 osf=machines",
            "qa di add path=desktop.tar.zst osf=office delete=yes",
        ),
    ),
    Verb("list", "Lists DIs with their tags.", list_, filters=True, examples=("qa di list -f tag=default",)),
    Verb(
        "tag",
        "Lets a tag point at a DI; VMs that follow the tag boot this DI from their next start.",
        tag,
        arguments=(DI_ID, Argument("tag", "the tag", images.checked_tag, required=True)),
        examples=("qa di tag di_id=2 tag=default",),
    ),
    Verb(
        "untag",
        "Takes a tag from a DI.",
        untag,
        arguments=(DI_ID, Argument("tag", "the tag", required=True)),
        examples=("qa di untag di_id=2 tag=pilot",),
    ),
    Verb(
        "del",
        "Deletes DIs that no VM runs, with their files; head and default pass on to the newest one left.",
        delete,
        filters=True,
        confirm="delete all dis",
        examples=("qa di del -f id=2",),
    ),
    show_verb(SUBJECT),
    *property_verbs(SUBJECT),
)
