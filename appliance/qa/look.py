"""`qa vm cat` and `logs`: files of one container, read on the host from its disk."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from appliance import config, console_log
from appliance.errors import AdminError, ConflictError, NotFoundError
from appliance.harmless import printable
from appliance.model import BackendKind, Vm
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, local_time
from appliance.qa.reach import one_vm
from appliance.qa.verbs import Argument, Given, Verb, amount, limit
from appliance.storage.guest_files import (
    LOGS,
    MOST_ENTRIES,
    MOST_LOGS,
    GuestFiles,
    LogFile,
    NoPlaceError,
    Tail,
    is_packed,
    is_text,
)
from appliance.storage.paths import Paths
from appliance.threads import in_thread

USUAL_LINES = 200
MOST_LINES = 100_000
MOST_SHOWN = 5
"""How many logs are shown together."""
BYTES_OF_EACH = 1 << 16
LONGEST_PATH = 4095

COLUMNS: tuple[Column[LogFile], ...] = (
    Column("Modified", lambda log: local_time(log.modified)),
    Column("Bytes", lambda log: log.size),
    Column("Path", lambda log: log.path),
)


def plain(log: LogFile) -> Mapping[str, Json]:
    """A log for programs."""
    return {"path": _decoded(log.path), "size_bytes": log.size, "modified": instant(log.modified)}


def guest_path(text: str) -> str:
    """A path in a guest.

    :raises ValueError: it is none, or not a whole one
    """
    if not text.startswith("/") or "\0" in text or len(text) > LONGEST_PATH:
        raise ValueError("write a full path, as it is in the guest")
    return text


def files_of(context: Context, vm: Vm) -> GuestFiles:
    """The files of a VM on this host.

    :raises ConflictError: it has none that could be read here
    """
    if vm.backend is not BackendKind.LXC:
        raise ConflictError(
            f"{vm.name} runs on {vm.backend}: only the files of containers can be read on the host",
            hint=f"qa vm ssh -f name={vm.name}",
        )
    here = context.settings[config.NODENAME]
    if vm.host is not None and vm.host != here:
        raise ConflictError(
            f"{vm.name} runs on {vm.host}, and its files are there only", hint=f"use qa on {vm.host}"
        )
    paths = Paths(context.settings)
    return GuestFiles(paths.rootfs(vm.id), paths.homefs(vm.id))


@contextmanager
def read_by_root(vm: Vm, path: str) -> Iterator[None]:
    """Say in our words why a file of a guest cannot be read.

    :raises ConflictError: there is no root, or no home, to look for it in
    :raises NotFoundError: it is not there
    :raises AdminError: it cannot be read
    """
    try:
        yield
    except NoPlaceError as exc:
        raise ConflictError(
            f"{vm.name} is {vm.runtime.vm_state}, and has no {exc.what} here: a start makes one",
            hint=f"qa vm start -f name={vm.name}",
        ) from exc
    except FileNotFoundError as exc:
        raise NotFoundError(f"{vm.name} has no {path}") from exc
    except PermissionError as exc:
        raise AdminError(
            f"the files of {vm.name} may not be read: {exc.strerror}", hint="use qa as root"
        ) from exc
    except OSError as exc:
        raise AdminError(f"{path} of {vm.name} cannot be read: {exc.strerror}") from exc


async def cat(context: Context, given: Given) -> None:
    """`qa vm cat`."""
    vm, path, lines = await one_vm(context), given["path"], given.get("lines", USUAL_LINES)
    files = files_of(context, vm)
    with read_by_root(vm, path):
        tail = await in_thread(files.tail, path, lines)
    if tail.is_in_home:
        await _note_reading(context, vm, "vm cat", [path])
    if context.for_programs:
        context.data(
            {
                "id": vm.id,
                "name": vm.name,
                "path": _decoded(path),
                "size_bytes": tail.size,
                "modified": instant(tail.modified),
                "is_whole": tail.is_whole,
                "text": tail.data.decode(errors="replace"),
            }
        )
        return
    _write(context, tail.data)
    if not tail.is_whole:
        shown = tail.data.count(b"\n") + (not tail.data.endswith(b"\n"))
        if lines is None or shown < lines:
            context.note(f"This is its end, {len(tail.data)} of {tail.size} bytes.")
        elif "lines" not in given:
            context.note(f"These are its last {lines} lines: lines=all shows up to 1 MiB.")


async def _note_reading(context: Context, vm: Vm, what: str, paths: Sequence[str]) -> None:
    """Leave in the audit log that somebody has read a user's own files."""
    async with context.database() as store, store.write() as tx:
        for path in paths:
            await tx.log.append(by=context.by, what=what, object=f"vm {vm.id}", now=printable(path)[:1000])


def _write(context: Context, data: bytes) -> None:
    """As it is into a file or a pipe; to a terminal or another front end only what does no harm there."""
    stream = context.output
    if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
    else:
        text = console_log.harmless(data)
        stream.write(text if text.endswith("\n") or not text else f"{text}\n")


async def logs(context: Context, given: Given) -> None:
    """`qa vm logs`."""
    vm = await one_vm(context)
    files = files_of(context, vm)
    with read_by_root(vm, LOGS):
        found, is_whole = await in_thread(files.logs)
        if "lines" in given:
            shown = await in_thread(newest_texts, files, found, given["lines"])
    if "lines" not in given:
        context.show(COLUMNS, found, plain)
    else:
        if of_user := [log.path for log, tail in shown if tail.is_in_home]:
            await _note_reading(context, vm, "vm logs", of_user)
        if context.for_programs:
            texts = [(log, console_log.harmless(tail.data)) for log, tail in shown]
            context.data([{**plain(log), "lines": text.splitlines()} for log, text in texts])
        else:
            context.output.write("\n".join(_headed(log, tail) for log, tail in shown))
            context.note_if_nothing(len(shown))
    if not is_whole:
        context.note(
            f"There is more below {LOGS}: {MOST_LOGS} files of {MOST_ENTRIES} entries are looked at."
        )


def newest_texts(files: GuestFiles, found: Sequence[LogFile], lines: int) -> list[tuple[LogFile, Tail]]:
    """The last lines of the newest logs that are text and not empty."""
    shown: list[tuple[LogFile, Tail]] = []
    for log in found:
        if len(shown) == MOST_SHOWN:
            break
        if is_packed(log):
            continue
        try:
            tail = files.tail(log.path, lines, most=BYTES_OF_EACH)
        except (OSError, AdminError):
            continue  # it is gone, or something else by now
        if tail.data and is_text(tail.data):
            shown.append((log, tail))
    return shown


def _headed(log: LogFile, tail: Tail) -> str:
    text = console_log.harmless(tail.data)
    heading = f"==> {printable(log.path)} ({local_time(log.modified)}) <=="
    return f"{heading}\n{text}" if text.endswith("\n") else f"{heading}\n{text}\n"


def _decoded(path: str) -> str:
    """A path for programs, which take no bytes that are no text."""
    return path.encode(errors="surrogateescape").decode(errors="replace")


def lines_or_all(text: str) -> int | None:
    """How many lines of a file; None for all.

    :raises ValueError: it is neither a number from 1 to 100000 nor `all`
    """
    number = limit(text)
    if number is not None and number > MOST_LINES:
        raise ValueError(f"write a number from 1 to {MOST_LINES}, or all")
    return number


def some_lines(text: str) -> int:
    """How many lines of each of several logs.

    :raises ValueError: it is no number from 1 to 100000
    """
    number = amount(text)
    if number > MOST_LINES:
        raise ValueError(f"write a number from 1 to {MOST_LINES}")
    return number


VERBS = (
    Verb(
        "cat",
        "Prints a file of one container, or its last lines, read on the host from its root or home.",
        cat,
        arguments=(
            Argument(
                "path", "the file, as it is called in the guest", guest_path, required=True, shape="PATH"
            ),
            Argument(
                "lines",
                f"so many of its last lines, or all; default {USUAL_LINES}, and never more than 1 MiB",
                lines_or_all,
                shape="NUMBER|all",
            ),
        ),
        filters=True,
        examples=(
            "qa vm cat path=/var/log/syslog -f name=web-1",
            "qa vm cat path=/etc/os-release lines=all -f name=web-1",
        ),
    ),
    Verb(
        "logs",
        f"Lists the files below {LOGS} of one container, the newest first, or shows the end of the newest.",
        logs,
        arguments=(
            Argument(
                "lines",
                f"so many last lines of each of the {MOST_SHOWN} newest that are text",
                some_lines,
                shape="NUMBER",
            ),
        ),
        filters=True,
        examples=("qa vm logs -f name=web-1", "qa vm logs lines=20 -f name=web-1"),
    ),
)
