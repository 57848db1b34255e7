"""Local passwords over a real table: what is remembered, what is forgotten, what is renewed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance import passwords
from appliance.config import Settings
from appliance.errors import ConfigError, UsageError
from appliance.l7r.auth import REMEMBERED_S, Chain, LocalPasswords, Verdict
from appliance.l7r.calls import Credentials
from appliance.l7r.services import make_authenticator
from appliance.model import Secret, UserId
from appliance.storage import schema
from tests.support.broker import ALICE, CHEAP, PASSWORD, Installation, installation

SETTINGS = Settings({})
RIGHT = Credentials(ALICE, Secret(PASSWORD))


class Elapsing:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        self.elapsed += seconds


class Counted(LocalPasswords):
    """Local passwords that count the slow part."""

    slow = 0

    async def _in_turn(self, origin, work):  # type: ignore[no-untyped-def]
        self.slow += 1
        return await super()._in_turn(origin, work)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


async def test_a_good_password_is_verified_once_in_a_while(node: Installation) -> None:
    clock = Elapsing()
    local = Counted(node.store, clock)
    for _ in range(3):
        assert (await local.authenticate(SETTINGS, RIGHT, b"")).user is not None
    once = local.slow
    clock.elapsed = REMEMBERED_S + 1
    assert (await local.authenticate(SETTINGS, RIGHT, b"")).user is not None
    assert local.slow == once + 1
    local.close()


async def test_a_bad_password_is_verified_every_time(node: Installation) -> None:
    local = Counted(node.store, Elapsing())
    for _ in range(3):
        verdict = await local.authenticate(SETTINGS, Credentials(ALICE, Secret("bad")), b"")
        assert verdict.user is None
    assert local.slow == 3
    local.close()


async def test_an_unknown_login_takes_a_verification_too(node: Installation) -> None:
    local = Counted(node.store, Elapsing())
    assert (await local.authenticate(SETTINGS, Credentials("nobody", Secret("x")), b"")).user is None
    assert local.slow == 1
    local.close()


async def test_an_empty_password_is_refused_without_a_look(node: Installation) -> None:
    local = Counted(node.store, Elapsing())
    assert (await local.authenticate(SETTINGS, Credentials(ALICE, Secret("")), b"")).user is None
    assert local.slow == 0
    local.close()


async def test_a_changed_password_is_forgotten_at_once(node: Installation) -> None:
    local = LocalPasswords(node.store, Elapsing())
    seal = (await local.authenticate(SETTINGS, RIGHT, b"")).seal
    assert (await local.authenticate(SETTINGS, RIGHT, seal)).repeated
    async with node.store.write() as tx:
        await tx.users.set_password_hash(UserId(1), Secret(CHEAP.hash("another")))
    assert (await local.authenticate(SETTINGS, RIGHT, seal)).user is None
    local.close()


async def test_a_seal_of_one_login_is_no_good_for_another(node: Installation) -> None:
    local = LocalPasswords(node.store, Elapsing())
    seal = (await local.authenticate(SETTINGS, RIGHT, b"")).seal
    verdict = await local.authenticate(SETTINGS, Credentials("bob", Secret("guess")), seal)
    assert verdict.user is None
    local.close()


async def test_an_outdated_hash_is_renewed(node: Installation) -> None:
    local = LocalPasswords(node.store, Elapsing())
    await local.authenticate(SETTINGS, RIGHT, b"")
    async with node.store.read() as tx:
        stored = await tx.users.password_hash(UserId(1))
    assert stored is not None
    assert not passwords.is_outdated(stored)
    assert passwords.matches(stored, Secret(PASSWORD))
    local.close()


@pytest.mark.parametrize("stored", [None, "", "OtpwlV7yCkzpwSGacKEy61OkdyUJWPRn8asW0YNMQZ4"])
async def test_a_user_without_a_usable_hash_cannot_log_in(node: Installation, stored: str | None) -> None:
    await node.change(schema.users, password=stored)
    local = LocalPasswords(node.store, Elapsing())
    assert (await local.authenticate(SETTINGS, RIGHT, b"")).user is None
    local.close()


def test_an_empty_password_cannot_be_set() -> None:
    with pytest.raises(UsageError):
        passwords.hash_password(Secret(""))


class Guestbook:
    """An authenticator that knows nobody but one user by one password."""

    def __init__(self, node: Installation, password: str) -> None:
        self._node, self._password = node, password
        self.asked = 0
        self.closed = False

    async def authenticate(
        self, settings: Settings, credentials: Credentials, seal: bytes, *, origin: str = ""
    ) -> Verdict:
        self.asked += 1
        if credentials.password.reveal() != self._password:
            return Verdict(None)
        async with self._node.store.read() as tx:
            return Verdict(await tx.users.by_login(credentials.login), b"guestbook")

    def close(self) -> None:
        self.closed = True


async def test_the_first_of_several_that_accepts_wins(node: Installation) -> None:
    first, last = Guestbook(node, "door"), Guestbook(node, "window")
    chain = Chain([first, LocalPasswords(node.store, Elapsing()), last])
    for password, asked in (("door", (1, 0)), (PASSWORD, (2, 0)), ("window", (3, 1))):
        verdict = await chain.authenticate(SETTINGS, Credentials(ALICE, Secret(password)), b"")
        assert verdict.user is not None
        assert (verdict.user.login, first.asked, last.asked) == (ALICE, *asked)
    assert (await chain.authenticate(SETTINGS, Credentials(ALICE, Secret("bad")), b"")).user is None
    chain.close()
    assert first.closed
    assert last.closed


async def test_an_unknown_plugin_is_a_wrong_setting(node: Installation) -> None:
    settings = Settings({"l7r.auth.plugins": "kerberos"})
    with pytest.raises(ConfigError, match=r"l7r\.auth\.plugins"):
        make_authenticator(settings, node.store, Elapsing())  # type: ignore[arg-type]
