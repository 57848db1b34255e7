"""Who somebody is: the seam for authenticators, and local passwords behind it (protocol.md 1.3).

A password is never kept. What is remembered of a good one is a seal: an HMAC, under a key that
lives as long as the process, over login, password *and* the stored hash, so that a changed password
is forgotten at once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from appliance import passwords
from appliance.clock import Timers
from appliance.config import Settings
from appliance.l7r.calls import Credentials
from appliance.l7r.turns import Turns
from appliance.model import Secret, User, UserId
from appliance.ops.users import normalised_login
from appliance.storage.store import Store

T = TypeVar("T")

THREADS = 2
REMEMBERED_S = 30.0
REMEMBERED_MAX = 4096


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who the credentials belong to, if they are good; `seal` proves the same pair again."""

    user: User | None
    seal: bytes = b""
    repeated: bool = False
    """Whether the pair was accepted on this connection before: such a look is not counted."""


class Authenticator(Protocol):
    """Something that knows users by their credentials."""

    async def authenticate(
        self, settings: Settings, credentials: Credentials, seal: bytes, *, origin: str = ""
    ) -> Verdict:
        """Check `credentials`; `seal` is what the connection's last good verdict carried, or empty.

        What is slow is done in turns between origins: the machines from which clients come.

        :raises ProtocolError: 503, too much is asked from `origin`
        """
        ...

    def close(self) -> None:
        """Let go of threads and connections."""
        ...


class Chain:
    """Several authenticators, tried in order: the first that accepts wins."""

    def __init__(self, links: Sequence[Authenticator]) -> None:
        self._links = tuple(links)

    async def authenticate(
        self, settings: Settings, credentials: Credentials, seal: bytes, *, origin: str = ""
    ) -> Verdict:
        verdict = Verdict(None)
        for link in self._links:
            verdict = await link.authenticate(settings, credentials, seal, origin=origin)
            if verdict.user is not None:
                break
        return verdict

    def close(self) -> None:
        for link in self._links:
            link.close()


class LocalPasswords:
    """Users of our own table with argon2id hashes; the plugin `default`."""

    def __init__(self, store: Store, timers: Timers) -> None:
        self._store = store
        self._timers = timers
        self._turns = Turns(THREADS, "password")
        self._key = secrets.token_bytes(32)
        self._remembered: dict[bytes, float] = {}

    async def authenticate(
        self, settings: Settings, credentials: Credentials, seal: bytes, *, origin: str = ""
    ) -> Verdict:
        if not credentials.password.reveal():
            return Verdict(None)
        login = normalised_login(settings, credentials.login)
        user, stored = await self._account(login)
        found = self._seal(login, credentials.password, stored)
        repeated = hmac.compare_digest(found, seal)
        if not repeated and not self._remembers(found):
            if not await self._in_turn(origin, partial(passwords.matches, stored, credentials.password)):
                return Verdict(None)
            assert user is not None
            assert stored is not None
            if passwords.is_outdated(stored):
                stored = await self._rehash(origin, user, stored, credentials.password)
                found = self._seal(login, credentials.password, stored)
            self._remember(found)
        if user is None or not user.enabled:
            self._remembered.pop(found, None)
            return Verdict(None)
        return Verdict(user, found, repeated)

    def close(self) -> None:
        self._turns.close()

    async def _account(self, login: str) -> tuple[User | None, Secret | None]:
        async with self._store.read() as tx:
            user = await tx.users.by_login(login)
            stored = await tx.users.password_hash(UserId(0) if user is None else user.id)
        return user, stored

    async def _rehash(self, origin: str, user: User, stored: Secret, password: Secret) -> Secret:
        renewed = await self._in_turn(origin, partial(passwords.hash_password, password))
        async with self._store.write() as tx:
            if await tx.users.password_hash(user.id) != stored:
                return stored
            await tx.users.set_password_hash(user.id, renewed)
        return renewed

    async def _in_turn(self, origin: str, work: Callable[[], T]) -> T:
        return await self._turns.run(origin, work)

    def _seal(self, login: str, password: Secret, stored: Secret | None) -> bytes:
        parts = (login, password.reveal(), "" if stored is None else stored.reveal())
        message = b"".join(hashlib.sha256(part.encode()).digest() for part in parts)
        return hmac.digest(self._key, message, "sha256")

    def _remembers(self, seal: bytes) -> bool:
        return self._remembered.get(seal, 0.0) > self._timers.monotonic()

    def _remember(self, seal: bytes) -> None:
        now = self._timers.monotonic()
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered = {known: until for known, until in self._remembered.items() if until > now}
        if len(self._remembered) < REMEMBERED_MAX:
            self._remembered[seal] = now + REMEMBERED_S
