"""The host's end of the VMA RPC (protocol.md 3): one fresh connection per call, one reply, then close.

A real QVD VMA keeps the connection of `x_start` open for the whole session and writes a second reply there
that nobody asked for; so a reply ends where its `Content-Length` says and the connection is of no further
use. Proxies named in the environment never apply.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.errors import VmaRefusedError, VmaUnreachableError
from appliance.vma import wire
from appliance.vma.wire import Answer as Answer  # the host's other parts take it from here
from appliance.vma.wire import XState

ANSWER_MARGIN_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExpireAnswer:
    """What the guest's user has said to ask number `ask`; NONE if nobody was asked or nobody will answer."""

    ask: int | None
    answer: Answer


class Told(enum.Enum):
    """What became of a message: it is shown, nobody has a session there, or the guest has no hook for it."""

    TOLD = wire.TOLD
    NOBODY = wire.NOBODY_THERE
    NO_HOOK = None


@dataclass(frozen=True, slots=True)
class GuestLogs:
    """The last lines of what a guest's hooks have printed, and of its VMA's own log."""

    hooks: tuple[str, ...]
    vma: tuple[str, ...]


class VmaClient:
    """Calls the VMA of one guest. Every method raises VmaUnreachableError or VmaRefusedError."""

    def __init__(self, address: str, port: int = wire.PORT, *, timeout_s: float = 4.0) -> None:
        self._address, self._port, self._timeout_s = address, port, timeout_s

    def __repr__(self) -> str:
        return f"VmaClient({self._address}:{self._port})"

    async def ping(self) -> None:
        """Whether the guest is alive: returns if it is."""
        await self._call(wire.PING)

    async def x_state(self) -> XState:
        return self._state(wire.X_STATE, await self._call(wire.X_STATE))

    async def x_start(self, params: Mapping[str, str]) -> None:
        """Order a session, new or resumed; that it listens is learnt from `x_state`.

        All five of `qvd.client.{keyboard,os,link,geometry,fullscreen}` must be there for a real QVD VMA.
        """
        if not await self._call(wire.X_START, params):
            raise VmaRefusedError(f"VMA {self._address}: x_start was answered without a promise")

    async def x_suspend(self) -> XState:
        """Suspend the session. A suspend that was begun is answered `starting`, as QVD does."""
        return self._state(wire.X_SUSPEND, await self._call(wire.X_SUSPEND))

    async def x_stop(self) -> XState:
        return self._state(wire.X_STOP, await self._call(wire.X_STOP))

    async def poweroff(self) -> None:
        """Order the guest off; only its departure tells that it obeyed.

        A real QVD VMA reports a failure after it has begun, which looks like a hook's refusal: either way the
        caller waits for the departure until its own time is up.
        """
        reply = await self._exchange(wire.POWEROFF, {})
        try:
            self._value(wire.POWEROFF, reply)
        except VmaRefusedError as exc:
            if reply.status != 200:
                raise
            _log.warning("%s", exc)

    async def expire(
        self,
        soft: str | None,
        hard: str | None,
        *,
        ask: int,
        final: bool = False,
        later_s: int | None = None,
        postponements: int | None = None,
        now: str | None = None,
    ) -> bool:
        """Tell the guest's user that the desktop is due for a restart; True if an answer is to be waited for.

        The dates are as in the database, in UTC. `ask` numbers the asks of one VM, `final` is the warning
        before the hard limit. `later_s` is when the user would be asked again, if postponing is possible at
        all, and `postponements` how often it still is. `now` is our time, as the dates are written: what is
        left is counted on our clock. A real QVD VMA runs its hook, answers anything, and
        nobody will answer later: False. So is a refusal.
        """
        return await self._expire(
            {
                wire.EXPIRATION_SOFT: soft,
                wire.EXPIRATION_HARD: hard,
                wire.EXPIRATION_ASK: str(ask),
                wire.EXPIRATION_FINAL: "1" if final else None,
                wire.EXPIRATION_LATER: None if later_s is None else str(later_s),
                wire.EXPIRATION_NOW: now,
                wire.EXPIRATION_POSTPONEMENTS: None if postponements is None else str(postponements),
            }
        )

    async def withdraw_expire(self, *, ask: int) -> bool:
        """Take the question back, as the desktop is not due any more. True if it was still open.

        It then ends as "later". Only our notifier heeds this; another hook goes on asking. A real QVD VMA
        would run its hook, so this is for guests whose `expire` was answered with True.
        """
        return await self._expire({wire.EXPIRATION_ASK: str(ask), wire.EXPIRATION_WITHDRAWN: "1"})

    async def _expire(self, params: Mapping[str, str | None]) -> bool:
        try:
            value = await self._call(wire.EXPIRE, {k: v for k, v in params.items() if v is not None})
        except VmaRefusedError as exc:
            _log.info("%s", exc)
            return False
        return bool(value == Answer.ASKING.value)

    async def message(self, text: str, title: str = "") -> Told:
        """Show a message on the desktop. A real QVD VMA refuses: it knows no messages."""
        value = await self._call(wire.MESSAGE, {wire.MESSAGE_TEXT: text, wire.MESSAGE_TITLE: title})
        try:
            return Told(value)
        except ValueError:
            raise VmaRefusedError(
                f"VMA {self._address}: message was answered {str(value)[:40]!r}, which means nothing"
            ) from None

    async def hook_log(self, lines: int) -> GuestLogs:
        """The last `lines` (at most 500) of the guest's logs. A real QVD VMA refuses: it keeps none."""
        value = await self._call(wire.HOOK_LOG, {wire.LOG_LINES: str(lines)})
        try:
            return GuestLogs(*(_lines(value[name]) for name in ("hooks", "vma")))
        except (KeyError, TypeError):
            raise VmaRefusedError(f"VMA {self._address}: hook_log was answered without logs") from None

    async def expire_answer(self, wait_s: float) -> ExpireAnswer:
        """What the user answers, as soon as it is known; ASKING when `wait_s` (at most 30) is over.

        :raises VmaRefusedError: the VMA does not know the method, as a real QVD one: nobody will answer
        """
        wait = min(wait_s, wire.MAX_WAIT_S)
        limit_s = wait + ANSWER_MARGIN_S
        reply = await self._exchange(wire.EXPIRE_ANSWER, {wire.WAIT: f"{wait:g}"}, limit_s)
        return _answer(self._value(wire.EXPIRE_ANSWER, reply))

    def _state(self, method: str, value: Any) -> XState:
        try:
            return XState(value)
        except ValueError:
            raise VmaRefusedError(
                f"VMA {self._address}: {method} answered {str(value)[:40]!r}, which is no X state"
            ) from None

    async def _call(self, method: str, params: Mapping[str, str] | None = None) -> Any:
        return self._value(method, await self._exchange(method, params or {}))

    def _value(self, method: str, reply: wire.Reply) -> Any:
        try:
            return reply.value()
        except wire.CallFailed as exc:
            raise VmaRefusedError(f"VMA {self._address}: {method} failed: {exc}") from exc
        except wire.ReplyError as exc:
            raise VmaUnreachableError(f"VMA {self._address}: {method}: {exc}") from exc

    async def _exchange(
        self, method: str, params: Mapping[str, str], limit_s: float | None = None
    ) -> wire.Reply:
        where = f"VMA {self._address}:{self._port}: {method}"
        limit_s = self._timeout_s if limit_s is None else limit_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._dialogue(method, params)
        except TimeoutError as exc:
            raise VmaUnreachableError(f"{where}: no answer within {limit_s:g} s") from exc
        except OSError as exc:
            raise VmaUnreachableError(f"{where}: {exc.strerror or exc}") from exc
        except wire.ReplyError as exc:
            raise VmaUnreachableError(f"{where}: {exc}") from exc

    async def _dialogue(self, method: str, params: Mapping[str, str]) -> wire.Reply:
        reader, writer = await asyncio.open_connection(self._address, self._port)
        try:
            writer.write(wire.encode_call(method, params))
            parser = wire.ReplyParser()
            while data := await reader.read(16 * 1024):
                reply = parser.feed(data)
                if reply is not None:
                    return reply
            raise wire.ReplyError("the connection was closed before the answer")
        finally:
            writer.transport.abort()  # a second reply may be on its way; nobody waits for it


def _answer(value: Any) -> ExpireAnswer:
    """The guest's words as an answer; from words that make no sense nothing is to be expected."""
    try:
        ask, answer = value["ask"], Answer(value["answer"])
    except (KeyError, TypeError, ValueError):
        return ExpireAnswer(None, Answer.NONE)
    return ExpireAnswer(ask if type(ask) is int else None, answer)


def _lines(value: Any) -> tuple[str, ...]:
    """A guest's lines made harmless: what it says is shown on an administrator's terminal."""
    if not isinstance(value, list):
        raise TypeError
    return tuple(
        "".join(letter if letter.isprintable() else "?" for letter in line)
        for line in value
        if isinstance(line, str)
    )
