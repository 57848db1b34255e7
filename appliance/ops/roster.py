"""Users from a CSV file: all of them or none, each wrong line named by its number.

The first line names the columns, in any order: `login`, and if wanted `password`, `osf`, `vm`, `di_tag`. A
line with an OSF also gets a desktop, called `vm` or else as the login. No refusal tells a password.
"""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from appliance import passwords
from appliance.config import Settings
from appliance.errors import AdminError, ApplianceError, ConflictError, HostError, UsageError
from appliance.model import TAG_DEFAULT, Secret
from appliance.ops import image_accounts, osfs, users, vms
from appliance.storage.store import Store, Tx
from appliance.threads import in_thread

COLUMNS = ("login", "password", "osf", "vm", "di_tag")
SHOWN = 10
"""How many wrong lines a refusal tells of."""
GENERATED_BYTES = 12
LONGEST = 1_000_000
"""Characters of a file."""
MOST = 1000
"""Users of a file: while they are added, for some seconds, nobody else can write to the database."""

Report = Callable[[str, float], None]
"""Told what is being done, and how far it is, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Line:
    """One user of the file."""

    number: int
    """Where it begins in the file; the heading is line 1."""
    login: str
    password: Secret | None
    osf: str | None
    vm: str | None
    di_tag: str


@dataclass(frozen=True, slots=True)
class Added:
    """What an import made."""

    users: int
    vms: int
    generated: int
    """How many passwords were made up, and are in the file asked for."""


class RosterError(AdminError):
    """What is wrong with the lines of a file, by their numbers."""

    def __init__(self, wrong: Mapping[int, str]) -> None:
        shown = [f"line {number}: {reason}" for number, reason in list(wrong.items())[:SHOWN]]
        more = f"; and {len(wrong) - SHOWN} more lines" if len(wrong) > SHOWN else ""
        super().__init__("; ".join(shown) + more, hint="nothing was added")


def parse(text: str) -> list[Line]:
    """The users of a file.

    :raises UsageError: its first line names no columns, or ones that there are not
    :raises RosterError: lines are no such rows
    """
    heading = text.partition("\n")[0]
    delimiter = ";" if ";" in heading and "," not in heading else ","
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    wrong: dict[int, str] = {}
    lines: list[Line] = []
    number = 0
    try:
        columns = _columns(next(rows, []))
        number = rows.line_num + 1
        for cells in rows:
            if any(cell.strip() for cell in cells):
                if len(cells) != len(columns):
                    wrong[number] = f"there are {len(cells)} values for {len(columns)} columns"
                else:
                    _read(number, dict(zip(columns, cells, strict=True)), lines, wrong)
            number = rows.line_num + 1
    except csv.Error as exc:
        wrong[number] = f"this is no CSV: {exc}"
    if wrong:
        raise RosterError(wrong)
    if len(lines) > MOST:
        raise UsageError(
            f"there are {len(lines)} users, and at most {MOST} can be added at once", hint="split the file"
        )
    return lines


async def add(
    store: Store,
    settings: Settings,
    lines: Sequence[Line],
    *,
    passwords_out: Path | None,
    by: str,
    report: Report,
) -> Added:
    """Add the users, and their desktops, all or none; generated passwords are written to a new file.

    :raises RosterError: what is wrong with which lines
    :raises UsageError: passwords must be generated, and there is nowhere to write them to
    :raises ConflictError: the file for them is there already
    """
    missing = [line for line in lines if line.password is None]
    if missing and passwords_out is None:
        raise UsageError(
            f"{len(missing)} lines have no password, the first is line {missing[0].number}",
            hint="give passwords-out=FILE, a new file that receives generated ones",
        )
    await _try(store, settings, lines, by=by)
    given = [line.password or Secret(secrets.token_urlsafe(GENERATED_BYTES)) for line in lines]
    hashes = await in_thread(_hash_all, given, report)
    generated = {line.login: password for line, password in zip(lines, given, strict=True) if line in missing}
    if generated and passwords_out is not None:
        write_passwords(passwords_out, generated)
    try:
        async with store.write() as tx:
            made = await _add_all(tx, settings, lines, hashes, by=by)
    except BaseException:
        if generated and passwords_out is not None:
            await in_thread(passwords_out.unlink, missing_ok=True)
        raise
    return replace(made, generated=len(generated))


def write_passwords(file: Path, generated: Mapping[str, Secret]) -> None:
    """Write logins and passwords into a new file that only its owner can read.

    :raises ConflictError: the file is there already
    :raises HostError: it cannot be written
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as exc:
        raise ConflictError(f"{file} is there already", hint="name a new file; nothing was added") from exc
    except OSError as exc:
        raise HostError(f"{file} cannot be made: {exc.strerror}", hint="nothing was added") from exc
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("login", "password"))
            writer.writerows((login, password.reveal()) for login, password in generated.items())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as exc:
        file.unlink(missing_ok=True)
        raise HostError(f"{file} cannot be written: {exc.strerror}", hint="nothing was added") from exc


def _columns(heading: Sequence[str]) -> list[str]:
    columns = [cell.strip().lower() for cell in heading]
    if "login" not in columns:
        raise UsageError(
            "the first line names no column login", hint=f"it names the columns: {', '.join(COLUMNS)}"
        )
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise UsageError(f"there is no column {unknown[0][:20]!r}", hint=f"there are {', '.join(COLUMNS)}")
    if len(set(columns)) < len(columns):
        raise UsageError("the first line names a column twice")
    return columns


def _read(number: int, row: Mapping[str, str], lines: list[Line], wrong: dict[int, str]) -> None:
    def value(column: str) -> str | None:
        return row.get(column, "").strip() or None

    if value("osf") is None and (unused := [name for name in ("vm", "di_tag") if value(name)]):
        wrong[number] = f"{unused[0]} without osf: a desktop needs an OSF"
        return
    password = row.get("password") or None
    lines.append(
        Line(
            number,
            value("login") or "",
            None if password is None else Secret(password),
            value("osf"),
            value("vm"),
            value("di_tag") or TAG_DEFAULT,
        )
    )


class _Withdrawn(Exception):
    """The trial has succeeded."""


async def _try(store: Store, settings: Settings, lines: Sequence[Line], *, by: str) -> None:
    """Add everybody and take it back: whatever is wrong shows before time is spent on hashes."""
    try:
        async with store.write() as tx:
            await _add_all(tx, settings, lines, [None] * len(lines), by=by)
            raise _Withdrawn
    except _Withdrawn:
        pass


async def _add_all(
    tx: Tx, settings: Settings, lines: Sequence[Line], hashes: Sequence[Secret | None], *, by: str
) -> Added:
    in_images = await image_accounts.all_accounts(tx, settings)
    free = await vms.room(tx, settings)
    known = {osf.name: osf for osf in await tx.osfs.find()}
    wrong: dict[int, str] = {}
    desktops = 0
    for line, password_hash in zip(lines, hashes, strict=True):
        try:
            image_accounts.check_login(users.checked_login(settings, line.login), in_images)
            user = await users.add(tx, settings, line.login, password_hash, by=by)
            if line.osf is not None:
                osf = known.get(line.osf) or await osfs.named(tx, line.osf)
                name = line.vm or user.login
                await vms.add_in(
                    tx, free, name=name, user_id=user.id, osf_id=osf.id, di_tag=line.di_tag, by=by
                )
                desktops += 1
        except ApplianceError as exc:
            wrong[line.number] = exc.message
    if wrong:
        raise RosterError(wrong)
    return Added(len(lines), desktops, 0)


def _hash_all(given: Sequence[Secret], report: Report) -> list[Secret]:
    """Hash on every processor: a hash takes 0.1 s and 64 MiB."""
    hashes = []
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="password") as threads:
        for password_hash in threads.map(passwords.hash_password, given):
            hashes.append(password_hash)
            report("hashing passwords", len(hashes) / len(given))
    return hashes
