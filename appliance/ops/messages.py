"""Messages to the people at their desktops: to the agent of each guest, all at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from appliance import config
from appliance.config import Settings
from appliance.errors import UsageError, VmaRefusedError, VmaUnreachableError
from appliance.model import Vm, VmState
from appliance.storage.store import Tx
from appliance.vma_client import Told, VmaClient

MAX_TEXT, MAX_TITLE = 1000, 80
AT_ONCE = 64
REASONS = {
    Told.NOBODY: "nobody has a session there",
    Told.NO_HOOK: "its image shows no messages (vma.on_action.message)",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a message to one VM: told, or why not."""

    vm: Vm
    reason: str | None = None

    @property
    def told(self) -> bool:
        return self.reason is None


def parse_text(text: str) -> str:
    """The text of a message: data, shown as it is.

    :raises ValueError: it is empty, too long, or has control characters other than line ends
    """
    return _parse(text, MAX_TEXT, also="\n")


def parse_title(text: str) -> str:
    """The heading of a message: one line.

    :raises ValueError: it is empty, too long, or has control characters
    """
    return _parse(text, MAX_TITLE)


def _parse(text: str, limit: int, also: str = "") -> str:
    if not text.strip():
        raise ValueError("it is empty")
    if len(text) > limit:
        raise ValueError(f"it has {len(text)} characters, {limit} are allowed")
    for letter in text:
        if not letter.isprintable() and letter not in also:
            raise ValueError(f"it has a character that cannot be shown, U+{ord(letter):04X}")
    return text.strip()


async def send(found: Sequence[Vm], settings: Settings, text: str, title: str = "") -> list[Delivery]:
    """Show a message on the desktops of VMs; what became of it at each. Changes nothing that is stored.

    :raises UsageError: the text or the title cannot be shown
    """
    try:
        text, title = parse_text(text), title and parse_title(title)
    except ValueError as exc:
        raise UsageError(f"the message cannot be shown: {exc}") from exc
    free = asyncio.Semaphore(AT_ONCE)

    async def one(vm: Vm) -> Delivery:
        async with free:
            return Delivery(vm, await _tell(vm, settings, text, title))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(vm), name=f"message to vm {vm.id}") for vm in found]
    return [task.result() for task in tasks]


async def _tell(vm: Vm, settings: Settings, text: str, title: str) -> str | None:
    """Tell one; why it could not be told."""
    address, port = vm.runtime.vm_address, vm.runtime.vm_vma_port
    if vm.runtime.vm_state is not VmState.RUNNING or address is None or port is None:
        return f"it is {vm.runtime.vm_state}"
    if vm.host is not None and vm.host != settings[config.NODENAME]:
        return f"it runs on {vm.host}, whose guests are reached from there"
    try:
        told = await VmaClient(address, port, timeout_s=settings[config.VMA_TIMEOUT]).message(text, title)
    except (VmaRefusedError, VmaUnreachableError) as exc:
        return str(exc)
    return REASONS.get(told)


async def note(tx: Tx, deliveries: Sequence[Delivery], text: str, *, by: str) -> None:
    """Log who was told what."""
    for delivery in deliveries:
        if delivery.told:
            await tx.log.append(by=by, what="vm message", object=f"vm {delivery.vm.id}", now=text)
