"""The dialogs of the desktop, read and clicked at a client's display through nxproxy and nxagent."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.vma.wire import XState
from appliance.vma_client import Answer, ExpireAnswer, Told
from images import debian
from tests.support.clicking import Place, click, seen
from tests.support.vma_guest import SCREENS, Guest, guest, screen, until, viewer

pytestmark = [pytest.mark.host, pytest.mark.timeout(180)]

NOTIFIER = debian.OVERLAY / "usr/lib/qvd/notifier"


@pytest.fixture
def vm() -> Iterator[Guest]:
    with guest() as found:
        found.settings(**{f"vma.on_action.{action}": str(NOTIFIER) for action in ("expire", "message")})
        found.boot()
        with screen(found):
            yield found


def stamp(ahead: timedelta) -> str:
    return (datetime.now(UTC) + ahead).strftime("%Y-%m-%d %H:%M:%S")


def ask(vm: Guest, number: int, *, hard: timedelta | None = None, final: bool = False) -> bool:
    """Ask, on the clock of a host that is ten days ahead."""
    ahead = timedelta(days=10)
    limit = stamp(ahead + hard) if hard else None
    return vm.call(
        lambda client: client.expire(
            None, limit, ask=number, final=final, later_s=3600, postponements=2, now=stamp(ahead)
        )
    )


def answer(vm: Guest) -> ExpireAnswer:
    return vm.call(lambda client: client.expire_answer(20), timeout_s=30)


def read(vm: Guest, *words: str) -> dict[str, Place]:
    """Wait until all these words can be read on the client's display; where they stand."""
    found: dict[str, Place] = {}

    def readable() -> bool:
        found.clear()
        found.update(seen(f":{SCREENS}", vm.work / "display.png"))
        return set(words) <= set(found)

    until(readable, 30, f"{words}", lambda: f"read: {sorted(found)}\n{vm.logs()}")
    return found


def press(place: Place) -> None:
    click(f":{SCREENS}", place)


def dialogs(vm: Guest) -> list[int]:
    return vm.processes("notifier")


def one_dialog(vm: Guest) -> None:
    until(lambda: len(dialogs(vm)) == 1, 20, "one dialog", vm.logs)


def no_dialog(vm: Guest) -> None:
    until(lambda: not dialogs(vm), 20, "end of the dialog", vm.logs)


def test_without_a_session_nobody_is_asked_for_long(vm: Guest) -> None:
    assert ask(vm, 1)
    assert answer(vm) == ExpireAnswer(1, Answer.LATER)
    assert vm.call(lambda client: client.message("hello")) is Told.NOBODY
    assert "there is no X session" in vm.logs()


def test_the_user_is_asked_reminded_and_told(vm: Guest) -> None:
    vm.start(vm_user_uid="2001", vm_user_gid="2001")
    vm.wait(XState.LISTENING)
    viewer(vm)
    vm.wait(XState.CONNECTED)

    assert ask(vm, 1, hard=timedelta(hours=26, minutes=30))
    words = read(vm, "Restart", "now", "Later", "needs", "day", "hours.")
    assert "seconds" not in words
    (dialog,) = dialogs(vm)
    assert Path(f"/proc/{dialog}").stat().st_uid == 2001, "the dialog is the user's, not root's"
    subprocess.run(["xdotool", "key", "Return", "space"], env={"DISPLAY": f":{SCREENS}"}, check=True)

    assert ask(vm, 2, hard=timedelta(minutes=9), final=True)
    words = read(vm, "soon", "Save", "minutes", "Restart", "Later")
    assert "needs" not in words
    assert dialogs(vm) == [dialog], "the one that was open says more, and typing has not answered it"
    press(words["Later"])
    assert answer(vm) == ExpireAnswer(2, Answer.LATER)
    no_dialog(vm)

    assert ask(vm, 3)
    press(read(vm, "Restart")["Restart"])
    assert answer(vm) == ExpireAnswer(3, Answer.RESTART)
    no_dialog(vm)

    assert ask(vm, 4)
    one_dialog(vm)
    assert vm.call(lambda client: client.withdraw_expire(ask=4))
    assert answer(vm) == ExpireAnswer(4, Answer.LATER)
    no_dialog(vm)

    assert vm.call(lambda client: client.message("Lunch is ready.")) is Told.TOLD
    read(vm, "Message", "administrator", "Lunch")
    assert vm.call(lambda client: client.message("Dinner is late.", "Kitchen")) is Told.TOLD
    words = read(vm, "Kitchen", "Lunch", "Dinner", "OK")
    one_dialog(vm)
    press(words["OK"])
    no_dialog(vm)
    assert (vm.work / "run/messages").read_text() == ""

    assert ask(vm, 5)
    one_dialog(vm)
    os.kill(dialogs(vm)[0], signal.SIGKILL)
    assert answer(vm) == ExpireAnswer(5, Answer.LATER)
    assert ask(vm, 6)
    one_dialog(vm)
    vm.call(lambda client: client.x_stop())
    assert answer(vm) == ExpireAnswer(6, Answer.LATER), "whose session ends has not said yes"
