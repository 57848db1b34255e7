"""The desktop user and the home, made when they are missing (protocol.md 4.6).

The server says which login, uid and gid; they are the same in every image, so that a home outlives image
changes. What must never happen: a system account, or root, as desktop user; somebody else's home; a change
of ownership below a home. `decide` is pure; the rest carries it out. Everything may be done again after a
crash half-way.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import stat
from typing import Callable, Mapping, NamedTuple, Optional, Sequence, Tuple

from appliance.vma import home_drive, tools
from appliance.vma.conf import Conf
from appliance.vma.files import say
from appliance.vma.hooks import Hooks
from appliance.vma.login import Account

FIRST_UID = 1000
NOBODY = 65534
LAST_ID = 2**32 - 2
SKELETON = "/etc/skel"
_NAME = re.compile(r"(?=.*[A-Za-z_])[A-Za-z0-9_][A-Za-z0-9_.@-]{0,31}\Z")


class ProvisionError(Exception):
    """There can be no desktop for this user in this image: one line says why."""


class Wanted(NamedTuple):
    """Who the server wants at the desktop; ids that it does not give are None."""

    name: str
    uid: Optional[int]
    gid: Optional[int]
    group: str
    own_group: bool  # the group is the user's own, not one that the administrator named
    groups: Tuple[str, ...]
    home: str


class User(NamedTuple):
    name: str
    uid: int
    gid: int


class Group(NamedTuple):
    name: str
    gid: int


class Accounts:
    """The guest's account database."""

    def user(self, key: "str | int") -> Optional[User]:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwuid(key) if isinstance(key, int) else pwd.getpwnam(key)
            return User(entry.pw_name, entry.pw_uid, entry.pw_gid)
        return None

    def group(self, key: "str | int") -> Optional[Group]:
        with contextlib.suppress(KeyError):
            entry = grp.getgrgid(key) if isinstance(key, int) else grp.getgrnam(key)
            return Group(entry.gr_name, entry.gr_gid)
        return None


class Plan(NamedTuple):
    """What is to be made; ids that the guest may choose are None."""

    new_user: bool
    new_group: bool
    uid: Optional[int]
    gid: Optional[int]


def wanted(conf: Conf, params: Mapping[str, str]) -> Wanted:
    """Read the request, defaults filled in. Raises ProvisionError on names and numbers that are unsafe."""
    name = params.get("qvd.vm.user.name") or conf["vma.user.default.name"]
    group = params.get("qvd.vm.user.group") or name
    groups = params.get("qvd.vm.user.groups") or conf["vma.user.default.groups"]
    home = params.get("qvd.vm.user.home") or f"{conf['vma.user.home.path']}/{name}"
    listed = tuple(word.strip() for word in groups.split(",") if word.strip())
    for kind, word in [("login", name), ("group", group), *(("group", word) for word in listed)]:
        if not _NAME.match(word):
            raise ProvisionError(f"'{word[:40]}' cannot be a {kind} name in this guest")
    if not home.startswith("/") or os.path.normpath(home) != home or home == "/" or not home.isprintable():
        raise ProvisionError(f"'{home[:80]}' cannot be a home directory")
    return Wanted(
        name,
        _id(params, "qvd.vm.user.uid"),
        _id(params, "qvd.vm.user.gid"),
        group,
        group == name,
        listed,
        home,
    )


def filled(conf: Conf, params: Mapping[str, str]) -> Mapping[str, str]:
    """The request with this guest's defaults for what it does not say: what the hooks of a start are told."""
    name = params.get("qvd.vm.user.name") or conf["vma.user.default.name"]
    defaults = {
        "qvd.client.keyboard": conf["vma.default.client.keyboard"],
        "qvd.client.link": conf["vma.default.client.link"],
        "qvd.vm.user.name": name,
        "qvd.vm.user.groups": conf["vma.user.default.groups"],
        "qvd.vm.user.home": f"{conf['vma.user.home.path']}/{name}",
    }
    return {**params, **{key: value for key, value in defaults.items() if not params.get(key)}}


def _id(params: Mapping[str, str], key: str) -> Optional[int]:
    text = params.get(key, "")
    if not text:
        return None
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 11 else -1
    if not FIRST_UID <= number <= LAST_ID or number == NOBODY:
        raise ProvisionError(f"{key} is '{text[:20]}': desktop users have numbers from {FIRST_UID} on")
    return number


def decide(want: Wanted, accounts: Accounts, home_owner: Optional[Tuple[int, int]]) -> Plan:
    """What to make so that `want` can log in; `home_owner` is (uid, gid) of an existing home.

    Raises ProvisionError where the image or the home contradicts the server.
    """
    user = accounts.user(want.name)
    plan = _known(want, user) if user else _unknown(want, accounts, home_owner)
    if home_owner and home_owner[0] not in (0, plan.uid):
        has = f", which has uid {plan.uid}" if plan.uid is not None else ""
        raise ProvisionError(f"{want.home} belongs to uid {home_owner[0]}, not to '{want.name}'{has}")
    return plan


def _known(want: Wanted, user: User) -> Plan:
    if user.uid < FIRST_UID or user.uid == NOBODY or user.gid == 0:
        raise ProvisionError(f"'{want.name}' is a system account of this image, never a desktop user")
    for kind, asked, has in (("uid", want.uid, user.uid), ("gid", want.gid, user.gid)):
        if asked is not None and asked != has:
            raise ProvisionError(
                f"the image has an account '{want.name}' with {kind} {has}, the server says {asked}:"
                " remove it from the image"
            )
    return Plan(False, False, user.uid, user.gid)


def _unknown(want: Wanted, accounts: Accounts, home_owner: Optional[Tuple[int, int]]) -> Plan:
    usual = [number if number >= FIRST_UID and number != NOBODY else None for number in home_owner or (0, 0)]
    uid = want.uid if want.uid is not None else usual[0]
    holder = accounts.user(uid) if uid is not None else None
    if holder:
        raise ProvisionError(f"uid {uid} of '{want.name}' belongs to account '{holder.name}' of this image")
    group = accounts.group(want.group)
    if group:
        if group.gid == 0 or (want.own_group and group.gid < FIRST_UID):
            raise ProvisionError(
                f"'{want.group}' is a system group of this image, never a desktop user's own"
            )
        if want.gid not in (None, group.gid):
            raise ProvisionError(
                f"the image has a group '{want.group}' with gid {group.gid}, the server says {want.gid}"
            )
        return Plan(True, False, uid, group.gid)
    gid = want.gid if want.gid is not None else usual[1]
    owner = accounts.group(gid) if gid is not None else None
    if owner:
        raise ProvisionError(f"gid {gid} of '{want.name}' belongs to group '{owner.name}' of this image")
    return Plan(True, True, uid, gid)


def ensure(conf: Conf, hooks: Hooks, params: Mapping[str, str], busy: Callable[[], None]) -> Account:
    """Make home and account where they are missing; `busy` is called before anything that takes time.

    Raises ProvisionError or HookFailed.
    """
    want = wanted(conf, params)
    params = {
        **params,
        "qvd.vm.user.name": want.name,
        "qvd.vm.user.groups": ",".join(want.groups),
        "qvd.vm.user.home": want.home,
    }
    if not os.path.lexists(want.home):
        busy()
        if not hooks.run_provisioning("mount_home", params):
            _mount_homes(conf)
    accounts = Accounts()
    plan = decide(want, accounts, owner_of(want.home))
    if plan.new_user:
        busy()
        if not hooks.run_provisioning("add_user", params):
            add_user(conf, want, plan, accounts)
    account = _account(want, conf)
    try:
        make_home(want.home, account.uid, account.gid)
        if plan.new_user:
            hooks.run_provisioning("after_add_user", params)
    except Exception:
        if plan.new_user:
            _undo(conf, want, plan)
        raise
    return account


def owner_of(home: str) -> Optional[Tuple[int, int]]:
    try:
        found = os.lstat(home)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        raise ProvisionError(f"{home} is not a directory")
    return found.st_uid, found.st_gid


def _account(want: Wanted, conf: Conf) -> Account:
    """The account as it now is, checked once more: a hook may have made it."""
    try:
        entry = pwd.getpwnam(want.name)
    except KeyError:
        raise ProvisionError(f"no account '{want.name}' after it was added") from None
    decide(want, Accounts(), None)
    groups = tuple(os.getgrouplist(want.name, entry.pw_gid))
    shell = entry.pw_shell or conf["vma.user.shell"]
    return Account(want.name, entry.pw_uid, entry.pw_gid, want.home, shell, groups)


def add_user(conf: Conf, want: Wanted, plan: Plan, accounts: Accounts) -> None:
    """`groupadd` and `useradd`; the home is made apart from them. Undone as a whole if it fails."""
    present = [word for word in want.groups if accounts.group(word)]
    for word in set(want.groups) - set(present):
        say(f"group '{word}' of '{want.name}' does not exist in this image: left out")
    if plan.new_group:
        number = ["-g", str(plan.gid)] if plan.gid is not None else []
        _run([conf["command.groupadd"], *number, want.group])
    options = ["-M", "-l", "-d", want.home, "-g", want.group, "-s", conf["vma.user.shell"]]
    options += ["-G", ",".join(present)] if present else []
    options += ["-u", str(plan.uid)] if plan.uid is not None else []
    try:
        _run([conf["command.useradd"], *options, want.name])
    except ProvisionError:
        _undo(conf, want, plan)
        raise


def _undo(conf: Conf, want: Wanted, plan: Plan) -> None:
    for made, command, name in (
        (plan.new_user, "command.userdel", want.name),
        (plan.new_group, "command.groupdel", want.group),
    ):
        if made:
            with contextlib.suppress(ProvisionError):
                _run([conf[command], name])


def make_home(home: str, uid: int, gid: int, skeleton: str = SKELETON) -> None:
    """A home that belongs to the user: made from the skeleton if missing, else left as it is.

    A directory of root's that holds nothing but skeleton files is one that was never finished (or a fresh
    mount point); only then, and only for what was just made, does ownership change.
    """
    owner = owner_of(home)
    if owner and owner[0] == uid:
        return
    names = sorted(os.listdir(skeleton)) if os.path.isdir(skeleton) else []
    if owner and (owner[0] != 0 or not {*names, "lost+found"}.issuperset(os.listdir(home))):
        raise ProvisionError(f"{home} belongs to uid {owner[0]}, not to uid {uid}")
    os.makedirs(os.path.dirname(home), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(home)
    os.chmod(home, 0o700)  # root's own until it is complete, so nobody can slip a link under the copying
    for name in names:
        _copy(os.path.join(skeleton, name), os.path.join(home, name), uid, gid)
    os.chown(home, uid, gid)


def _copy(source: str, target: str, uid: int, gid: int) -> None:
    found = os.lstat(source)
    if stat.S_ISLNK(found.st_mode):
        with contextlib.suppress(FileExistsError):
            os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(found.st_mode):
        with contextlib.suppress(FileExistsError):
            os.mkdir(target, 0o700)
        for name in sorted(os.listdir(source)):
            _copy(os.path.join(source, name), os.path.join(target, name), uid, gid)
        os.chmod(target, stat.S_IMODE(found.st_mode))
    elif stat.S_ISREG(found.st_mode):
        with open(source, "rb") as from_file, open(target, "wb") as to_file:
            to_file.write(from_file.read())
        os.chmod(target, stat.S_IMODE(found.st_mode))
    else:
        return
    os.chown(target, uid, gid, follow_symlinks=False)


def _mount_homes(conf: Conf) -> None:
    try:
        home_drive.mount(conf["vma.user.home.drive"], conf["vma.user.home.path"], conf["vma.user.home.fs"])
    except (home_drive.DriveError, tools.ToolError) as exc:
        raise ProvisionError(str(exc)) from exc


def _run(argv: Sequence[str]) -> None:
    try:
        tools.run(argv)
    except tools.ToolError as exc:
        raise ProvisionError(str(exc)) from exc
