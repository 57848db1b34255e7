"""`qa di export` and `qa di import`: disk images on their way from one box to another."""

from __future__ import annotations

from pathlib import Path

from appliance.errors import few
from appliance.model import DiId
from appliance.ops import image_accounts, image_export, images
from appliance.qa.context import Context
from appliance.qa.di_view import plain
from appliance.qa.verbs import Argument, Given, Verb, whole
from appliance.scalars import boolean


async def export(context: Context, given: Given) -> None:
    """`qa di export`."""
    progress = context.progress()
    async with context.database() as store:
        try:
            target = await image_export.export(
                store,
                context.settings,
                DiId(given["di_id"]),
                Path(given["path"]),
                by=context.by,
                report=progress,
            )
        finally:
            progress.end_line()
    if context.for_programs:
        context.data({"di_id": given["di_id"], "path": str(target)})
    else:
        context.say(f"DI {given['di_id']} exported to {target}")


async def import_(context: Context, given: Given) -> None:
    """`qa di import`."""
    progress = context.progress()
    async with context.database() as store:
        source = images.source_file(context.settings, given["path"])
        try:
            di = await image_export.bring_in(
                store,
                context.settings,
                source,
                osf=given.get("osf"),
                make_osf=given.get("make_osf", False),
                version=given.get("version"),
                by=context.by,
                report=progress,
                note=context.note,
            )
        finally:
            progress.end_line()
        async with store.read() as tx:
            clashes = await image_accounts.clashes(tx, context.settings, [di.id])
    if clashes:
        shown = few(clashes)
        context.note(f"Warning: the image has accounts that are users, whose desktops cannot start: {shown}")
    context.added("DI", plain(di))


VERBS = (
    Verb(
        "export",
        "Writes a DI into an archive that another box imports: its file as it is, and a manifest.",
        export,
        arguments=(
            Argument("di_id", "the DI", whole, required=True, shape="ID"),
            Argument("path", "the archive to be made, or the folder for it", required=True, shape="FILE|DIR"),
        ),
        examples=("qa di export di_id=2 path=/media/usb", "qa di export di_id=2 path=/tmp/office.tar"),
    ),
    Verb(
        "import",
        "Adds the DI of an exported archive; it is checked as any other.",
        import_,
        arguments=(
            Argument(
                "path",
                "the archive: in the staging directory, or a full path",
                required=True,
                shape="FILE",
            ),
            Argument("osf", "the OSF that gets it; default the one of its name"),
            Argument(
                "make_osf",
                "whether an OSF that is not there is made, as the archive says",
                boolean,
                shape="yes|no",
            ),
            Argument("version", "its version; default that of the archive", images.checked_tag),
        ),
        examples=(
            "qa di import path=office-7.image.tar",
            "qa di import path=office-7.image.tar osf=branch make_osf=yes version=7",
        ),
    ),
)
