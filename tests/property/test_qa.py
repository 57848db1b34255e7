"""Any words at all: `qa` ends with one of its exit statuses, and never with an exception."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.qa.main import NOUNS, main
from tests.support.qa import Installation

SHY = {("vm", "ssh"), ("vm", "vnc"), ("vm", "console"), ("admin", "reset")}
"""Verbs that become another program or end everything: what they refuse is tried elsewhere."""

CALLS = [
    (noun, verb)
    for noun in NOUNS
    for verb in importlib.import_module(f"appliance.qa.{noun}").VERBS
    if (noun, verb.name) not in SHY
]
NO_NUL = st.characters(codec="utf-8", exclude_characters="\0")
"""The words of a process hold no NUL."""
awkward = st.text(NO_NUL, max_size=12) | st.sampled_from(
    ["", "1", "-1", "9" * 30, "x", "web-1", "alice", "*", "\\", "a,b"]
)
keys = st.sampled_from(["id", "name", "login", "state", "created", "ok_ts", "blocked", "property.x", "until"])
signs = st.sampled_from(["=", "!=", "<", "<=", ">", ">=", " in (", " not in (a,", "!"])
filters = st.builds(
    lambda key, sign, value: f"{key}{sign}{value}{')' * ('(' in sign)}", keys | awkward, signs, awkward
)
options = st.one_of(
    st.just(["--yes"]),
    st.just(["-q"]),
    st.builds(lambda form: ["-o", form], st.sampled_from(["json", "csv", "yaml", "wide", "table"]) | awkward),
    st.builds(lambda filter_: ["-f", filter_], filters | awkward),
    st.builds(lambda word: [word], awkward),
)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A noun and a verb with some of its arguments, any filter and options."""
    noun, verb = draw(st.sampled_from(CALLS))
    words = [noun, verb.name]
    for argument in verb.arguments:
        if argument.required or draw(st.booleans()):
            words.append(f"{argument.name}={draw(awkward)}")
    if verb.pairs or verb.words:
        words.append(f"{draw(keys | awkward)}={draw(awkward)}")
    return [*words, *(word for option in draw(st.lists(options, max_size=3)) for word in option)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node.conf of an installation with one of everything, which the calls may spoil."""
    directory = tmp_path_factory.mktemp("fuzzed")
    installation = Installation(directory, mock.Mock(readouterr=lambda: mock.Mock(out="", err="")))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        installation.ok("admin", "init", "--yes")
        installation.with_vm()
        installation.ok("di", "add", f"path={installation.archive()}", "osf=desktop")
    return installation.config


@given(words=command_lines())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # CI is busy
def test_no_words_end_in_an_exception(config: Path, words: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(config.parent),
        mock.patch.object(sys, "stdin", io.StringIO("")),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main(["--config", str(config), *words])
    assert status in (0, 1, 2, 3)
    if status in (1, 2):
        assert err.getvalue() or "-q" in words
    assert "\x1b" not in err.getvalue()
