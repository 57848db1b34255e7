"""`qa di`: the disk images and their tags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from appliance.errors import few
from appliance.model import AgeingVm, DiId, Osf, OsfId
from appliance.ops import (
    expiry,
    image_accounts,
    image_add,
    image_copy,
    image_edit,
    image_progress,
    images,
    osfs,
    tag_undo,
)
from appliance.qa import di_export, di_history, di_trash, di_view
from appliance.qa.context import Context
from appliance.qa.di_view import COLUMNS, Line, plain
from appliance.qa.limits import ARGUMENTS, given_limits, preview, report
from appliance.qa.subject import Subject, property_verbs, show_verb
from appliance.qa.verbs import Argument, Given, Verb, whole
from appliance.scalars import boolean
from appliance.storage.ageing import Limits
from appliance.storage.properties import Owner
from appliance.storage.shared_file import Shared
from appliance.storage.store import Store, Tx


async def add(context: Context, given: Given) -> None:
    """`qa di add`."""
    async with context.database() as store:
        async with store.read() as tx:
            osf = await _osf(tx, given)
        source = images.source_file(context.settings, given["path"])
        if context.invocation.dry_run:
            await _preview_add(context, store, osf, source, given)
            return
        progress = context.progress()
        try:
            limits = given_limits(context, given)
            di, limited = await image_add.add(
                store,
                context.settings,
                osf,
                source,
                version=given.get("version"),
                notes=given.get("notes"),
                by=context.by,
                report=progress,
                limits=limits,
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
    report(context, limited, limits)


def _delete(context: Context, source: Path) -> None:
    try:
        source.unlink()
    except OSError as exc:
        context.note(f"Warning: {source} was imported and cannot be deleted: {exc.strerror}")


async def list_(context: Context, given: Given) -> None:
    """`qa di list`."""
    async with context.database() as store, store.read() as tx:
        found: list[Line] = [
            *await di_view.find(tx, context.filter),
            *await image_progress.under_way(tx, context.settings, context.filter),
        ]
    context.show(COLUMNS, sorted(found, key=lambda line: line.id), plain)


async def _preview_add(context: Context, store: Store, osf: Osf, source: Path, given: Given) -> None:
    """Whether the image could be added, as far as that can be told, and who follows `head`."""
    limits = given_limits(context, given)
    await image_add.check(store, context.settings, osf, source, version=given.get("version"))
    async with store.read() as tx:
        concerned = await expiry.concerned_by_head(tx, osf.id, limits)
    preview(context, concerned)


async def tag(context: Context, given: Given) -> None:
    """`qa di tag`."""
    limits = given_limits(context, given)
    async with context.database() as store:
        async with store.write() as tx:
            di = await tx.images.get(DiId(given["di_id"]))
            limited = await images.tag(tx, di, given["tag"], by=context.by, limits=limits)
            concerned = await _concerned(context, tx, di.osf_id, given["tag"])
        context.changed = True
        context.say("DI tagged")
        _account(context, limited, limits, concerned)


async def undo_tag(context: Context, given: Given) -> None:
    """`qa di tag --undo`."""
    limits = given_limits(context, given)
    async with context.database() as store:
        async with store.write() as tx:
            osf = await osfs.named(tx, given["osf"]) if "osf" in given else None
            move, limited = await tag_undo.take_back(tx, osf, given.get("tag"), by=context.by, limits=limits)
            concerned = await _concerned(context, tx, move.osf_id, move.tag)
            stay = len(await expiry.up_to_date(tx, move.osf_id, move.tag))
        context.changed = True
        now = "at nothing" if move.from_di_id is None else f"at DI {move.from_di_id} ({move.from_version})"
        if context.invocation.dry_run:
            context.note(f"The tag {move.tag} of the OSF {move.osf} would point {now} again.")
            if stay:
                context.note(f"{stay} desktops in use run that, and would have no limits any more.")
        context.say(f"The tag {move.tag} of the OSF {move.osf} points {now} again")
        _account(context, limited, limits, concerned)


async def untag(context: Context, given: Given) -> None:
    """`qa di untag`."""
    limits = given_limits(context, given)
    async with context.database() as store:
        async with store.write() as tx:
            di = await tx.images.get(DiId(given["di_id"]))
            limited = await images.untag(tx, di, given["tag"], by=context.by, limits=limits)
            concerned = await _concerned(context, tx, di.osf_id, given["tag"])
        context.changed = True
        _account(context, limited, limits, concerned)


async def _concerned(context: Context, tx: Tx, osf_id: OsfId, tag: str) -> Sequence[AgeingVm]:
    """Whose desktops a move of a tag concerns, if only that is asked."""
    return await expiry.concerned(tx, osf_id, tag) if context.invocation.dry_run else ()


def _account(context: Context, limited: int, limits: Limits, concerned: Sequence[AgeingVm]) -> None:
    if context.invocation.dry_run and concerned and not any(vm.next_di_id for vm in concerned):
        preview(context, concerned, "find no image at their next start")
    elif context.invocation.dry_run:
        preview(context, concerned)
    else:
        report(context, limited, limits)


async def duplicate(context: Context, given: Given) -> None:
    """`qa di duplicate`."""
    async with context.database() as store:
        async with store.read() as tx:
            osf = await osfs.named(tx, given["osf"]) if "osf" in given else None
        di, shared = await image_copy.duplicate(
            store, context.settings, DiId(given["di_id"]), osf, version=given.get("version"), by=context.by
        )
    if shared is Shared.FILE:
        context.note("The pool shares no blocks between files, so both images are one file with two names.")
    context.added("DI", plain(di))


async def edit(context: Context, given: Given) -> None:
    """`qa di edit`."""
    async with context.database() as store, store.write() as tx:
        edited = await image_edit.edit_notes(
            tx, await di_view.find(tx, context.filter), given["notes"], by=context.by
        )
    context.say(f"Edited {edited} DIs.")
    context.note_if_nothing(edited)


async def block(context: Context, given: Given) -> None:
    """`qa di block`."""
    async with context.database() as store, store.write() as tx:
        dis = await tx.images.find(context.filter)
        blocked = await image_edit.block(tx, dis, by=context.by)
        concerned = await image_edit.followers(tx, dis)
    context.say(f"Blocked {blocked} DIs.")
    context.note_if_nothing(len(dis))
    if concerned:
        context.note(f"{len(concerned)} VMs follow them, and will not start: {few(concerned)}")


async def unblock(context: Context, given: Given) -> None:
    """`qa di unblock`."""
    async with context.database() as store, store.write() as tx:
        dis = await tx.images.find(context.filter)
        unblocked = await image_edit.unblock(tx, dis, by=context.by)
    context.say(f"Unblocked {unblocked} DIs.")
    context.note_if_nothing(len(dis))


async def _osf(tx: Tx, given: Given) -> Osf:
    if "osf" in given:
        return await osfs.named(tx, given["osf"])
    return await tx.osfs.get(OsfId(given["osf_id"]))


NOTES = Argument("notes", "what is to be known about it; empty for nothing", image_edit.checked_notes)
DI_ID = Argument("di_id", "the DI", whole, required=True, shape="ID")

SUBJECT = Subject(Owner.DI, "DIs", di_view.find, lambda di: di.path, plain, "id=2")

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
            NOTES,
            Argument("delete", "whether the file at path goes once it is imported", boolean, shape="yes|no"),
            *ARGUMENTS,
        ),
        rehearsable=True,
        one_of=(("osf", "osf_id"),),
        examples=(
            "qa di add path=desktop.tar.zst osf=office",
            "qa di add path=/tmp/d.tar.gz osf_id=1 version=7",
            "qa di add path=desktop.qcow2 osf=machines",
            "qa di add path=desktop.tar.zst osf=office delete=yes",
        ),
    ),
    Verb(
        "list",
        "Lists DIs with tags and states, those on their way too; the trash with -f state=retired.",
        list_,
        filters=True,
        examples=("qa di list -f tag=default", "qa di list -f state=retired"),
    ),
    *di_history.VERBS,
    Verb(
        "tag",
        "Lets a tag point at a DI; VMs that follow the tag boot this DI from their next start.",
        tag,
        arguments=(DI_ID, Argument("tag", "the tag", images.checked_tag, required=True), *ARGUMENTS),
        rehearsable=True,
        examples=(
            "qa di tag di_id=2 tag=default",
            "qa di tag di_id=2 tag=default expire-soft=now expire-hard='NEXT SAT'",
            "qa di tag --dry-run di_id=2 tag=default",
        ),
    ),
    Verb(
        "tag --undo",
        "Takes the newest move of a tag back; VMs that still run what they had keep it, without limits.",
        undo_tag,
        arguments=(
            Argument("osf", "only of this OSF; default any"),
            Argument("tag", "only of this tag; default any but head and versions"),
            *ARGUMENTS,
        ),
        rehearsable=True,
        examples=("qa di tag --undo", "qa di tag --undo osf=office tag=default expire-soft=now"),
    ),
    Verb(
        "untag",
        "Takes a tag from a DI.",
        untag,
        arguments=(DI_ID, Argument("tag", "the tag", required=True), *ARGUMENTS),
        rehearsable=True,
        examples=("qa di untag di_id=2 tag=pilot",),
    ),
    Verb(
        "duplicate",
        "Makes a DI from another one, for another OSF: it takes no room, and each goes by itself.",
        duplicate,
        arguments=(
            DI_ID,
            Argument("osf", "the OSF that gets it, of the same backend; default the same OSF"),
            Argument(
                "version", "its version; default the same, or YYYY-MM-DD-NNN if taken", images.checked_tag
            ),
        ),
        examples=("qa di duplicate di_id=2 osf=sales", "qa di duplicate di_id=2 version=trial"),
    ),
    Verb(
        "edit",
        "Writes notes over those that DIs have: what changed, what for, whom to ask.",
        edit,
        arguments=(NOTES,),
        any_of=("notes",),
        filters=True,
        confirm="edit all dis",
        examples=("qa di edit notes='New browser' -f id=2", "qa di edit notes= -f id=2"),
    ),
    Verb(
        "block",
        "Lets nothing boot DIs; what runs goes on, and what would start says why it does not.",
        block,
        filters=True,
        confirm="block all dis",
        examples=("qa di block -f id=2",),
    ),
    Verb(
        "unblock",
        "Lets DIs be booted again.",
        unblock,
        filters=True,
        confirm="unblock all dis",
        examples=("qa di unblock -f id=2",),
    ),
    *di_trash.VERBS,
    *di_export.VERBS,
    show_verb(SUBJECT),
    *property_verbs(SUBJECT),
)
