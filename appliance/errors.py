"""The error taxonomy: grouped by whose fault it is, because that decides who is told.

Every message is one clear line that names the thing, the reason and, in `hint`, the remedy.
Third-party exceptions are translated where they enter (`raise … from exc`).
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Sequence
from typing import ClassVar, Self

FEW = 5
"""How many names a message holds."""


def few(names: Sequence[str]) -> str:
    """The names for a message: all of a few, else the first ones and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


class ApplianceError(Exception):
    """A failure with a message for a person and, if there is one, the remedy in `hint`."""

    part: ClassVar[str] = "host"
    """Which part of this machine a start waits for, if this is why it failed: the alarm's object."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class AdminError(ApplianceError):
    """The administrator's request is wrong."""


class UsageError(AdminError):
    """The words of a command are wrong: exit status 2."""


class TimeExpressionError(AdminError):
    """A time cannot be understood: what was written, and at which of its characters the reader failed."""

    def __init__(self, expression: str, place: int, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"the time {expression!r} {reason}", hint=hint)
        self.expression = expression
        self.reason = reason
        self.place = place

    def pointer(self) -> str:
        """Two lines: the expression, and a caret below the place."""
        shown = "".join(char if char.isprintable() else " " for char in self.expression)
        before = shown[: self.place]
        wide = sum(unicodedata.east_asian_width(char) in "WF" for char in before)
        marks = sum(unicodedata.combining(char) > 0 for char in before)
        return f"{shown}\n{' ' * (len(before) + wide - marks)}^"


class NotFoundError(AdminError):
    """A named object does not exist."""


class ConflictError(AdminError):
    """The request contradicts what is there."""


class BlockedError(AdminError):
    """An administrator has blocked what is needed."""


class DaemonDownError(AdminError):
    """The request needs the running daemon: exit status 3."""


class DaemonSilentError(DaemonDownError):
    """The daemon is there, and does not answer."""


class ProtocolError(ApplianceError):
    """The client is wrong, or cannot be served: answered with an HTTP status (protocol.md 1.10)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ConfigError(ApplianceError):
    """A setting is wrong: names the key and where it was set."""

    part = "configuration"


class HostError(ApplianceError):
    """This machine is wrong or lacks something."""


class ToolError(HostError):
    """A program failed: its command line, exit status and the tail of what it said."""

    def __init__(self, argv: Sequence[str], status: int, stderr: str, *, hint: str | None = None) -> None:
        said = stderr.strip().splitlines()
        reason = said[-1] if said else "it said nothing"
        super().__init__(f"{argv[0]} failed with status {status}: {reason}", hint=hint)
        self.argv = tuple(argv)
        self.status = status
        self.stderr = stderr


class MissingToolError(HostError):
    """A program that the appliance needs is not installed."""

    part = "programs"


class BackendError(HostError):
    """A hypervisor or one of its parts cannot do its work."""

    part = "backend"


class VolumeError(HostError):
    """The storage pool, an image or a home cannot be used."""

    part = "storage"


class PoolFullError(VolumeError):
    """The storage pool has no room left for something."""

    part = "pool"
    numbers = frozenset({errno.ENOSPC, errno.EDQUOT})
    """How the kernel says so."""

    @classmethod
    def of(cls, failure: str) -> Self:
        """That something failed for want of room."""
        return cls(f"{failure}: the storage pool is full", hint="delete old images or enlarge the pool")


class NetworkError(HostError):
    """The bridge, an address or the ruleset cannot be set up."""

    part = "network"


class GuestError(ApplianceError):
    """The guest is wrong."""


class ImageError(GuestError):
    """The disk image is the cause: it cannot be resolved, unpacked or booted."""


class VmaUnreachableError(GuestError):
    """The VMA gave no answer."""


class VmaRefusedError(GuestError):
    """The VMA answered with a failure; the message is the VMA's own."""


class StoreError(ApplianceError):
    """The database is wrong."""

    part = "database"


class SchemaVersionError(StoreError):
    """The database has another schema than this program."""


class UnexpectedEventError(AssertionError):
    """We are wrong: an event met a phase that declares nothing about it. Never caught to carry on."""
