"""`qa vm`: the desktops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TypeAlias

from appliance.clock import SystemClock
from appliance.model import TAG_DEFAULT, OsfId, StartedBy, UserId, Vm, VmState
from appliance.ops import bell, expiry, osfs, users, vms
from appliance.qa.context import Context
from appliance.qa.limits import ARGUMENTS, NAMES, given_limits, report
from appliance.qa.look import VERBS as LOOK
from appliance.qa.output import Column, Json, instant, local_time, span, yes_no
from appliance.qa.reach import VERBS as REACH
from appliance.qa.subject import Subject, property_verbs, show_verb
from appliance.qa.tell import VERBS as TELL
from appliance.qa.top import VM_TOP
from appliance.qa.verbs import Argument, Given, Verb, amount, whole
from appliance.scalars import boolean
from appliance.storage.properties import Owner
from appliance.storage.store import Tx
from appliance.storage.vms import Runs

COLUMNS: tuple[Column[Vm], ...] = (
    Column("Id", lambda vm: vm.id),
    Column("Name", lambda vm: vm.name),
    Column("User", lambda vm: vm.user),
    Column("RealUser", lambda vm: vm.real_user),
    Column("Ip", lambda vm: vm.ip),
    Column("OSF", lambda vm: vm.osf),
    Column("DI_Tag", lambda vm: vm.di_tag),
    Column("DI", lambda vm: vm.next_di),
    Column("Running DI", lambda vm: vm.di),
    Column("Host", lambda vm: vm.host),
    Column("State", lambda vm: vm.runtime.vm_state),
    Column("L7R", lambda vm: vm.l7r_host),
    Column("UserState", lambda vm: vm.runtime.user_state),
    Column("Blocked", lambda vm: yes_no(vm.runtime.blocked)),
    Column("Expire soft", lambda vm: local_time(vm.runtime.vm_expiration_soft)),
    Column("Expire hard", lambda vm: local_time(vm.runtime.vm_expiration_hard)),
    Column("Failure", lambda vm: vm.runtime.failure),
    Column("Outdated", lambda vm: span(since(vm.outdated_since))),
    Column("Soft left", lambda vm: span(until(vm.runtime.vm_expiration_soft))),
    Column("Hard left", lambda vm: span(until(vm.runtime.vm_expiration_hard))),
)


def until(at: datetime | None) -> int | None:
    """How many seconds are left; fewer than none: it is over."""
    return None if at is None else round((at - SystemClock().now()).total_seconds())


def since(at: datetime | None) -> int | None:
    """How many seconds have passed."""
    left = until(at)
    return None if left is None else -left


def plain(vm: Vm) -> Mapping[str, Json]:
    """A VM for programs."""
    runtime = vm.runtime
    return {
        "id": vm.id,
        "uuid": vm.uuid,
        "name": vm.name,
        "user_id": vm.user_id,
        "user": vm.user,
        "real_user_id": runtime.real_user_id,
        "real_user": vm.real_user,
        "osf_id": vm.osf_id,
        "osf": vm.osf,
        "backend": vm.backend,
        "di_tag": vm.di_tag,
        "ip": vm.ip,
        "host_id": runtime.host_id,
        "host": vm.host,
        "current_di_id": runtime.current_di_id,
        "di": vm.di,
        "next_di_id": vm.next_di_id,
        "next_di": vm.next_di,
        "outdated": vm.outdated,
        "vm_state": runtime.vm_state,
        "vm_state_ts": instant(runtime.vm_state_ts),
        "phase": runtime.vm_phase,
        "vm_cmd": runtime.vm_cmd,
        "restart": runtime.restart,
        "started_by": runtime.started_by,
        "run": runtime.run,
        "user_state": runtime.user_state,
        "user_state_ts": instant(runtime.user_state_ts),
        "user_cmd": runtime.user_cmd,
        "l7r_host_id": runtime.l7r_host_id,
        "l7r_host": vm.l7r_host,
        "vm_address": runtime.vm_address,
        "vm_vma_port": runtime.vm_vma_port,
        "vm_x_port": runtime.vm_x_port,
        "blocked": runtime.blocked,
        "block_cause": runtime.block_cause,
        "vm_expiration_soft": instant(runtime.vm_expiration_soft),
        "vm_expiration_hard": instant(runtime.vm_expiration_hard),
        "failure": runtime.failure,
        "failure_console": runtime.failure_console,
        "failure_cause": runtime.failure_cause,
        "failed_at": instant(runtime.failed_at),
        "failures": runtime.failures,
        "waits_for": runtime.waits_for,
        "outdated_s": since(vm.outdated_since),
        "expire_soft_s": until(runtime.vm_expiration_soft),
        "expire_hard_s": until(runtime.vm_expiration_hard),
        "expire_asked": runtime.expire_asked,
        "expire_next_ts": instant(runtime.expire_next_ts),
        "expire_postponed": runtime.expire_postponed,
    }


Counted: TypeAlias = tuple[Vm, Runs]

COUNTERS: tuple[Column[Counted], ...] = (
    Column("Id", lambda row: row[0].id),
    Column("Name", lambda row: row[0].name),
    Column("Run attempts", lambda row: row[1].attempts),
    Column("Run OK", lambda row: row[1].ok),
)


def plain_counters(row: Counted) -> Mapping[str, Json]:
    """The counters of a VM for programs, with what the totals are made of."""
    vm, runs = row
    return {
        "id": vm.id,
        "name": vm.name,
        "vm_state": vm.runtime.vm_state,
        "blocked": vm.runtime.blocked,
        "run_attempts": runs.attempts,
        "run_ok": runs.ok,
    }


async def add(context: Context, given: Given) -> None:
    """`qa vm add`."""
    async with context.database() as store, store.write() as tx:
        user_id = await _user_id(tx, context, given)
        osf_id = await _osf_id(tx, given)
        name, di_tag = given["name"], given.get("di_tag", TAG_DEFAULT)
        if number := given.get("bulk"):
            made = await vms.add_several(
                tx,
                context.settings,
                number,
                name=name,
                user_id=user_id,
                osf_id=osf_id,
                di_tag=di_tag,
                by=context.by,
            )
        else:
            made = [
                await vms.add(
                    tx,
                    context.settings,
                    name=name,
                    user_id=user_id,
                    osf_id=osf_id,
                    ip=given.get("ip"),
                    di_tag=di_tag,
                    by=context.by,
                )
            ]
    if "bulk" in given and context.for_programs:
        context.data([plain(vm) for vm in made])
    else:
        context.added("VM", plain(made[-1]))


async def counters(context: Context, given: Given) -> None:
    """`qa vm counters`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.vms.find(context.filter)
        counted = await tx.vms.counters([vm.id for vm in found])
    if not context.for_programs and not context.invocation.quiet:
        running = sum(vm.runtime.vm_state is VmState.RUNNING for vm in found)
        blocked = sum(vm.runtime.blocked for vm in found)
        totals = f"Virtual machines: {len(found)}\nRunning: {running}\nBlocked: {blocked}\n"
        print(totals, file=context.output)
    context.show(COUNTERS, [(vm, counted[vm.id]) for vm in found], plain_counters)


async def list_(context: Context, given: Given) -> None:
    """`qa vm list`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.vms.find(context.filter)
    context.show(COLUMNS, found, plain)


async def edit(context: Context, given: Given) -> None:
    """`qa vm edit`."""
    limits = given_limits(context, given)
    async with context.database() as store:
        async with store.write() as tx:
            found = await tx.vms.find(context.filter)
            settings = {name: value for name, value in given.values.items() if name in vms.EDITABLE}
            edited = await vms.edit(tx, context.settings, found, settings, by=context.by)
            limited = await expiry.stamp_vms(tx, [vm.id for vm in found], limits, by=context.by)
        context.changed = edited > 0
    context.say(f"Edited {edited} VMs.")
    report(context, limited, limits)
    context.note_if_nothing(edited)


async def delete(context: Context, given: Given) -> None:
    """`qa vm del`."""
    purge = bool(given.get("purge_home"))
    async with context.database() as store:
        async with store.write() as tx:
            found = await tx.vms.find(context.filter)
            until = await vms.delete(tx, context.settings, found, by=context.by, purge_home=purge)
        context.changed = purge and until is not None
    context.say(f"Deleting {len(found)} vm(s)")
    context.note_if_nothing(len(found))
    if until is None or context.invocation.dry_run:
        return
    if purge:
        context.note("The daemon removes their homes within a minute.")
    else:
        context.note(f"Their homes are kept until {local_time(until)} (qa kept list).")


Wish = Callable[[Context, Tx, list[Vm]], Awaitable[int]]


def wish(write: Wish, sentence: str | None) -> Callable[[Context, Given], Awaitable[None]]:
    """A verb that writes a wish into the rows of the chosen VMs and rings the bell."""

    async def run(context: Context, given: Given) -> None:
        async with context.database() as store:
            async with store.write() as tx:
                found = await tx.vms.find(context.filter)
                number = await write(context, tx, found)
            context.changed = number > 0
        if sentence:
            context.say(sentence.format(number))
        context.note_if_nothing(len(found))
        if sentence and number and not context.invocation.dry_run and not bell.is_heard(context.settings):
            context.note("The appliance does not run on this host: what it is to do waits until it starts.")

    return run


async def _start(context: Context, tx: Tx, found: list[Vm]) -> int:
    return await vms.start(tx, [vm.id for vm in found], by=context.by, started_by=StartedBy.COMMAND)


async def _stop(context: Context, tx: Tx, found: list[Vm]) -> int:
    return await vms.stop(tx, [vm.id for vm in found], by=context.by)


async def _restart(context: Context, tx: Tx, found: list[Vm]) -> int:
    return await vms.stop(tx, [vm.id for vm in found], by=context.by, restart=True)


async def _disconnect(context: Context, tx: Tx, found: list[Vm]) -> int:
    return await vms.disconnect(tx, [vm.id for vm in found], by=context.by)


async def _block(context: Context, tx: Tx, found: list[Vm]) -> int:
    return await vms.block(tx, [vm.id for vm in found], by=context.by)


async def _unblock(context: Context, tx: Tx, found: list[Vm]) -> int:
    return await vms.unblock(tx, [vm.id for vm in found], by=context.by)


async def _user_id(tx: Tx, context: Context, given: Given) -> UserId:
    if "user" in given:
        return (await users.named(tx, context.settings, given["user"])).id
    return (await tx.users.get(UserId(given["user_id"]))).id


async def _osf_id(tx: Tx, given: Given) -> OsfId:
    if "osf" in given:
        return (await osfs.named(tx, given["osf"])).id
    return (await tx.osfs.get(OsfId(given["osf_id"]))).id


SUBJECT = Subject(
    Owner.VM,
    "virtual machines",
    lambda tx, filter_: tx.vms.find(filter_),
    lambda vm: vm.name,
    plain,
    "name=web-1",
)

VERBS = (
    Verb(
        "add",
        "Adds a VM, stopped.",
        add,
        arguments=(
            Argument("name", "its name, and the guest's host name", required=True),
            Argument("user", "its owner's login"),
            Argument("user_id", "or the owner's id", whole, shape="ID"),
            Argument("osf", "the name of its OSF"),
            Argument("osf_id", "or the OSF's id", whole, shape="ID"),
            Argument("ip", "its address; default the highest free one", vms.parse_address, shape="ADDRESS"),
            Argument("di_tag", "the tag that chooses its DI; default default"),
            Argument("bulk", "as many VMs at once, called NAME-0, NAME-1 …", amount, shape="NUMBER"),
        ),
        one_of=(("user", "user_id"), ("osf", "osf_id")),
        apart=(("ip", "bulk"),),
        examples=(
            "qa vm add name=web-1 user=alice osf=office",
            "qa vm add name=web-2 user_id=1 osf_id=1 ip=10.3.15.20",
            "qa vm add name=lab user=alice osf=office bulk=20",
        ),
    ),
    Verb(
        "list",
        "Lists VMs; DI is the image that the next start boots.",
        list_,
        filters=True,
        examples=("qa vm list", "qa vm list -f 'user=alice,state in (starting,running)' -o wide"),
    ),
    show_verb(SUBJECT),
    Verb(
        "counters",
        "Shows how many VMs there are, and how often each was started, and came up.",
        counters,
        filters=True,
        examples=("qa vm counters", "qa vm counters -f osf=office -o json"),
    ),
    VM_TOP,
    Verb(
        "edit",
        "Changes VMs: a new tag holds from the next start; a new address or OSF needs stopped VMs.",
        edit,
        arguments=(
            Argument("name", "another name, and host name from the next start"),
            Argument("di_tag", "the tag that chooses the DI"),
            Argument("ip", "another address", shape="ADDRESS"),
            Argument("osf", "the name of another OSF of the same backend"),
            *ARGUMENTS,
        ),
        any_of=(*vms.EDITABLE, *NAMES.values()),
        filters=True,
        rehearsable=True,
        confirm="edit all machines",
        examples=(
            "qa vm edit di_tag=pilot -f name=web-1",
            "qa vm edit expire-hard='now + 2 hours' -f user=alice",
            "qa vm edit osf=big -f user=alice",
        ),
    ),
    Verb(
        "start",
        "Starts stopped VMs.",
        wish(_start, "Started {} VMs."),
        filters=True,
        rehearsable=True,
        confirm="start all machines",
        examples=("qa vm start -f name=web-1",),
    ),
    Verb(
        "stop",
        "Stops VMs, or withdraws a start that nobody has taken yet.",
        wish(_stop, "Stopped {} VMs."),
        filters=True,
        rehearsable=True,
        confirm="stop all machines",
        examples=("qa vm stop -f osf=office", "qa vm stop --yes"),
    ),
    Verb(
        "restart",
        "Stops VMs that run and starts them again; stopped ones stay so.",
        wish(_restart, "Restarted {} VMs."),
        filters=True,
        rehearsable=True,
        confirm="restart all machines",
        examples=("qa vm restart -f name=web-1",),
    ),
    Verb(
        "block",
        "Keeps users out of VMs; what runs goes on, and consoles work.",
        wish(_block, None),
        filters=True,
        rehearsable=True,
        confirm="block all machines",
        examples=("qa vm block -f name=web-1",),
    ),
    Verb(
        "unblock",
        "Lets users in again, whether an administrator or a failing image had blocked the VMs.",
        wish(_unblock, None),
        filters=True,
        rehearsable=True,
        confirm="unblock all machines",
        examples=("qa vm unblock -f name=web-1", "qa vm unblock --yes"),
    ),
    Verb(
        "disconnect_user",
        "Ends the sessions of VMs; the desktops go on.",
        wish(_disconnect, "Disconnected {} users."),
        filters=True,
        rehearsable=True,
        confirm="disconnect all users",
        examples=("qa vm disconnect_user -f name=web-1",),
    ),
    Verb(
        "del",
        "Deletes stopped VMs; their homes are kept for storage.homes.kept.days.",
        delete,
        arguments=(
            Argument("purge_home", "whether their homes go at once, for good", boolean, shape="yes|no"),
        ),
        filters=True,
        rehearsable=True,
        confirm="delete all vms",
        examples=("qa vm del -f name=web-1", "qa vm del purge_home=yes -f user=alice"),
    ),
    *REACH,
    *TELL,
    *LOOK,
    *property_verbs(SUBJECT),
)
