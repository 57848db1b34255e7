"""What a verb has to work with: settings, database, the terminal and the options of the call."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from appliance import config
from appliance.config import Settings
from appliance.errors import AdminError, ConflictError, UsageError, few
from appliance.filters import Filter
from appliance.harmless import printable_lines
from appliance.model import Secret
from appliance.qa import rehearsal
from appliance.qa.grammar import FOR_PROGRAMS, Invocation
from appliance.qa.output import Column, Json, as_json, table
from appliance.qa.progress import Passed, Progress, Steps, Told

if TYPE_CHECKING:
    from appliance.storage.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Streams:
    """Where a call writes what it found, where it speaks to people, and what it reads; else the process's."""

    output: TextIO | None = None
    words: TextIO | None = None
    input: TextIO | None = None


TERMINAL = Streams()


class Context:
    """One call of a verb, by `qa` or by another front end.

    `front` is the front end's name in the audit log; `told` is told how far long work is, else people are.
    """

    def __init__(
        self,
        invocation: Invocation,
        *,
        streams: Streams = TERMINAL,
        front: str = "qa",
        told: Told | None = None,
    ) -> None:
        self.invocation = invocation
        self._streams = streams
        self._front = front
        self._told = told
        self.changed = False
        self.previewed = False
        """Whether the verb has shown itself what it would change."""
        self._settings: Settings | None = None

    @property
    def output(self) -> TextIO:
        """Where the result of the verb goes."""
        return self._streams.output or sys.stdout

    @property
    def words(self) -> TextIO:
        """Where words for people go."""
        return self._streams.words or sys.stderr

    @property
    def input(self) -> TextIO:
        """What a verb reads, and where answers come from."""
        return self._streams.input or sys.stdin

    def progress(self) -> Steps:
        """What long work tells how far it is."""
        if self._told is not None:
            return Passed(self._told)
        return Progress(self.words, quiet=self.invocation.quiet)

    @cached_property
    def file_settings(self) -> Settings:
        """The settings of node.conf alone.

        :raises ConfigError: it is missing, cannot be read, or misspells a key
        """
        settings = config.read_file(config.find_file(self.invocation.config))
        config.vetted(settings.written, settings.source)
        return settings

    @property
    def settings(self) -> Settings:
        """The settings in force, once the database is open."""
        assert self._settings is not None
        return self._settings

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[Store]:
        """The open database; wakes the daemon afterwards if `ring` was called."""
        from appliance.clock import SystemClock
        from appliance.ops import bell, settings
        from appliance.storage.store import Store

        store = await Store.open(self.file_settings[config.DATABASE_URL], SystemClock())
        try:
            self._settings = await settings.in_force(store, self.file_settings)
            if not self.invocation.dry_run:
                yield store
                if self.changed:
                    bell.ring(self.settings)
                return
            store.rehearsal = []
            yield store
            if not self.previewed:
                self._tell_rehearsed(await rehearsal.effects(store, store.rehearsal))
        finally:
            await store.close()

    def _tell_rehearsed(self, effects: Sequence[rehearsal.Effect]) -> None:
        """List what would have been changed, in the form asked for."""
        if effects:
            self.show(rehearsal.COLUMNS, effects, rehearsal.plain)
        elif self.for_programs:
            self.data([])
        self.note("Nothing was changed (--dry-run).")

    @cached_property
    def by(self) -> str:
        """Who calls, for the audit log."""
        name = os.environ.get("SUDO_USER") or getpass.getuser()
        return f"{self._front}:{name}"[:64]

    @property
    def filter(self) -> Filter:
        """The filter of the call; without one, everything."""
        return Filter.parse(self.invocation.filter or "")

    def say(self, message: str) -> None:
        """Print the result of a verb: a sentence on stdout, as QVD does. A rehearsal has none."""
        if not self.invocation.quiet and not self.invocation.dry_run:
            stream = self.words if self.for_programs else self.output
            print(printable_lines(message), file=stream)

    def note(self, message: str) -> None:
        """Tell the person something beside the result: on stderr."""
        if not self.invocation.quiet:
            print(printable_lines(message), file=self.words)

    def note_if_nothing(self, number: int) -> None:
        """Say so when nothing matched: that is no failure."""
        if not number:
            self.note("Nothing matches." if self.filter else "There is nothing.")

    def show(
        self, columns: Sequence[Column[T]], records: Sequence[T], plain: Callable[[T], Mapping[str, Json]]
    ) -> None:
        """Print a list in the form asked for."""
        if self.for_programs:
            self.data([plain(record) for record in records])
        elif self.invocation.output == "wide" and records:
            from appliance.qa.forms import as_wide_table

            rows = [plain(record) for record in records]
            self.output.write(as_wide_table(rows, headings=not self.invocation.quiet))
        else:
            self.output.write(table(columns, records, headings=not self.invocation.quiet))
        if not records:
            self.note("Nothing matches." if self.filter else "There is nothing yet.")

    def added(self, noun: str, record: Mapping[str, Json]) -> None:
        """Print what an `add` made: QVD's sentence, or the object."""
        if self.for_programs:
            self.data(record)
        else:
            self.say(f"{noun} added with id {record['id']}")

    def show_one(self, record: Mapping[str, Json]) -> None:
        """Print one object, whole."""
        if self.for_programs:
            self.data(record)
        else:
            from appliance.qa.forms import as_paragraph

            self.output.write(as_paragraph(record))

    def data(self, value: Mapping[str, Json] | Sequence[Mapping[str, Json]]) -> None:
        """Print objects for programs, in the form asked for; to a terminal nothing that would act on it."""
        from appliance.qa import forms

        match self.invocation.output:
            case "csv":
                text = forms.as_csv(value, headings=not self.invocation.quiet)
                if self.output.isatty():  # CSV has no way to write such a character otherwise
                    text = "\t".join(map(printable_lines, text.split("\t")))
            case "yaml":
                text = forms.as_yaml(value)
            case _:
                text = as_json(value)
        self.output.write(text)

    @property
    def for_programs(self) -> bool:
        """Whether stdout is for data alone."""
        return self.invocation.output in FOR_PROGRAMS

    def only(self, found: Sequence[T], nouns: str, name: Callable[[T], str]) -> T:
        """The one object that a verb for one object is about.

        :raises ConflictError: none matches, or several
        """
        if len(found) == 1:
            return found[0]
        names = f": {few([name(one) for one in found])}" if found else ""
        raise ConflictError(f"{len(found)} {nouns} match{names}", hint="choose one with -f")

    def confirmed(
        self, what: str, *, remedy: str = "--yes does it without asking", even_filtered: bool = False
    ) -> bool:
        """Whether the person means it: asks when there is neither a filter nor --force.

        With `even_filtered`, a filter is no answer: what is asked is not how many are meant.

        :raises AdminError: there is nobody to ask
        """
        if self.invocation.force or self.invocation.dry_run or (self.filter and not even_filtered):
            return True
        if not self.input.isatty():
            raise AdminError(f"this would {what}, and there is no terminal to ask at", hint=remedy)
        print(
            f"Are you sure you want to {printable_lines(what)}? [y/N] ", end="", file=self.words, flush=True
        )
        return self.input.readline().lower().startswith("y")

    def password(self, given: Mapping[str, str]) -> Secret:
        """A password: from `password-file=`, from `password=` with a warning, or asked for twice.

        :raises UsageError: there is none, or the two differ
        """
        if "password" in given and "password-file" in given:
            raise UsageError("password= and password-file= exclude one another")
        if "password" in given:
            self.note("Warning: password= shows in the process list and the shell's history")
            text = given["password"]
        elif "password-file" in given:
            text = _read_password(given["password-file"], self.input)
        elif self.input.isatty():
            text = self._typed_password()
        else:
            raise UsageError("there is no password", hint="give password-file=PATH, or - for standard input")
        if not text:
            raise UsageError("the password is empty")
        return Secret(text)

    def _typed_password(self) -> str:
        try:
            text = getpass.getpass("Password: ", stream=self.words)
            again = getpass.getpass("The same again: ", stream=self.words)
        except EOFError:
            raise AdminError("no password was given", hint="nothing was changed") from None
        if again != text:
            raise AdminError("the two passwords differ", hint="nothing was changed")
        return text


def _read_password(source: str, standard_input: TextIO) -> str:
    try:
        text = standard_input.readline() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as exc:  # the name stays untold: people write the password itself there
        raise AdminError(f"the file of password-file= cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise AdminError("the file of password-file= is not UTF-8") from exc
    return text.partition("\n")[0].removesuffix("\r")
