"""The question whether a desktop may be restarted, asked and answered over the RPC by the real VMA."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.vma_client import Answer, ExpireAnswer
from tests.support.loopback_vma import LoopbackVma, loopback_vma, wait_for

pytestmark = pytest.mark.host

SOFT, HARD = "2030-01-31 18:00:00", "2030-02-01 18:00:00"
# Notes its arguments, then asks until a file holds its exit status.
HOOK = 'echo "$@" >> $WORK/asked\nwhile ! test -s $WORK/status; do sleep 0.05; done\nexit $(cat $WORK/status)'


@pytest.fixture
def vma(tmp_path: Path) -> Iterator[LoopbackVma]:
    with loopback_vma(tmp_path) as found:
        found.settings(**{"vma.on_action.expire": found.script("hook", HOOK)})
        found.boot()
        yield found


def asked(vma: LoopbackVma) -> list[str]:
    path = vma.work / "asked"
    wait_for(lambda: path.exists() and bool(path.read_text()), vma.logs)
    return path.read_text().splitlines()


def decide(vma: LoopbackVma, status: int) -> None:
    (vma.work / "status.new").write_text(f"{status}\n")
    (vma.work / "status.new").rename(vma.work / "status")


async def test_a_question_is_asked_at_once_and_answered_when_the_user_does(vma: LoopbackVma) -> None:
    assert await vma.client.expire_answer(30) == ExpireAnswer(None, Answer.NONE)
    assert await vma.client.expire(SOFT, HARD, ask=3, later_s=3600, postponements=2)
    assert await vma.client.expire_answer(0) == ExpireAnswer(3, Answer.ASKING)
    assert asked(vma) == [
        f"vm.expiration.soft {SOFT} vm.expiration.hard {HARD} qvd.vm.session.state stopped"
        " qvd.hook.on_action expire vm.expiration.ask 3 vm.expiration.later 3600"
        f" vm.expiration.postponements 2 vm.expiration.file {vma.work}/run/expire.state"
        f" vm.desktop.pidfile {vma.work}/run/nxagent.pid"
    ]
    waiting = [asyncio.create_task(vma.client.expire_answer(30)) for _ in range(2)]
    decide(vma, 0)
    assert await asyncio.gather(*waiting) == [ExpireAnswer(3, Answer.RESTART)] * 2
    assert await vma.client.expire_answer(30) == ExpireAnswer(3, Answer.RESTART), "it is kept"


@pytest.mark.parametrize("status", [1, 77, 127])
async def test_any_other_exit_status_means_later(vma: LoopbackVma, status: int) -> None:
    await vma.client.expire(SOFT, None, ask=1)
    decide(vma, status)
    assert await vma.client.expire_answer(30) == ExpireAnswer(1, Answer.LATER)


async def test_two_hooks_never_ask_at_once_but_the_question_changes(vma: LoopbackVma) -> None:
    assert await vma.client.expire(SOFT, None, ask=1)
    state = vma.work / "run/expire.state"
    for ask in (2, 3):
        assert await vma.client.expire(SOFT, HARD, ask=ask, final=True)
        assert f'"vm.expiration.ask": "{ask}", "vm.expiration.final": "1"' in state.read_text()
    assert await vma.client.expire_answer(0.05) == ExpireAnswer(3, Answer.ASKING)
    decide(vma, 0)
    assert await vma.client.expire_answer(30) == ExpireAnswer(3, Answer.RESTART)
    assert len(asked(vma)) == 1
    (vma.work / "status").unlink()
    assert await vma.client.expire(SOFT, None, ask=4)
    assert await vma.client.expire_answer(0) == ExpireAnswer(4, Answer.ASKING)


async def test_a_withdrawn_question_is_marked_and_none_is_begun(vma: LoopbackVma) -> None:
    assert not await vma.client.withdraw_expire(ask=1)
    assert await vma.client.expire_answer(30) == ExpireAnswer(None, Answer.NONE)
    assert await vma.client.expire(SOFT, None, ask=2)
    assert await vma.client.withdraw_expire(ask=2)
    assert '"vm.expiration.withdrawn": "1"' in (vma.work / "run/expire.state").read_text()


async def test_without_a_hook_nobody_is_asked(vma: LoopbackVma) -> None:
    vma.kill()
    vma.settings()
    vma.boot()
    assert not await vma.client.expire(SOFT, HARD, ask=1)
    assert await vma.client.expire_answer(30) == ExpireAnswer(None, Answer.NONE)


async def test_the_answer_survives_the_vma(vma: LoopbackVma) -> None:
    assert await vma.client.expire(SOFT, None, ask=5)
    asked(vma)
    vma.kill()
    vma.boot()
    assert await vma.client.expire_answer(0) == ExpireAnswer(5, Answer.ASKING)
    assert await vma.client.expire(SOFT, HARD, ask=6), "the hook from before goes on asking"
    decide(vma, 0)
    assert await vma.client.expire_answer(30) == ExpireAnswer(6, Answer.RESTART)
    vma.kill()
    vma.boot()
    assert await vma.client.expire_answer(30) == ExpireAnswer(6, Answer.RESTART)
    assert len(asked(vma)) == 1


async def test_an_answer_given_while_no_vma_was_there_is_found(vma: LoopbackVma) -> None:
    assert await vma.client.expire(SOFT, None, ask=5)
    asked(vma)
    vma.kill()
    decide(vma, 0)
    wait_for(lambda: (vma.work / "run/expire.answer").exists(), vma.logs)
    vma.boot()
    assert await vma.client.expire_answer(30) == ExpireAnswer(5, Answer.RESTART)


async def test_what_an_earlier_life_of_the_guest_has_left_counts_for_nothing(vma: LoopbackVma) -> None:
    assert await vma.client.expire(SOFT, None, ask=5)
    decide(vma, 0)
    assert await vma.client.expire_answer(30) == ExpireAnswer(5, Answer.RESTART)
    vma.kill()
    state = vma.work / "run/expire.state"
    state.write_text(state.read_text().replace('"boot": "', '"boot": "another '))
    vma.boot()
    assert await vma.client.expire_answer(30) == ExpireAnswer(None, Answer.NONE)


async def test_a_hook_that_asks_for_too_long_is_ended_as_later(vma: LoopbackVma) -> None:
    vma.kill()
    vma.settings(vma__expire__timeout="0.3", **{"vma.on_action.expire": str(vma.work / "hook")})
    vma.boot()
    assert await vma.client.expire(SOFT, None, ask=1)
    assert await vma.client.expire_answer(30) == ExpireAnswer(1, Answer.LATER)
    assert "took longer than its time limit" in vma.logs()


async def test_nonsense_is_refused(vma: LoopbackVma) -> None:
    for wait in ("x", "-1", "nan", "31", "inf"):
        answer = await raw(vma, f"expire_answer?wait={wait}")
        assert b'"","wait is not a number of seconds' in answer
    assert b"a parameter contains a NUL byte" in await raw(vma, "expire?vm.expiration.soft=a%00b")
    assert not (vma.work / "asked").exists()


async def raw(vma: LoopbackVma, call: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", vma.port)
    writer.write(f"GET /vma/{call} HTTP/1.1\r\n\r\n".encode())
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer
