"""The grammar of the command line: words in, an `Invocation` out; pure.

`qa NOUN VERB [options] [key=value …] [-- more]`. Options may stand anywhere before `--`; as in QVD,
their names take one hyphen or two, any case, and any abbreviation that fits one option only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.errors import UsageError

FORMATS = ("table", "wide", "csv", "json", "yaml")
FOR_PROGRAMS = ("csv", "json", "yaml")
"""The forms whose output is data alone: sentences go to stderr."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "filter": ("f",),
    "force": (),
    "yes": ("y",),
    "dry-run": ("n", "explain"),
    "quiet": ("q",),
    "help": ("h",),
    "output": ("o",),
    "config": (),
    "at": (),
    "now": (),
    "undo": (),
}
WITH_VALUE = ("filter", "output", "config", "now")
OF_COMMANDS = {"when": ("at", "now")}
"""Options that belong to one command, a word that needs no verb."""
OF_VERBS = {"di tag": ("undo",)}
"""Options that make another verb of one: `qa di tag --undo` has arguments of its own."""
TWICE = {"filter": "join conditions with a comma: all must hold"}
HELP = "help"
"""Asks for help as --help does, before or in place of a verb."""

OPTIONS_HELP = """\
Options, anywhere before --:
  -f, --filter EXPR   only the objects that match: key=value[,key=value…], with * and ? in values; also
                      != < <= > >=, key in (a,b), key not in (a,b), key= for absent, dates as 2030-01-31
  --force, --yes, -y  do not ask
  -n, --dry-run       change nothing, and list what would be changed; also --explain
  -o, --output FORM   table, wide (all there is), csv, json or yaml
  -q, --quiet         neither messages nor headings
  --config FILE       the configuration; else $QVD_CONFIG, else /etc/qvd/node.conf
  -h, --help          this help, or with a noun, or a noun and a verb, theirs
"""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command line, taken apart."""

    words: tuple[str, ...] = ()
    more: tuple[str, ...] = field(default=())
    """What stands after `--`."""
    filter: str | None = None
    force: bool = False
    dry_run: bool = False
    quiet: bool = False
    help: bool = False
    output: str = "table"
    config: Path | None = None
    at: bool = False
    now: str | None = None
    undo: bool = False


def parse(argv: Sequence[str]) -> Invocation:
    """Take a command line apart.

    :raises UsageError: an option is unknown, ambiguous or lacks its value
    """
    words: list[str] = []
    options: dict[str, str] = {}
    if garbled := next((word for word in argv if not _is_text(word)), None):
        raise UsageError(f"{garbled!a} is not UTF-8")
    rest = iter(argv)
    for word in rest:
        if word == "--":
            break
        if len(word) > 1 and word.startswith("-"):
            name, value = _option(word, rest)
            if name in WITH_VALUE and options.setdefault(name, value) != value:
                raise UsageError(f"the option --{name} is given twice", hint=TWICE.get(name))
            options[name] = value
        else:
            words.append(word)
    if HELP in words[:2]:
        words.remove(HELP)
        options["help"] = ""
    for command, its_options in {**OF_COMMANDS, **OF_VERBS}.items():
        meant = " ".join(words).startswith(command)
        if foreign := [name for name in its_options if name in options and not meant]:
            raise UsageError(f"the option --{foreign[0]} belongs to qa {command}")
    output = options.get("output", "table").lower()
    if output not in FORMATS:
        raise UsageError(f"-o {output}: there is no such form", hint=f"one of {', '.join(FORMATS)}")
    return Invocation(
        words=tuple(words),
        more=tuple(rest),
        filter=options.get("filter"),
        force="force" in options or "yes" in options,
        dry_run="dry-run" in options,
        quiet="quiet" in options,
        help="help" in options,
        output=output,
        config=Path(options["config"]) if "config" in options else None,
        at="at" in options,
        now=options.get("now"),
        undo="undo" in options,
    )


def _is_text(word: str) -> bool:
    """Whether Python could read all of its bytes."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _option(word: str, rest: Iterator[str]) -> tuple[str, str]:
    written, equals, value = word.lstrip("-").partition("=")
    name = _full_name(written.lower(), word)
    if name not in WITH_VALUE:
        if equals:
            raise UsageError(f"{word}: the option --{name} takes no value")
        return name, ""
    if not equals:
        following = next(rest, None)
        if following is None:
            raise UsageError(f"{word}: the option --{name} needs a value")
        value = following
    return name, value


def _full_name(written: str, word: str) -> str:
    fitting = [name for name, aliases in OPTIONS.items() if name == written or written in aliases]
    if not fitting and written:
        fitting = [name for name in OPTIONS if name.startswith(written)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"{word}: this could be {' or '.join(f'--{name}' for name in fitting)}")
    raise UsageError(f"{word}: there is no such option", hint="qa --help lists them")
