"""What can be done with flavours, images, tags, and imports under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.tui.actions import Action, Ask, How, count


def _delete_costs(rows: Sequence[Any]) -> list[str]:
    costs = []
    if any(row.is_image for row in rows):
        costs.append("Images are in the trash for a while, and come back with U.")
    if osfs := sum(not row.is_image for row in rows):
        goes, they = ("The OSF goes", "it has") if osfs == 1 else (f"{osfs} OSFs go", "they have")
        costs.append(f"{goes} for good, if {they} neither images nor desktops.")
    return costs


IMAGE_ACTIONS = (
    Action(
        name="di.add",
        key="a",
        title="Import image",
        doc="Imports a disk image from the staging directory or any path.",
        noun="di",
        verb="add",
        how=How.IMPORT,
        about_rows=False,
    ),
    Action(
        name="osf.add",
        key="A",
        title="Add OSF",
        doc="Adds an operating system flavour.",
        noun="osf",
        verb="add",
        how=How.FORM,
        about_rows=False,
    ),
    Action(
        name="di.tag",
        key="t",
        title="Tag",
        doc="Lets a tag point at images, each in its OSF, and gives the desktops concerned limits.",
        noun="di",
        verb="tag",
        how=How.TAG,
        fits=lambda row: row.is_image,
        unfit="no image",
    ),
    Action(
        name="di.untag",
        key="T",
        title="Untag",
        doc="Takes a tag from an image.",
        noun="di",
        verb="untag",
        how=How.TAG,
        single=True,
        fits=lambda row: row.is_image and bool(row.tags),
        unfit="no image with tags",
    ),
    Action(
        name="di.undo",
        key="R",
        title="Roll back",
        doc="Takes the newest move of a tag of this OSF back; desktops that still run what they had keep it.",
        noun="di",
        verb="tag --undo",
        how=How.TAG,
        single=True,
    ),
    Action(
        name="image.edit",
        key="E",
        title="Edit",
        doc="Changes the notes of an image, or the resources and policies of an OSF.",
        noun="di",
        verb="edit",
        how=How.FORM,
        single=True,
        fits=lambda row: not row.arriving,
        unfit="still on its way",
    ),
    Action(
        name="di.block",
        key="b",
        title="Block",
        doc="Lets nothing boot images; what runs goes on.",
        noun="di",
        verb="block",
        ask=Ask.ALWAYS,
        fits=lambda row: row.is_image and not row.blocked,
        unfit="no image, or blocked already",
        costs=lambda rows: [
            f"{count(sum(row.followers for row in rows), 'desktop')} would boot them next and will not start."
        ],
    ),
    Action(
        name="di.unblock",
        key="u",
        title="Unblock",
        doc="Lets images be booted again.",
        noun="di",
        verb="unblock",
        ask=Ask.SEVERAL,
        fits=lambda row: row.is_image and bool(row.blocked),
        unfit="not blocked",
    ),
    Action(
        name="di.duplicate",
        key="y",
        title="Duplicate",
        doc="Makes an image from another one, for another OSF: it takes no room.",
        noun="di",
        verb="duplicate",
        how=How.FORM,
        single=True,
        fits=lambda row: row.is_image,
        unfit="no image",
    ),
    Action(
        name="image.properties",
        key="p",
        title="Properties",
        doc="Shows and changes the properties of images or OSFs.",
        noun="di",
        verb="propset",
        how=How.PROPERTIES,
        fits=lambda row: not row.arriving,
        unfit="still on their way",
    ),
    Action(
        name="image.delete",
        key="D",
        title="Delete",
        doc="Puts images into the trash, from where they come back for a while; or deletes an empty OSF.",
        noun="di",
        verb="del",
        ask=Ask.ALWAYS,
        final=lambda row: not row.is_image,
        fits=lambda row: not row.retired and not row.running and not row.arriving,
        unfit="in the trash already, or desktops run it",
        costs=_delete_costs,
    ),
    Action(
        name="di.undelete",
        key="U",
        title="Undelete",
        doc="Takes images out of the trash.",
        noun="di",
        verb="undelete",
        ask=Ask.SEVERAL,
        fits=lambda row: row.is_image and row.retired,
        unfit="not in the trash",
    ),
    Action(
        name="di.purge",
        key="Z",
        title="Purge",
        doc="Removes images in the trash for good.",
        noun="di",
        verb="purge",
        ask=Ask.TYPED,
        fits=lambda row: row.is_image and row.retired,
        unfit="not in the trash",
        costs=lambda rows: ["They do not come back."],
    ),
    Action(
        name="operation.cancel",
        key="C",
        title="Cancel import",
        doc="Gives up an import that is under way.",
        noun="operation",
        verb="cancel",
        ask=Ask.ALWAYS,
        fits=lambda row: row.arriving,
        unfit="not on its way",
        costs=lambda rows: ["What was copied is removed."],
    ),
)
