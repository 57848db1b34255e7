"""Which desktop is meant, and what a refusal means: decisions without effects."""

from __future__ import annotations

import json
from collections.abc import Sequence

from appliance.client.failures import (
    ChoiceError,
    ClientError,
    CredentialsError,
    DesktopError,
    RefusedError,
)
from appliance.client.wire import Desktop, Reply


def choose(desktops: Sequence[Desktop], wanted: str | None, *, take_first: bool) -> Desktop:
    """The desktop to connect to: the one named (by name, else by id), the only one, or the first.

    :raises DesktopError: there is none, or it is blocked
    :raises ChoiceError: there are several and nothing says which
    """
    found = desktops
    if wanted is not None:
        found = [d for d in desktops if d.name == wanted] or [d for d in desktops if str(d.vm_id) == wanted]
        if not found:
            names = ", ".join(d.name for d in desktops) or "none"
            raise DesktopError(f"there is no desktop {wanted!r}; yours: {names}")
    elif take_first:
        found = [d for d in desktops if not d.blocked][:1] or desktops[:1]
    if not found:
        raise DesktopError("you have no desktop on this server", hint="ask its administrator for one")
    if len(found) > 1:
        names = ", ".join(f"{d.name} ({d.vm_id})" for d in found)
        raise ChoiceError(
            f"there are several desktops: {names}", hint="choose with --vm, or -o for the first"
        )
    if found[0].blocked:
        raise DesktopError(f"the desktop {found[0].name} is blocked by the administrator")
    return found[0]


def refusal(reply: Reply) -> ClientError:
    """What a final reply other than the wanted one means (protocol.md 1.10)."""
    said = reply.text or "no reason given"
    match reply.status:
        case 401:
            return CredentialsError("wrong login or password")
        case 403:
            return DesktopError(f"the server forbids this desktop: {said}")
        case 404:
            return DesktopError(f"the server does not know this desktop: {said}")
        case 408:
            return RefusedError(f"the desktop was not ready in time: {said}", hint="try again")
        case 426:
            return RefusedError(f"the server wants a newer client: {said}")
        case 503:
            return RefusedError(f"the server cannot give a desktop now: {said}")
        case _:
            return RefusedError(f"the server refused with status {reply.status}: {said}")


def list_refusal(reply: Reply) -> ClientError:
    """What a final reply other than 200 to the question for the list means."""
    if reply.status == 401:
        return refusal(reply)
    return RefusedError(f"the server gave no list, status {reply.status}: {reply.text or 'no reason given'}")


def as_table(desktops: Sequence[Desktop]) -> str:
    """The list for people: one line a desktop, below a heading."""
    rows = [("ID", "NAME", "STATE", "BLOCKED")]
    rows += [(str(d.vm_id), d.name, d.state, "yes" if d.blocked else "no") for d in desktops]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    padded = ([word.ljust(width) for word, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(words).rstrip() for words in padded)


def as_json(desktops: Sequence[Desktop]) -> str:
    """The list for programs: an array of objects."""
    entries = [{"id": d.vm_id, "name": d.name, "state": d.state, "blocked": d.blocked} for d in desktops]
    return json.dumps(entries, indent=2)
