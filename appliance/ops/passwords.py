"""Password hashes: argon2id, computed in a thread because it is slow on purpose.

The parameters are the library's (RFC 9106's for constrained memory); a hash made with others is
still verified, and `outdated` says that it should be made anew.
"""

from __future__ import annotations

import asyncio
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from appliance.model import Secret

_hasher = PasswordHasher()


async def hashed(password: Secret) -> Secret:
    """The hash under which a password is stored."""
    return Secret(await asyncio.to_thread(_hasher.hash, password.reveal()))


async def matches(stored: Secret | None, password: Secret) -> bool:
    """Whether a password is the stored one. Without a stored hash it takes as long, and is not."""
    fits = await asyncio.to_thread(_verify, stored, password)
    return fits and stored is not None


def outdated(stored: Secret) -> bool:
    """Whether a hash that just matched should be replaced by one made with today's parameters."""
    return _hasher.check_needs_rehash(stored.reveal())


@cache
def _nobodys_hash() -> Secret:
    """What an unknown login is compared with, so that the time taken does not tell who exists."""
    return Secret(_hasher.hash("nobody"))


def _verify(stored: Secret | None, password: Secret) -> bool:
    known = _nobodys_hash() if stored is None else stored
    try:
        return _hasher.verify(known.reveal(), password.reveal())
    except (VerificationError, InvalidHashError):
        return False
