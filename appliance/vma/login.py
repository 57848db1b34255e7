"""Becoming the desktop user: environment, identity and the files that describe both (protocol.md 4.3)."""

from __future__ import annotations

import os
from typing import Dict, Mapping, NamedTuple, Sequence, Tuple

from appliance.vma import files

ENV_FILES = ("/etc/locale.conf", "/etc/default/locale", "/etc/environment")
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"


class Account(NamedTuple):
    """A desktop user of this guest, as the account database has it."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    groups: Tuple[int, ...]


def environment(account: Account, lang: str, paths: Sequence[str] = ENV_FILES) -> Dict[str, str]:
    """The user's environment: identity last, so that no file can change it."""
    env = {"PATH": DEFAULT_PATH}
    for path in paths:
        env.update(parse_env(files.read(path)))
    env.setdefault("LANG", lang)
    env.update(
        HOME=account.home,
        USER=account.name,
        LOGNAME=account.name,
        SHELL=account.shell,
        MAIL=f"/var/mail/{account.name}",
    )
    return env


def parse_env(text: str) -> Mapping[str, str]:
    """`KEY=VALUE` lines as in /etc/environment: quotes around the value go, `#` begins a comment line."""
    found = {}
    for raw in text.splitlines():
        line = raw.strip()
        line = line[len("export ") :].lstrip() if line.startswith("export ") else line
        name, equals, value = line.partition("=")
        if not equals or not name.isidentifier() or "\0" in value:
            continue
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name] = value
    return found


def become(account: Account, umask: int) -> None:
    """Irrevocably turn this process into the user, in the home directory."""
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    os.umask(umask)
    os.chdir(account.home)
