"""The keys that programs read: what every noun prints, guarded by a golden file. They are only ever added."""

from __future__ import annotations

import asyncio
import importlib
import json
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.model import AlarmKind, KeptKind, VmId
from appliance.qa.main import NOUNS
from appliance.storage.operations import Kind
from appliance.storage.paths import Paths
from tests.support.qa import Installation

GOLDEN = Path(__file__).parents[2] / "golden/qa-lists.json"
KINDS = {type(None): "null", str: "text", int: "number", float: "number", bool: "flag", list: "list"}
VERBS = ("list", "counters", "history", "propget")
"""Verbs that print an array of objects."""


CALLS = [
    (noun, verb.name)
    for noun in NOUNS
    for verb in importlib.import_module(f"appliance.qa.{noun}").VERBS
    if verb.name in VERBS
]


@pytest.fixture
def full(qa: Installation) -> Installation:
    """An installation in which no list is empty."""
    qa.with_vm()
    qa.ok("di", "add", f"path={qa.archive()}", "osf=desktop")
    for noun in ("host", "user", "osf", "di", "vm"):
        qa.ok(noun, "propset", "room=12")
    Paths(qa.settings).homefs(VmId(1)).mkdir(parents=True)
    asyncio.run(_something_goes_wrong(qa))
    return qa


async def _something_goes_wrong(qa: Installation) -> None:
    async with qa.write() as tx:
        await tx.alarms.raise_(AlarmKind.IMAGE, "di 1", "it does not boot")
        await tx.kept.add(
            KeptKind.ROOT,
            qa.directory / "kept",
            vm_id=VmId(1),
            vm="web-1",
            owner="alice",
            reason="it does not boot",
            until=tx.at + timedelta(days=1),
        )
        await tx.operations.begin(Kind.DI_ADD, 1, owner="test", pid=1)


@pytest.mark.parametrize(("noun", "verb"), CALLS)
def test_keys_are_only_ever_added(full: Installation, noun: str, verb: str) -> None:
    first, *_ = full.ok(noun, verb, "-o", "json").json
    golden = json.loads(GOLDEN.read_text())
    found = {key: KINDS[type(value)] for key, value in first.items()}
    assert found == golden[noun if verb == "list" else f"{noun} {verb}"], f"extend {GOLDEN.name}"


@pytest.mark.parametrize("noun", [noun for noun, verb in CALLS if verb == "list"])
def test_every_form_of_a_list_has_the_same_keys(full: Installation, noun: str) -> None:
    keys = list(full.ok(noun, "list", "-o", "json").json[0])
    assert full.ok(noun, "list", "-o", "csv").out.splitlines()[0] == ",".join(keys)
    assert full.ok(noun, "list", "-o", "wide").out.splitlines()[0].split() == keys
    assert full.ok(noun, "list", "-o", "yaml").out.startswith(f"- {keys[0]}: ")
    assert full.ok(noun, "list", "-q", "-o", "csv").out.splitlines()[0] != ",".join(keys)


@pytest.mark.parametrize("noun", [noun for noun, verb in CALLS if verb == "propget"])
def test_one_object_has_the_keys_of_its_list(full: Installation, noun: str) -> None:
    assert full.ok(noun, "show", "-f", "id=1", "-o", "json").json == full.listed(noun)[0]
