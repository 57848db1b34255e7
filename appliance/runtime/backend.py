"""The seams to a hypervisor and to its disks, small enough to fake.

Everything computable (names, addresses, paths, limits) is computed before and comes in a
`GuestSpec`. Every effect is idempotent: create if absent, delete if present, converge; after a
crash any of them may be done again. One contract suite runs on every implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Protocol

from appliance.model import DiId, Mark, Usage, VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSpec:
    """One guest, fully decided: what `define` turns into a configuration."""

    mark: Mark
    hostname: str
    memory_mib: int
    cpus: float | None
    processes: int
    """How many processes and threads it may have at once."""
    address: IPv4Interface
    gateway: str
    resolver: str | None
    domain: str | None
    mac: str
    asks_dhcp: bool = False
    """Whether it does not know its address, and is told when it asks for it."""
    bridge: str
    interface: str
    """Name of the host's end of the guest's link."""
    subid_first: int
    """First host id of the guest's own range (model.SUBID_COUNT ids long)."""
    home_mib: int | None
    root_mib: int | None
    """How much it may write into its root; None: as much as the pool has."""
    keep_root: bool
    """Whether a root of the same DI survives a restart (`vm.overlay.persistent`)."""
    io_weight: int | None = None
    """What a busy disk gives it beside others; None: as much as them."""

    @property
    def vm_id(self) -> VmId:
        return self.mark.vm_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A guest of ours that runs here, as its monitor and init process show it."""

    mark: Mark
    init_pid: int | None
    init_started: int | None
    """Start time of init in clock ticks since boot (proc(5), field 22): a pid alone is reused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A guest that is gone, whoever ended it."""

    vm_id: VmId


class ConsoleLine(Protocol):
    """The line to a guest's login, held by the guest's own monitor."""

    async def open(self) -> int:
        """A descriptor of the line, non-blocking, to be closed by the caller; one holder at a time.

        :raises BackendError: the guest does not run, or somebody else holds the line
        """
        ...

    def close(self) -> None:
        """Let somebody else have the line; does not close its descriptor."""
        ...


class Backend(Protocol):
    """A hypervisor."""

    @property
    def sees_departures(self) -> bool:
        """Whether it notices by itself that a guest has ended; not so where others run the guests."""
        ...

    async def check(self) -> None:
        """Whether it can work here at all.

        :raises BackendError: with the remedy
        """
        ...

    async def survey(self) -> Mapping[VmId, Sighting]:
        """What runs here with our installation's mark, whoever started it and in whichever namespace."""
        ...

    async def adopt(self, guest: GuestSpec) -> None:
        """Take up a guest found running: follow its end, make its link reachable from here again.

        One that has ended meanwhile departs at once.
        """
        ...

    async def define(self, guest: GuestSpec) -> None:
        """Write the guest's configuration."""
        ...

    async def launch(self, vm_id: VmId) -> None:
        """Start a defined guest; returns when its init runs, under the limits that were asked for.

        :raises BackendError: it cannot, or something already runs on that root
        """
        ...

    async def stop(self, vm_id: VmId) -> None:
        """Ask the guest's init to end it; returns at once. The end comes as a departure."""
        ...

    async def kill(self, vm_id: VmId) -> None:
        """End the guest without asking; returns when nothing of it runs any more."""
        ...

    async def erase(self, vm_id: VmId) -> None:
        """Remove what `define` and `launch` left; the guest must not run."""
        ...

    def departures(self) -> AsyncIterator[Departure]:
        """Every guest launched or adopted here, once, when it is gone."""
        ...

    def console(self, vm_id: VmId) -> ConsoleLine:
        """The line to the guest's login."""
        ...

    async def console_tail(self, vm_id: VmId, lines: int) -> str:
        """The last lines of the guest's boot messages, harmless to print; empty if there are none."""
        ...

    async def sample(self, vm_id: VmId) -> Usage:
        """What the guest uses now."""
        ...


class Disks(Protocol):
    """Roots from images, and homes."""

    @property
    def needs_image(self) -> bool:
        """Whether a root is made from an image; not where others make the guests."""
        ...

    async def clone_root(self, mark: Mark, *, keep: bool, limit_mib: int | None = None) -> Path:
        """A writable root of the mark's DI for its VM: fresh, or with `keep` the one already there.

        The guest may write `limit_mib` into it, or as much as there is if that is None.

        :raises VolumeError: the pool is full or the image is not there
        """
        ...

    async def ensure_home(self, mark: Mark, *, size_mib: int | None) -> Path:
        """The home of the mark's VM, made if it has none, and used with the mark's DI from now on.

        :raises VolumeError: there is a home with another owner's mark
        """
        ...

    async def home_used_with(self, mark: Mark) -> DiId | None:
        """The DI with which the home of the mark's VM was used last; None if we keep no home of it.

        :raises VolumeError: there is a home with another owner's mark
        """
        ...

    def home_aside(self, vm_id: VmId, at: datetime) -> Path | None:
        """Where a snapshot of the VM's home would be at that instant; None where none can be taken."""
        ...

    async def snapshot_home(self, mark: Mark, path: Path) -> bool:
        """Keep the home of the mark's VM as it is at `path`; false if there is none, or it cannot be at once.

        :raises VolumeError: the pool is full, or there is a home with another owner's mark
        """
        ...

    async def is_home_as_in(self, mark: Mark, path: Path) -> bool:
        """Whether nothing has changed in the home of the mark's VM since the snapshot at `path` was taken."""
        ...

    def aside(self, vm_id: VmId, at: datetime) -> Path | None:
        """Where the VM's root would be put aside at that instant; None where nothing can be kept."""
        ...

    async def put_aside(self, vm_id: VmId, path: Path) -> bool:
        """Move the VM's root to `path`, for whoever wants to look at it; false if there is no root of ours.

        :raises VolumeError: it cannot be moved
        """
        ...

    async def erase_root(self, vm_id: VmId) -> None:
        """Remove the VM's root; its home stays."""
        ...


class Fences(Protocol):
    """What keeps a guest to its own address."""

    async def begin(self, guests: Sequence[GuestSpec]) -> None:
        """Put the rules in force for the guests that a new daemon finds, and for no other, in one go."""
        ...

    async def fence(self, guest: GuestSpec) -> None:
        """Put the guest's rules in force."""
        ...

    async def unfence(self, vm_id: VmId) -> None:
        """Remove them."""
        ...
