"""`qa vm console`, `ssh` and `vnc`: this terminal or screen, and one VM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from appliance import config, proc
from appliance.config import Settings
from appliance.errors import ConflictError
from appliance.model import BackendKind, Vm, VmState
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
    from appliance.storage.paths import Paths

    vm = await one_vm(context)
    socket = shown(vm, context.settings[config.NODENAME], Paths(context.settings).vnc(vm.id))
    proc.become(vnc_command(socket, context.invocation.more), hint="apt-get install tigervnc-viewer")


def shown(vm: Vm, here: str, socket: Path) -> Path:
    """The socket at which the screen of a VM is shown.

    :raises ConflictError: it has none, or not on this host
    """
    if vm.backend is not BackendKind.KVM:
        raise ConflictError(
            f"{vm.name} runs on {vm.backend}, which has no screen of its own",
            hint="qa vm console attaches to its console, a client to its desktop",
        )
    if vm.runtime.vm_state is VmState.STOPPED:
        raise ConflictError(
            f"{vm.name} is stopped, and shows no screen", hint=f"qa vm start -f name={vm.name}"
        )
    if vm.host is not None and vm.host != here:
        raise ConflictError(
            f"{vm.name} runs on {vm.host}, and its screen is shown there only", hint=f"use qa on {vm.host}"
        )
    if not socket.is_socket():
        raise ConflictError(f"{vm.name} is {vm.runtime.vm_state}, and shows no screen yet")
    return socket


def vnc_command(socket: Path, more: Sequence[str]) -> list[str]:
    """How the viewer is called; TigerVNC's takes a socket for an address that has a slash."""
    return ["vncviewer", str(socket), *more]


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
        "Becomes vncviewer (TigerVNC) on the screen of one VM that runs on kvm, on this host.",
        vnc,
        more="ARGUMENTS OF VNCVIEWER",
        filters=True,
        examples=("qa vm vnc -f name=win-1",),
    ),
)
