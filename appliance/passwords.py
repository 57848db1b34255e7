"""Password hashes: argon2id, with the library's current parameters.

A check takes 50 to 200 ms of one processor and 64 MiB, on purpose: run it in a thread.
"""

from __future__ import annotations

import secrets
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from appliance.errors import UsageError
from appliance.model import Secret

_HASHER = PasswordHasher()


def hash_password(password: Secret) -> Secret:
    """What to store of a password.

    :raises UsageError: it is empty
    """
    if not password.reveal():
        raise UsageError("an empty password is not allowed")
    return Secret(_HASHER.hash(password.reveal().encode()))


def matches(stored: Secret | None, password: Secret) -> bool:
    """Whether `password` is the one of which `stored` was kept.

    Without a stored hash the answer is no and takes as long, so that nobody learns which logins exist.
    """
    against = _nobodys_hash() if stored is None else stored
    try:
        same = _HASHER.verify(against.reveal(), password.reveal().encode())
    except (VerificationError, InvalidHashError):
        return False
    return same and stored is not None


def is_outdated(stored: Secret) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(stored.reveal())


@cache
def _nobodys_hash() -> Secret:
    return hash_password(Secret(secrets.token_urlsafe()))
