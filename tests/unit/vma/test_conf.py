from __future__ import annotations

from pathlib import Path

import pytest

from appliance.vma.conf import DEFAULTS, Conf, ConfError, parse


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a = b", {"a": "b"}),
        ("a: b", {"a": "b"}),
        ("a b", {"a": "b"}),
        ("  a=b  ", {"a": "b"}),
        ("# a = b\n! c = d\n", {}),
        ("a", {"a": ""}),
        ("a = b = c", {"a": "b = c"}),
        (r"a\ b\=c = d\ne", {"a b=c": "d\ne"}),
        (r"a = \u00e9\\", {"a": "é\\"}),
        ("a = b,\\\n    c\nd = e", {"a": "b,c", "d": "e"}),
        ("a = b\\\\\nd = e", {"a": "b\\", "d": "e"}),
        ("a = 1\na = 2", {"a": "2"}),
    ],
)
def test_properties_syntax(text: str, values: dict[str, str]) -> None:
    assert parse(text) == values


def test_references_are_resolved_late() -> None:
    conf = Conf(parse("path.run = /x\nmine = ${path.run}/${ path.run }"))
    assert conf["vma.pid_file"] == "/x/vma.pid"
    assert conf["mine"] == "/x//x"


def test_bad_settings_name_their_key() -> None:
    conf = Conf({"a": "${b}", "b": "${a}", "c": "${nowhere}", "vma.rpc.port": "many", "t": "-1"})
    for key, words in (("a", "refers to itself"), ("c", "c refers to nowhere, which is not set")):
        with pytest.raises(ConfError, match=words):
            conf[key]
    with pytest.raises(ConfError, match=r"vma\.rpc\.port is 'many', not a number"):
        conf.number("vma.rpc.port")
    with pytest.raises(ConfError, match="t is '-1', not a number of seconds"):
        conf.seconds("t")


def test_typed_access() -> None:
    conf = Conf({"vma.rpc.allow": " 10.0.0.1 , 10.0.0.2,", "vma.audio.enable": "Yes"})
    assert conf.words("vma.rpc.allow") == ["10.0.0.1", "10.0.0.2"]
    assert conf.flag("vma.audio.enable")
    assert not conf.flag("vma.printing.enable")
    assert conf.number("vma.user.umask", 8) == 0o022
    assert conf.get("vma.on_action.connect") == ""


def test_every_default_resolves() -> None:
    conf = Conf({})
    assert all("${" not in conf[key] for key in DEFAULTS)


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert Conf.load(str(tmp_path / "none"))["vma.rpc.port"] == "3030"
