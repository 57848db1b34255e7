"""Who may have how much of the pool: each guest its own limits, and all of them not the host's reserve.

Limits of one guest protect its neighbours; the limit of the group in which all of them are protects the
host: database, imports and daemon go on writing when the guests have filled everything else. When the
sum is full, every guest's writes fail.

A full qgroup of a root counts the image's files as well, so its limit is the image's size and what
the guest may add. (Limiting what the root has for itself alone would not hold: a guest can share
data between its root and its home, and take turns in owning it.)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from appliance import config
from appliance.config import Settings
from appliance.model import InstallationId
from appliance.storage import quotas, subvolumes
from appliance.storage.quotas import Mode
from appliance.values import Portion

logger = logging.getLogger(__name__)

DEFAULT_RESERVE = Portion(0.05, 0)
LEAST_RESERVE = 256 << 20
LARGEST_SHARE = 4
"""A reserve is at most one part in so many, however small the pool."""
STEP = 1 << 20
"""A limit of the group is not moved for less, in bytes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say about the pool."""

    quota: str = "auto"
    reserve: Portion = DEFAULT_RESERVE


def policy(settings: Settings) -> Policy:
    """The policy of the settings in force."""
    return Policy(settings[config.POOL_QUOTA], settings[config.POOL_RESERVE])


def group_of(pool: Path, installation: InstallationId) -> int | None:
    """The group of an installation that a daemon has set up on its pool, if there is one.

    :raises OSError: it is no btrfs
    """
    group = quotas.group_id(int(installation, 16))
    counted = quotas.can_group(quotas.mode(pool)) and quotas.use(pool, group) is not None
    return group if counted else None


def reserve_bytes(wanted: Portion, size: int) -> int:
    """How much of a pool of `size` bytes guests cannot have: what is wanted, within reason."""
    least = LEAST_RESERVE if wanted.share else 0
    return min(max(wanted.of(size), least), size // LARGEST_SHARE)


class Shares:
    """The limits on one pool of one installation."""

    def __init__(self, pool: Path, installation: InstallationId, wanted: Policy) -> None:
        self._pool = pool
        self._number = int(installation, 16)
        self._wanted = wanted
        self._mode = Mode.NONE
        self._group: int | None = None
        self._told = False

    @property
    def group(self) -> int | None:
        """The group that images, roots and homes enter at their making, if there is one."""
        return self._group

    def set_up(self, existing: Iterable[Path], *, new: bool) -> None:
        """Let the pool count, and put what exists into the group; `new`: no guest has written anything yet.

        :raises OSError: the kernel refuses
        """
        if self._wanted.quota == "none":
            self._mode = quotas.mode(self._pool)
            return
        self._mode = quotas.mode(self._pool)
        if self._mode is Mode.NONE:
            logger.info("the pool begins to count pool=%s", self._pool)
            quotas.enable(self._pool, simple=self._prefers_simple(new))
            self._mode = quotas.mode(self._pool)
        if self._mode is Mode.QGROUP:
            quotas.stay_consistent(self._pool)
        if quotas.can_group(self._mode):
            self._group = quotas.make_group(self._pool, self._number)
            inside = quotas.members(self._pool, self._group)
            for path in existing:
                if (number := subvolumes.id_of(path)) not in inside:
                    quotas.join(self._pool, number, self._group)
        else:
            logger.warning(
                "no reserve is kept for the host: Linux before 6.9 cannot count roots together pool=%s",
                self._pool,
            )
        if not quotas.is_consistent(self._pool):
            quotas.rescan(self._pool)
            quotas.await_rescan(self._pool)
        self.keep_reserve()

    def _prefers_simple(self, new: bool) -> bool:
        return self._wanted.quota == "simple" or (
            self._wanted.quota == "auto" and new and quotas.knows_simple()
        )

    def enter(self, path: Path) -> None:
        """Put a subvolume of which there is no snapshot yet into the group.

        :raises OSError: the kernel refuses
        """
        if self._group is not None:
            number = subvolumes.id_of(path)
            if number not in quotas.members(self._pool, self._group):
                quotas.join(self._pool, number, self._group)

    def see_to_the_count(self) -> None:
        """Let the pool count anew if it has lost count, and with that lets everybody write what they like.

        :raises OSError: the kernel refuses
        """
        if self._mode is Mode.QGROUP and not quotas.is_consistent(self._pool):
            logger.warning("the pool has lost count and counts anew; limits hold no more until then")
            quotas.stay_consistent(self._pool)
            quotas.rescan(self._pool)

    def limit_root(self, root: Path, base: Path, size_mib: int | None) -> None:
        """Let a guest write so much into its root.

        :raises OSError: the kernel refuses
        """
        size = None if size_mib is None else size_mib << 20
        if size is not None and self._mode is Mode.QGROUP:
            image = quotas.use(self._pool, subvolumes.id_of(base))
            size += image.referenced if image else 0
        self._limit(root, size)

    def limit_home(self, home: Path, size_mib: int | None, *, snapshots: int = 0) -> None:
        """Let a home grow so far, whatever its `snapshots` hold.

        Simple quotas count for a home what it has written for as long as anybody holds it: what a user
        deletes goes on counting while it is in a snapshot. Each snapshot holds a home at most, so that much
        more is allowed for each.

        :raises OSError: the kernel refuses
        """
        homes = 1 + snapshots if self._mode is Mode.SIMPLE else 1
        self._limit(home, None if size_mib is None else homes * size_mib << 20)

    def keep_reserve(self) -> None:
        """Move the guests' common limit to where it must be now; count anew if counts are lost.

        :raises OSError: the kernel refuses
        """
        self.see_to_the_count()
        if self._group is None:
            return
        status = os.statvfs(self._pool)
        size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
        used = quotas.use(self._pool, self._group)
        left = max(0, free - reserve_bytes(self._wanted.reserve, size))
        wanted = (used.referenced if used else 0) + left
        there = quotas.limit_of(self._pool, self._group)
        if there is None or abs(there - wanted) >= STEP:
            quotas.limit(self._pool, wanted, group=self._group)

    def _limit(self, path: Path, size: int | None) -> None:
        if self._mode is Mode.NONE or self._wanted.quota == "none":
            if size is not None and not self._told:
                self._told = True
                logger.warning("limits of roots and homes have no effect: storage.pool.quota = none")
            return
        quotas.limit(path, size)
