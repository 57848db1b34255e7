"""`qa vm message` and `log`: words to the people at their desktops, and from the agents of their guests."""

from __future__ import annotations

from appliance import config
from appliance.harmless import printable
from appliance.ops import messages
from appliance.qa.context import Context
from appliance.qa.reach import one_vm, reachable
from appliance.qa.verbs import Argument, Given, Verb
from appliance.vma_client import GuestLogs, VmaClient

MAX_LINES = 500
FAILED = 1


async def message(context: Context, given: Given) -> int:
    """`qa vm message`."""
    text = given["text"]
    async with context.database() as store:
        async with store.read() as tx:
            found = await tx.vms.find(context.filter)
        deliveries = await messages.send(found, context.settings, text, given.get("title", ""))
        async with store.write() as tx:
            await messages.note(tx, deliveries, text, by=context.by)
    told = sum(delivery.told for delivery in deliveries)
    if context.for_programs:
        context.data(
            [
                {"id": one.vm.id, "name": one.vm.name, "told": one.told, "reason": one.reason}
                for one in deliveries
            ]
        )
    else:
        context.say(f"Told {told} of {len(deliveries)} desktops.")
        for one in deliveries:
            if one.reason is not None:
                context.note(f"{printable(one.vm.name)} was not told: {printable(one.reason)}")
    context.note_if_nothing(len(deliveries))
    return FAILED if deliveries and not told else 0


def number_of_lines(text: str) -> int:
    """How many lines of a log.

    :raises ValueError: it is no number from 1 to 500
    """
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:9]) <= MAX_LINES:
        raise ValueError(f"write a number from 1 to {MAX_LINES}")
    return int(text)


async def log(context: Context, given: Given) -> None:
    """`qa vm log`."""
    vm = await one_vm(context)
    address, port = reachable(vm), vm.runtime.vm_vma_port or context.settings[config.VMA_PORT]
    client = VmaClient(address, port, timeout_s=context.settings[config.VMA_TIMEOUT])
    logs = await client.hook_log(given.get("lines", 50))
    if context.for_programs:
        context.data({"id": vm.id, "name": vm.name, "hooks": list(logs.hooks), "vma": list(logs.vma)})
        return
    context.output.write(_as_text(logs))


def _as_text(logs: GuestLogs) -> str:
    parts = {"What its hooks have printed": logs.hooks, "What its agent says": logs.vma}
    return "\n".join(
        "".join(f"{line}\n" for line in (f"{heading}:", *(f"  {line}" for line in lines or ["(nothing)"])))
        for heading, lines in parts.items()
    )


VERBS = (
    Verb(
        "message",
        "Shows a message on the desktops that have a session, as text and nothing else.",
        message,
        arguments=(
            Argument("text", "what it says: up to 1000 characters", messages.parse_text, required=True),
            Argument("title", "its heading; default Message from the administrator", messages.parse_title),
        ),
        filters=True,
        confirm="send this message to all desktops",
        examples=(
            'qa vm message text="The server restarts at 18:00." -f osf=office',
            'qa vm message title=Maintenance text="Please save your work." --yes',
        ),
    ),
    Verb(
        "log",
        "Prints the last lines of what the hooks of one VM have printed, and of its agent's log.",
        log,
        arguments=(
            Argument("lines", "how many of each; default 50, at most 500", number_of_lines, shape="NUMBER"),
        ),
        filters=True,
        examples=("qa vm log -f name=web-1", "qa vm log lines=200 -f name=web-1"),
    ),
)
