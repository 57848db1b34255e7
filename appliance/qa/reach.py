"""`qa vm console`, `ssh` and `vnc`: this terminal or screen, and one VM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appliance import config, proc
from appliance.config import Settings
from appliance.errors import ConflictError
from appliance.model import BackendKind, Vm
from appliance.qa.context import Context
from appliance.qa.verbs import Argument, Given, Verb


async def one_vm(context: Context) -> Vm:
    """The VM that is meant.

    :raises ConflictError: none matches, or several
    """
    async with context.database() as store, store.read() as tx:
        return context.only(await tx.vms.find(context.filter), "virtual machines", lambda vm: vm.name)


def writer_role(text: str) -> str:
    """Whether to write to a console, as its hub takes it.

    :raises ValueError: another word
    """
    if text not in {"free", "take", "never"}:
        raise ValueError("write free, take or never")
    return text


async def console(context: Context, given: Given) -> int:
    """`qa vm console`."""
    from appliance.qa.console import run_console
    from appliance.storage.paths import Paths

    vm = await one_vm(context)
    return await run_console(
        Paths(context.settings).control, vm.id, name=vm.name, write=given.get("write", "free")
    )


async def ssh(context: Context, given: Given) -> None:
    """`qa vm ssh`."""
    vm = await one_vm(context)
    argv = ssh_command(context.settings, reachable(vm), context.invocation.more)
    proc.become(argv, hint="install openssh-client")


def ssh_command(settings: Settings, address: str, more: Iterable[str]) -> list[str]:
    """How ssh is called: `more` may be options of its own, a command, or both."""
    chosen = {
        name.removeprefix(config.SSH_OPTION): settings.text(name)
        for name in settings.names()
        if name.startswith(config.SSH_OPTION)
    }
    options = [word for name, value in chosen.items() if value for word in ("-o", f"{name}={value}")]
    return ["ssh", "-p", str(settings[config.SSH_PORT]), *options, address, *more]


def reachable(vm: Vm) -> str:
    """The address of a VM that runs.

    :raises ConflictError: it does not
    """
    if vm.runtime.vm_address is None:
        raise ConflictError(
            f"{vm.name} is {vm.runtime.vm_state}, and has no address now",
            hint=f"qa vm start -f name={vm.name}",
        )
    return vm.runtime.vm_address


async def vnc(context: Context, given: Given) -> None:
    """`qa vm vnc`."""
    vm = await one_vm(context)
    if vm.backend is not BackendKind.KVM:
        raise ConflictError(
            f"{vm.name} runs on {vm.backend}, which has no screen of its own",
            hint="qa vm console attaches to its console, a client to its desktop",
        )
    async with context.database() as store, store.read() as tx:
        screen = await tx.vms.screen(vm.id)
    if screen is None:
        raise ConflictError(f"{vm.name} is {vm.runtime.vm_state}, and shows no screen")
    proc.become(vnc_command(*screen, context.invocation.more), hint="install a VNC viewer, such as tigervnc")


def vnc_command(address: str, port: int, more: Sequence[str]) -> list[str]:
    """How the viewer is called."""
    return ["vncviewer", f"{address}::{port}", *more]


VERBS = (
    Verb(
        "console",
        "Attaches the terminal to the console of one VM; Ctrl-] detaches.",
        console,
        (
            Argument(
                "write",
                "take the writer's role, or never have it; default: have it while it is free",
                writer_role,
                shape="free|take|never",
            ),
        ),
        filters=True,
        examples=("qa vm console -f name=web-1", "qa vm console -f name=web-1 write=take"),
    ),
    Verb(
        "ssh",
        "Becomes ssh to one VM that runs; admin.ssh.opt.* are its options.",
        ssh,
        more="ARGUMENTS OF SSH",
        filters=True,
        examples=("qa vm ssh -f name=web-1", "qa vm ssh -f name=web-1 -- -l root uptime"),
    ),
    Verb(
        "vnc",
        "Becomes vncviewer on the screen of one VM that runs on kvm.",
        vnc,
        more="ARGUMENTS OF VNCVIEWER",
        filters=True,
        examples=("qa vm vnc -f name=win-1",),
    ),
)
