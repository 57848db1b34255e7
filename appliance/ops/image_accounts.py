"""Finds accounts of images that are also logins of users: no desktop can start for those (AU13).

The VMA makes the user's account in the guest. It refuses when the image has an account of that name with
another uid, and would be wrong not to: the home belongs to the user's own uid, in every image.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from appliance.config import Settings
from appliance.errors import ConflictError
from appliance.model import DiId
from appliance.storage import openat
from appliance.storage.paths import Paths
from appliance.storage.store import Tx

LINE = re.compile(r"([^:\n]+):[^:\n]*:(\d{1,10}):")


@dataclass(frozen=True, slots=True)
class ImageAccount:
    """An account that an image brings."""

    di_id: DiId
    image: str
    """OSF and version of the DI."""
    login: str
    uid: int


InImages = Mapping[str, ImageAccount]
"""Every login that an image has, with the newest image that has it."""


def accounts(settings: Settings, di_id: DiId) -> Mapping[str, int]:
    """Logins and uids of an unpacked image; none if it is not unpacked here or names none."""
    base = Paths(settings).basefs(di_id)
    try:
        text = openat.read_text(base, "/etc/passwd")
    except OSError:
        return {}
    return {match[1]: int(match[2]) for match in map(LINE.match, text.splitlines()) if match}


async def all_accounts(tx: Tx, settings: Settings) -> InImages:
    """The logins of all images."""
    found = {}
    for di in await tx.images.find():
        for login, uid in accounts(settings, di.id).items():
            found[login] = ImageAccount(di.id, f"{di.osf} {di.version}", login, uid)
    return found


def check_login(login: str, in_images: InImages) -> None:
    """Whether a new user may have this login.

    :raises ConflictError: an image has an account of this name
    """
    if there := in_images.get(login):
        raise ConflictError(
            f"login={login}: the image {there.image} (DI {there.di_id}) has an account of this name, "
            f"with uid {there.uid}: desktops could not start from it",
            hint="choose another login, or build the image without that account",
        )


async def clashes(tx: Tx, settings: Settings, di_ids: Collection[DiId]) -> Sequence[str]:
    """Logins of users that are also accounts of these images, with another uid."""
    users = {user.login: user.uid for user in await tx.users.find()}
    found = set()
    for di_id in di_ids:
        found |= {login for login, uid in accounts(settings, di_id).items() if users.get(login, uid) != uid}
    return sorted(found)
