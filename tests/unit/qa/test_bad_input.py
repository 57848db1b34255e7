"""Every bad input of `qa`: the right exit status, one clear line, and nothing changed.

`GENERIC` rows come from the verbs' own declarations, so a new verb is covered as it appears. `ROWS` are
written by hand: what a verb refuses for its own reasons. Whoever adds a refusal adds its row.
"""

from __future__ import annotations

import importlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import ConfigError, UsageError
from appliance.qa.main import NOUNS
from appliance.qa.verbs import Argument, Verb
from tests.support.bad_input import DAEMON_DOWN, USAGE, Bad, check_refused, furnish
from tests.support.qa import Installation

CONFIG = (
    Bad("config set l7r.prot=8443", "did you mean l7r.port?"),
    Bad("config set l7r.port=many", "l7r.port"),
    Bad("config set storage.homes.kept.days=36501", "0 to 36500 days"),
    Bad("config set storage.roots.kept.days=-1", "0 to 36500 days"),
    Bad("config set nodename=other", "is read before the database is known", USAGE),
    Bad("config set l7r.ssl.cert=x", "qa config ssl", USAGE),
    Bad("config set =x", "cannot be the name of a setting", USAGE),
    Bad("config set l7r.port", "is no key=value", USAGE),
    Bad("config set", "keys and values are missing", USAGE),
    Bad("config del", "--yes"),
    Bad("config set internal.l7r.timeout.vma=9", "which only experts should"),
    Bad("config explain", "which settings?", USAGE),
    Bad("config explain l7r.prot", "did you mean l7r.port?"),
    Bad("config explain no.such.thing", "qa config list shows all"),
    Bad("config explain l7r.ssl.key", "qa config ssl"),
    Bad("config list all=perhaps", "write yes or no", USAGE),
)

ADMIN = (
    Bad("admin reset", "must be confirmed by the host's name"),
    Bad("admin reset --yes", "must be confirmed by the host's name"),
    Bad("admin reset name=node1", "must be confirmed by the host's name"),
    Bad("admin reset name=node9 --yes", "this host is not node9"),
    Bad("admin reset name= --yes", "this host is not"),
)

HOST = (
    Bad("host list -f state=asleep", "one of", USAGE),
    Bad("host show -f name=node9", "0 hosts match"),
    Bad("host add name=node1 address=192.0.2.12", "there is a host of this name"),
    Bad("host add name=-x address=192.0.2.12", "cannot be a node's name", USAGE),
    Bad("host add name=node2 address=192.0.2.300", "this is no address", USAGE),
    Bad("host add name=node2 'address=a b'", "this is no address", USAGE),
    Bad("host add name=node2", "argument address is missing", USAGE),
    Bad("host del -f name=node1", "the host node1 has VMs assigned: web-2, web-3"),
    Bad("host del --yes", "nothing was deleted"),
    Bad("host block", "block all hosts, and there is no terminal"),
    Bad("host unblock", "unblock all hosts, and there is no terminal"),
    Bad("host propset room=1 -f name=node9", "nothing matches"),
    Bad("host propset", "properties and their values are missing", USAGE),
    Bad("host propset room", "'room' is no key=value", USAGE),
    Bad("host propset room=1 room=2", "argument room is given twice", USAGE),
    Bad("host propset =1", "cannot be the key of a property", USAGE),
    Bad("host propdel room", "delete the prop in all hosts"),
)

USER = (
    Bad("user add login=alice password=x", "there is a user of this login"),
    Bad("user add login=ALICE password=x", "there is a user of this login"),
    Bad("user add login=root password=x", "cannot be root", USAGE),
    Bad("user add 'login=a b' password=x", "cannot be an account name", USAGE),
    Bad("user add login=carol password=", "the password is empty", USAGE),
    Bad("user add login=carol", "there is no password", USAGE),
    Bad("user add login=carol password=x password-file=-", "exclude one another", USAGE),
    Bad("user add login=carol password-file=/nowhere/at/all", "No such file"),
    Bad("user passwd user=nobody password=x", "there is no user 'nobody'"),
    Bad("user passwd user=alice", "there is no password", USAGE),
    Bad("user del -f login=alice", "owns the VMs web-1, web-2, web-3"),
    Bad("user del --yes", "owns the VMs"),
    Bad("user add", "one of the arguments login or csv is missing", USAGE),
    Bad("user add login=carol csv=-", "exclude one another", USAGE),
    Bad("user add csv=- password=x", "exclude one another", USAGE),
    Bad("user add login=carol password=x passwords-out=/tmp/x", "goes with csv=", USAGE),
    Bad("user add csv=-", "names no column login", USAGE),
    Bad("user add csv=/nowhere/at/all", "No such file"),
    Bad("user add csv=/", "Is a directory"),
    Bad("user add csv=/dev/zero", "is too long"),
    Bad("user edit login=alice -f login=bob", "there is a user of this login"),
    Bad("user edit login=root -f login=bob", "cannot be root", USAGE),
    Bad("user edit login=carol --yes", "2 users cannot share one login"),
    Bad("user edit login=carol -f login=alice", "only stopped VMs can change hands: web-2 (running)"),
    Bad("user disable", "disable all users, and there is no terminal"),
    Bad("user enable", "enable all users, and there is no terminal"),
    Bad("user give user=alice to=bob", "give all machines of alice to bob, and there is no terminal"),
    Bad("user give user=alice to=bob vm=web-2", "web-2 (running)"),
    Bad("user give user=alice to=bob vm=web-3", "web-3 (start)"),
    Bad("user give user=alice to=bob --yes", "nothing was changed"),
    Bad("user give user=alice to=alice vm=web-1", "are the same user"),
    Bad("user give user=bob to=alice vm=web-1", "bob has no VM 'web-1'"),
    Bad("user give user=carol to=bob vm=web-1", "there is no user 'carol'"),
    Bad("user give user=alice to=carol vm=web-1", "there is no user 'carol'"),
)

OSF = (
    Bad("osf add name=desktop", "there is an OSF of this name"),
    Bad("osf add name=", "1 to 64 characters", USAGE),
    Bad("osf add name=new memory=many", "write a size", USAGE),
    Bad("osf add name=new memory=0", "at least 1 MiB", USAGE),
    Bad("osf add name=new cpus=-1", "number of processors", USAGE),
    Bad("osf add name=new cpus=nan", "number of processors", USAGE),
    Bad("osf add name=new postpone=3", "how often and for how long", USAGE),
    Bad("osf add name=new postpone=0x2h", "1 or more", USAGE),
    Bad("osf add name=new postpone=3x2", "with its unit", USAGE),
    Bad("osf add name=new idle-limit=0s", "with its unit", USAGE),
    Bad("osf add name=new session-limit=2h1d", "with its unit", USAGE),
    Bad("osf add name=new expire-warn=99999999d", "with its unit", USAGE),
    Bad("osf add name=new io_weight=1001", "from 1 to 1000", USAGE),
    Bad("osf add name=new io_weight=-1", "from 1 to 1000", USAGE),
    Bad("osf add name=new io_weight=00", "from 1 to 1000", USAGE),
    Bad("osf add name=new use_overlay=perhaps", "use_overlay", USAGE),
    Bad("osf add name=new backend=xen", "one of lxc, kvm, nothing", USAGE),
    Bad("osf add name=new processes=-3", "processes", USAGE),
    Bad("osf add name=new processes=99999999999999999999", "more than there can be", USAGE),
    Bad("osf edit --yes", "nothing to change", USAGE),
    Bad("osf edit memory=1g id=1 --yes", "there is no argument id", USAGE),
    Bad("osf edit name=other --yes", "2 OSFs cannot share one name"),
    Bad("osf edit name=desktop -f name=spare", "there is an OSF of this name"),
    Bad("osf edit backend=lxc -f name=desktop", "it has DIs for nothing"),
    Bad("osf del -f name=desktop", "has the VMs web-1, web-2, web-3"),
)

DI = (
    Bad("di add path=/nowhere.tar osf=desktop", "nowhere.tar"),
    Bad("di add path=/nowhere.tar osf=office", "there is no OSF 'office'"),
    Bad("di add path=/nowhere.tar osf_id=9", "there is no OSF with id 9"),
    Bad("di add path=/nowhere.tar", "one of the arguments osf or osf_id is missing", USAGE),
    Bad("di add path=/nowhere.tar osf=desktop osf_id=1", "exclude one another", USAGE),
    Bad("di add osf=desktop", "argument path is missing", USAGE),
    Bad("di add path=/etc/hostname osf=desktop version=one", "one"),
    Bad("di tag di_id=9 tag=default", "there is no DI with id 9"),
    Bad("di tag di_id=x tag=default", "write a whole number", USAGE),
    Bad("di tag di_id=1 tag=two", "two"),
    Bad("di tag di_id=1 tag=", "tag", USAGE),
    Bad("di untag di_id=1 tag=nowhere", "nowhere"),
    Bad("di untag di_id=1 tag=one", "one"),
    Bad("di del -f id=1", "DI 1 is run by 1 VMs: web-2"),
    Bad("di add path=/etc/hostname osf=desktop 'notes=\x1b[2J'", "cannot be shown", USAGE),
    Bad("di duplicate di_id=9", "there is no DI with id 9"),
    Bad("di duplicate di_id=1 osf=office", "there is no OSF 'office'"),
    Bad("di duplicate di_id=1 version=two", "the OSF has a version or tag of this name"),
    Bad("di duplicate di_id=1 version=head", "cannot be a version", USAGE),
    Bad("di export di_id=9 path=/tmp", "there is no DI with id 9"),
    Bad("di export di_id=1 path=/nowhere/at/all", "there is no folder /nowhere/at"),
    Bad("di export di_id=1 path=/etc/hostname", "there is something at /etc/hostname already"),
    Bad("di import path=/nowhere.tar", "there is no file /nowhere.tar"),
    Bad("di import path=/etc/hostname", "hostname is no exported image"),
    Bad("di import path=/etc/hostname make_osf=perhaps", "write yes or no", USAGE),
    Bad("di edit --yes", "nothing to change", USAGE),
    Bad("di edit notes=x", "edit all dis, and there is no terminal"),
    Bad("di block", "block all dis, and there is no terminal"),
    Bad("di unblock", "unblock all dis, and there is no terminal"),
    Bad("di undelete", "bring all dis back from the trash, and there is no terminal"),
    Bad("di purge", "remove all dis in the trash for good, and there is no terminal"),
    Bad("di trash empty", "takes no more words", USAGE),
)

VM = (
    Bad("vm add name=web-1 user=alice osf=desktop", "there is a VM of this name"),
    Bad("vm add name=a_b user=alice osf=desktop", "host name", USAGE),
    Bad("vm add name=new user=carol osf=desktop", "there is no user 'carol'"),
    Bad("vm add name=new user_id=9 osf=desktop", "there is no user with id 9"),
    Bad("vm add name=new user=alice osf=office", "there is no OSF 'office'"),
    Bad("vm add name=new user=alice osf_id=9", "there is no OSF with id 9"),
    Bad("vm add name=new user=alice", "one of the arguments osf or osf_id is missing", USAGE),
    Bad("vm add name=new user=alice user_id=1 osf=desktop", "exclude one another", USAGE),
    Bad("vm add name=new user=alice osf=desktop ip=10.9.0.6", "the VM web-1 has this address"),
    Bad("vm add name=new user=alice osf=desktop ip=10.9.0.1", "gateway", USAGE),
    Bad("vm add name=new user=alice osf=desktop ip=10.9.0", "no IPv4 address", USAGE),
    Bad("vm add name=new user=alice osf=desktop di_tag=a,b", "cannot be a tag", USAGE),
    Bad("vm edit --yes", "nothing to change", USAGE),
    Bad("vm edit vm_state=running --yes", "there is no argument vm_state", USAGE),
    Bad("vm edit name=web-2 -f name=web-1", "there is a VM of this name"),
    Bad("vm edit name=new --yes", "3 VMs cannot share one name"),
    Bad("vm edit ip=10.9.0.3 -f name=web-2", "cannot change while it is running"),
    Bad("vm edit ip=10.9.0.5 -f name=web-1", "the VM web-2 has this address"),
    Bad("vm del --yes", "web-2 (running), web-3 (start)"),
    Bad("vm del -f name=web-2", "only stopped VMs can be deleted"),
    Bad("vm add name=lab user=alice osf=desktop bulk=0", "1 or more", USAGE),
    Bad("vm add name=lab user=alice osf=desktop bulk=many", "write a whole number", USAGE),
    Bad("vm add name=lab user=alice osf=desktop bulk=99999999999999999999", "write a whole number", USAGE),
    Bad("vm add name=lab user=alice osf=desktop bulk=3", "only 2 are free"),
    Bad("vm add name=web user=alice osf=desktop bulk=2", "name=web-1: there is a VM of this name"),
    Bad(
        "vm add name=lab user=alice osf=desktop bulk=2 ip=10.9.0.3", "ip and bulk exclude one another", USAGE
    ),
    Bad(f"vm add name={'x' * 62} user=alice osf=desktop bulk=2", "host name", USAGE),
    Bad("vm add name=new user_id=99999999999999999999 osf=desktop", "write a whole number", USAGE),
    Bad("vm edit osf=nowhere -f name=web-1", "there is no OSF 'nowhere'"),
    Bad("vm edit osf=spare -f name=web-2", "the OSF of web-2 cannot change while it is running"),
    Bad("vm edit osf=spare --yes", "the OSF of web-2 cannot change"),
    Bad("vm block", "block all machines, and there is no terminal"),
    Bad("vm unblock", "unblock all machines, and there is no terminal"),
    Bad("vm block -f name", "has no '='", USAGE),
    Bad("vm ssh", "3 virtual machines match"),
    Bad("vm ssh -f name=web-1", "web-1 is stopped, and has no address now"),
    Bad("vm vnc -f name=web-2", "web-2 runs on nothing, which has no screen of its own"),
    Bad("vm vnc -f name=nobody", "0 virtual machines match"),
    Bad("vm console -f name=web-2 -- more", "takes nothing after --", USAGE),
    Bad("vm show", "3 virtual machines match: web-1, web-2, web-3"),
    Bad("vm show -f name=nobody", "0 virtual machines match"),
    Bad("vm propset room=1 -f name=nobody", "nothing matches"),
    Bad("vm propdel", "delete the prop in all virtual machines"),
    Bad("vm console", "3 virtual machines match: web-1, web-2, web-3"),
    Bad("vm console -f name=nobody", "0 virtual machines match"),
    Bad("vm console -f name=web-2 write=now", "write free, take or never", USAGE),
    Bad("vm console -f name=web-2", "daemon", DAEMON_DOWN),
)

ALARM = (
    Bad("alarm list all=perhaps", "write yes or no", USAGE),
    Bad("alarm list -f kind=fire", "one of image, host", USAGE),
    Bad("alarm clear", "clear all alarms, and there is no terminal"),
)

OPERATION = (
    Bad("operation list all=perhaps", "write yes or no", USAGE),
    Bad("operation list -f object_id=desk", "whole number", USAGE),
    Bad("operation cancel", "cancel all operations, and there is no terminal"),
)

WORDS = (
    Bad("vm list -o xml", "there is no such form", USAGE),
    Bad("vm list -x", "there is no such option", USAGE),
    Bad("vm list --f=id=1 --fo=1", "takes no value", USAGE),
    Bad("vm list -f", "needs a value", USAGE),
    Bad("vm list -f name", "has no '='", USAGE),
    Bad("vm list -f nmae=x", "did you mean name?", USAGE),
    Bad("vm list -f id=x", "id=x", USAGE),
    Bad("vm list -f 'name=a\\'", "lone backslash", USAGE),
    Bad("vm list -f 'name<a*'", "takes no wildcard", USAGE),
    Bad("vm list -f =x", "names no key", USAGE),
    Bad("vm list -f id=99999999999999999999999", "whole number", USAGE),
    Bad("vm list -f 'id in (1'", "does not end its list", USAGE),
    Bad("vm list -f 'vm_state_ts>soon'", "write a time", USAGE),
    Bad("vm list -f vm_state_ts=2030-02-30", "no such day", USAGE),
    Bad("vm list -- more", "takes nothing after --", USAGE),
    Bad("vm list -f id=1 -f id=2", "--filter is given twice", USAGE),
    Bad("vm list -o json -o csv", "--output is given twice", USAGE),
    Bad("vm strat", "vm has no verb 'strat' (did you mean start?)", USAGE),
    Bad("vm fly", "vm has no verb 'fly'", USAGE),
    Bad("vm", "vm needs a verb", USAGE),
    Bad("vm help fly", "vm has no verb 'fly'", USAGE),
    Bad("hots list", "did you mean host?", USAGE),
    Bad("help ship", "there is no noun 'ship'", USAGE),
    Bad("vm list -f 'name=\udcff'", "is not UTF-8", USAGE),
    Bad("user passwd 'user=\x1b[2J\n' password=x", "there is no user"),
    Bad("vm add 'name=\x1b[2J\n' user=alice osf=desktop", "host name", USAGE),
    Bad("vm list '\x1b[2J\n=1'", "there is no argument", USAGE),
    Bad("ship list", "there is no noun 'ship'", USAGE),
)

ROWS = (*CONFIG, *ADMIN, *HOST, *USER, *OSF, *DI, *VM, *ALARM, *OPERATION, *WORDS)


def generic() -> Iterator[Bad]:
    """What any verb refuses, from its declaration."""
    for noun in NOUNS:
        for verb in importlib.import_module(f"appliance.qa.{noun}").VERBS:
            yield from _of(noun, verb)


def _of(noun: str, verb: Verb) -> Iterator[Bad]:
    call = f"{noun} {verb.name}"
    if not verb.words and not verb.pairs:
        yield Bad(f"{call} nonsense", "'nonsense' is no key=value", USAGE)
        yield Bad(f"{call} nonsense=1 --yes", "there is no argument nonsense", USAGE)
    if verb.filters:
        yield Bad(f"{call} {_plausible(verb)} -f nonsense=1", "there is no filter key 'nonsense'", USAGE)
        yield Bad(f"{call} {_plausible(verb)} -f nonsense", "has no '='", USAGE)
    else:
        yield Bad(f"{call} {_plausible(verb)} -f id=1", "takes no filter", USAGE)
    for argument in verb.arguments:
        if argument.required:
            yield Bad(call, f"argument {argument.name} is missing", USAGE)
        yield Bad(
            f"{call} {argument.name}=1 {argument.name}=2", f"argument {argument.name} is given twice", USAGE
        )
    if verb.confirm:
        yield Bad(f"{call} {_plausible(verb)}", "--yes")


def _plausible(verb: Verb) -> str:
    """Arguments with which the verb's own checks would pass."""
    wanted = [argument for argument in verb.arguments if argument.required]
    wanted += [_named(verb, group[0]) for group in verb.one_of]
    wanted += [_named(verb, name) for name in verb.any_of[:1]]
    words = [f"{argument.name}={_value(argument)}" for argument in wanted]
    return " ".join([*words, *(["some.key=1"] if verb.pairs else [])])


def _named(verb: Verb, name: str) -> Argument:
    return next(argument for argument in verb.arguments if argument.name == name)


def _value(argument: Argument) -> str:
    for text in ("x", "1", "yes", "10.9.0.3", "tag_moved", "/etc/hostname"):
        try:
            argument.parse(text)
        except (ValueError, UsageError, ConfigError):
            continue
        return text
    raise AssertionError(f"no plausible value for {argument.name}")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the furnished world is made, once."""
    return tmp_path_factory.mktemp("template")


@pytest.fixture
def world(
    template: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Installation:
    """A furnished world of one's own; standard input is no terminal, and empty."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    if not (template / "furnished").exists():
        furnish(Installation(template, capsys))
        (template / "furnished").touch()
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Installation(tmp_path, capsys)


@pytest.mark.parametrize("bad", ROWS, ids=str)
def test_bad_input_changes_nothing_and_says_why(world: Installation, bad: Bad) -> None:
    check_refused(world, bad)


@pytest.mark.parametrize("bad", [*dict.fromkeys(generic())], ids=str)
def test_every_verb_refuses_what_none_takes(world: Installation, bad: Bad) -> None:
    check_refused(world, bad)
