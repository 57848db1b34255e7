"""VMAs whose users are asked to restart, and answer when the test says so."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from appliance.model import VmId
from appliance.vma import wire
from appliance.vma.wire import Answer
from tests.support.host import Vma

TURN_S = 0.02
"""How long a call that waits for an answer is kept."""


@dataclass
class Asked:
    """What a guest was asked, and what its user says."""

    ask: int | None = None
    answer: Answer = Answer.NONE
    questions: list[dict[str, str]] = field(default_factory=list)


class Users:
    """The users of all guests, by VM."""

    def __init__(self) -> None:
        self._asked: dict[VmId, Asked] = {}

    def of(self, vm_id: VmId) -> Asked:
        """The user of one VM."""
        return self._asked.setdefault(vm_id, Asked())

    def answers(self, vm_id: VmId, answer: Answer) -> bool:
        """Let a user answer; false if nobody asks."""
        asked = self.of(vm_id)
        if asked.answer is not Answer.ASKING:
            return False
        asked.answer = answer
        return True

    def reboots(self, vm_id: VmId) -> None:
        """A guest that begins anew knows of no question."""
        self._asked[vm_id] = Asked()

    def vma(self, vm_id: VmId) -> Vma:
        """The VMA of a guest."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, OSError):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._reply(vm_id, head))

        return serve

    async def _reply(self, vm_id: VmId, head: bytes) -> bytes:
        (request,) = wire.RequestParser().feed(head)
        asked = self.of(vm_id)
        if request.call == wire.EXPIRE and wire.EXPIRATION_WITHDRAWN in request.params:
            self.answers(vm_id, Answer.LATER)
            return wire.success(Answer.NONE.value)
        if request.call == wire.EXPIRE:
            asked.ask = int(request.params[wire.EXPIRATION_ASK])
            asked.answer = Answer.ASKING
            asked.questions.append(dict(request.params))
            return wire.success(Answer.ASKING.value)
        if request.call == wire.EXPIRE_ANSWER:
            await asyncio.sleep(TURN_S if asked.answer is Answer.ASKING else 0)
            return wire.success({"ask": asked.ask, "answer": asked.answer.value})
        return wire.success(1)
