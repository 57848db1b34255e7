"""All sixteen hooks of a guest over the life of a real desktop: when they run, and with which arguments."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.vma.wire import XState
from appliance.vma_client import Answer
from tests.support.vma_guest import Guest, guest, screen, until, viewer

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

SIXTEEN = (
    *(
        f"vma.on_action.{name}"
        for name in ("pre-connect", "connect", "suspend", "stop", "poweroff", "expire")
    ),
    "vma.on_action.disconnect",  # the key exists, and nothing ever runs it (protocol.md 4.7)
    *(f"vma.on_provisioning.{name}" for name in ("mount_home", "add_user", "after_add_user")),
    *(f"vma.on_state.{name}" for name in ("connected", "suspended", "disconnected")),
    *(f"internal.vma.on_printing.{name}" for name in ("connected", "suspended", "stopped")),
)
assert len(SIXTEEN) == 16
# Named by its key, it notes key and arguments, a line each time. It provisions where it stands in for that.
NOTE = """#!/bin/sh
key=$(basename "$0"); where=$(dirname "$0")
printf '%s|%s\\n' "$key" "$*" >> "$where/../noted"
echo "word_of_${key#vma.on_action.}_to_the_log"
case $key in
    *.add_user) useradd -m -u 2001 -s /bin/bash alice ;;
esac
"""
STARTED = (
    "qvd.client.keyboard pc105/us qvd.client.os linux qvd.client.link lan qvd.client.geometry 800x600"
    f" qvd.client.fullscreen  qvd.vm.user.name alice qvd.slave.key {'K' * 64} qvd.client.printing.enabled 1"
    " qvd.vm.user.groups  qvd.vm.user.home /home/alice"
)
PRINTING = "qvd.printing.enabled 1 qvd.client.os linux qvd.printing.port 2077 "


@pytest.fixture
def vm() -> Iterator[Guest]:
    with guest() as found:
        place = found.work / "hooks"
        place.mkdir()
        for key in SIXTEEN:
            (place / key).write_text(NOTE)
            (place / key).chmod(0o755)
        found.settings(
            vma__printing__enable="1",
            command__poweroff=f"touch {found.work}/off",
            **{key: str(place / key) for key in SIXTEEN},
        )
        found.boot()
        with screen(found):
            yield found


class Notes:
    """What the hooks have noted, read piece by piece."""

    def __init__(self, vm: Guest) -> None:
        self.vm, self._read = vm, 0

    def next(self, number: int) -> list[tuple[str, str]]:
        """The next so many calls: key and arguments. There are no more at that moment."""
        until(lambda: len(self.all()) >= self._read + number, 30, f"{number} hooks", self._evidence)
        found = self.all()[self._read :]
        assert len(found) == number, self._evidence()
        self._read += number
        return found

    def all(self) -> list[tuple[str, str]]:
        path = self.vm.work / "noted"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(key, words) for key, _, words in (line.partition("|") for line in lines)]

    def _evidence(self) -> str:
        return "\n".join(map(str, self.all())) + self.vm.logs()


def state_and_printing(notes: Notes, state: str, x_state: str, printing: str) -> None:
    """Both are detached, at the same instant: in any order."""
    told = PRINTING if (notes.vm.work / "run/printing.conf").exists() else ""
    assert sorted(notes.next(2)) == [
        (f"internal.vma.on_printing.{printing}", f"{told}qvd.hook.on_printing {printing}"),
        (f"vma.on_state.{state}", f"qvd.hook.on_state {x_state}"),
    ]


def test_each_of_the_sixteen_in_order_with_its_arguments(vm: Guest) -> None:
    notes = Notes(vm)
    state_and_printing(notes, "disconnected", "stopped", "stopped")

    vm.start(client_printing_enabled="1")
    vm.wait(XState.LISTENING)
    action = "{} qvd.vm.session.state {} qvd.hook.on_action {}".format
    assert notes.next(5) == [
        ("vma.on_action.pre-connect", action(STARTED, "stopped", "pre_connect")),
        *(
            (f"vma.on_provisioning.{name}", f"{STARTED} qvd.hook.on_provisioning {name}")
            for name in ("mount_home", "add_user", "after_add_user")
        ),
        ("vma.on_action.connect", action(STARTED, "starting", "connect")),
    ]
    viewer(vm)
    vm.wait(XState.CONNECTED)
    state_and_printing(notes, "connected", "connected", "connected")

    vm.call(lambda client: client.x_suspend())
    assert notes.next(1) == [("vma.on_action.suspend", action("", "connected", "suspend").strip())]
    vm.wait(XState.SUSPENDED)
    state_and_printing(notes, "suspended", "suspended", "suspended")

    vm.start(client_printing_enabled="1")
    vm.wait(XState.LISTENING)
    assert notes.next(2) == [
        ("vma.on_action.pre-connect", action(STARTED, "suspended", "pre_connect")),
        ("vma.on_action.connect", action(STARTED, "starting", "connect")),
    ]
    viewer(vm)
    vm.wait(XState.CONNECTED)
    state_and_printing(notes, "connected", "connected", "connected")

    assert vm.call(lambda client: client.expire("S", "H", ask=1))
    assert vm.call(lambda client: client.expire_answer(30)).answer is Answer.RESTART
    ((key, words),) = notes.next(1)
    assert key == "vma.on_action.expire"
    dates = "vm.expiration.soft S vm.expiration.hard H"
    assert words.startswith(action(dates, "connected", "expire") + " vm.expiration.ask 1 ")

    vm.call(lambda client: client.x_stop())
    assert notes.next(1) == [("vma.on_action.stop", action("", "connected", "stop").strip())]
    vm.wait(XState.STOPPED)
    state_and_printing(notes, "disconnected", "stopped", "stopped")

    vm.call(lambda client: client.poweroff())
    assert notes.next(1) == [("vma.on_action.poweroff", action("", "stopped", "poweroff").strip())]
    until(lambda: (vm.work / "off").exists(), 30, "power-off", vm.logs)
    assert {key for key, _ in notes.all()} == {*SIXTEEN} - {"vma.on_action.disconnect"}
    assert "word_of_connect_to_the_log" in (vm.work / "log/qvd-hooks.log").read_text()
    assert "K" * 64 not in vm.logs(), "the slave key is told to hooks, and no log has it"
