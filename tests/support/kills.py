"""Random kills: people at work on an appliance whose daemon is killed at any moment, again and again.

A schedule is decided whole from a seed, before anything runs (pure): for each round who does what when,
and when the daemon is killed, perhaps again while it starts. Rounds follow one another on one
installation without clearing up in between. After each, once the new daemon has brought calm, the one
checker looks at everything, and the wishes that were accepted must have come true.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from appliance.errors import StoreError
from scripts.trial import BIN
from tests.support.ordeal import Ordeal

DESKTOPS = 4
"""VMs 1 to 4 obey; one more, which does not, only takes up room."""
KINDS = ("start", "stop", "restart", "import", "delete", "connect", "take over")
WEIGHTS = (4, 3, 2, 2, 1, 3, 3)
LONGEST_S = 0.8
IN_THE_ACT_S = 0.2
"""A kill comes this soon after some deed, as most of them are done in less."""
START_S = 0.7
KEPT_IMAGES = 4


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that somebody does `at_s` seconds into a round."""

    at_s: float
    kind: str
    vm_id: int


@dataclass(frozen=True, slots=True)
class Round:
    """What happens until the daemon is killed, and afterwards."""

    deeds: tuple[Deed, ...]
    killed_s: float
    """When the daemon is killed, counted from the beginning of the round."""
    again_s: float | None
    """How far into its start the next daemon is killed as well, if it is."""
    importers_too: bool
    """Whether those who import are killed with the daemon, as when the machine is switched off."""


def schedule(seed: int, rounds: int) -> list[Round]:
    """The rounds that a seed stands for."""
    dice = random.Random(seed)
    return [_round(dice) for _ in range(rounds)]


def _round(dice: random.Random) -> Round:
    deeds = [
        Deed(round(dice.uniform(0, LONGEST_S), 4), kind, dice.randint(1, DESKTOPS))
        for kind in dice.choices(KINDS, WEIGHTS, k=dice.randint(3, 6))
    ]
    importers_too = dice.random() < 0.5
    caught = [deed for deed in deeds if deed.kind == "import"] if importers_too else []
    moment = dice.choice(caught or deeds).at_s + dice.uniform(0, IN_THE_ACT_S)
    return Round(
        deeds=tuple(sorted(deeds, key=lambda deed: deed.at_s)),
        killed_s=round(moment, 4),
        again_s=round(dice.uniform(0, START_S), 4) if dice.random() < 0.4 else None,
        importers_too=importers_too,
    )


def write_schedule(rounds: Sequence[Round], file: Path) -> None:
    """Keep a schedule; `read_schedule` plays it again."""
    file.write_text(json.dumps([asdict(each) for each in rounds], indent=1))


def read_schedule(file: Path) -> list[Round]:
    """A schedule that was kept."""
    return [
        Round(**{**each, "deeds": tuple(Deed(**deed) for deed in each["deeds"])})
        for each in json.loads(file.read_text())
    ]


@dataclass(slots=True)
class Tally:
    """What came of the rounds."""

    rounds: int = 0
    kills: int = 0
    wishes: int = 0
    sessions: int = 0
    imports: int = 0
    imports_killed: int = 0
    caught: dict[str, int] | None = None
    """In which phases VMs were when the daemon was killed."""

    def __str__(self) -> str:
        caught = ", ".join(f"{phase} {count}" for phase, count in sorted((self.caught or {}).items()))
        return (
            f"{self.rounds} rounds, {self.kills} kills, {self.wishes} wishes, {self.sessions} sessions,"
            f" {self.imports} imports done and {self.imports_killed} killed; VMs caught at: {caught}"
        )


class Torment:
    """Plays rounds on an installation."""

    def __init__(self, on: Ordeal) -> None:
        self.on = on
        self.tally = Tally(caught={})
        self._wanted: dict[int, set[str]] = {vm_id: {"stopped"} for vm_id in range(1, DESKTOPS + 1)}
        """The states in which each VM may end up, by the wishes that were accepted."""
        self._visitors: Counter[int] = Counter()
        self._importers: list[subprocess.Popen[bytes]] = []

    async def play(self, number: int, each: Round) -> None:
        """One round, from people at work to the judgement.

        :raises AssertionError: something is doubled, lost, stuck or leaked
        """
        async with asyncio.TaskGroup() as people:
            begun = time.monotonic()
            for deed in each.deeds:
                people.create_task(self._do(deed, begun))
            people.create_task(self._kill(each, begun))
        if each.again_s is not None:
            self.on.spawn()
            await asyncio.sleep(each.again_s)
            self._kill_daemon()
        await self.on.start_daemon()
        for importer in self._importers:
            await asyncio.to_thread(importer.wait, 60)
        self._importers.clear()
        await self._sweep()
        await self.on.calm()
        await self._judge(number)
        self.tally.rounds += 1

    async def _judge(self, number: int) -> None:
        usable = []
        for vm_id, states in self._wanted.items():
            state = self.on.row(vm_id)["vm_state"]
            assert state in states, f"round {number}: VM {vm_id} is {state}, wanted was {' or '.join(states)}"
            self._wanted[vm_id] = {state}
            if state == "running":
                usable.append(vm_id)
        if usable:
            await self.on.prove_desktop(usable[number % len(usable)])

    async def _kill(self, each: Round, begun: float) -> None:
        await asyncio.sleep(max(0.0, begun + each.killed_s - time.monotonic()))
        self._kill_daemon()
        for importer in self._importers if each.importers_too else ():
            if importer.poll() is None:
                importer.kill()
                self.tally.imports_killed += 1

    def _kill_daemon(self) -> None:
        daemon = self.on.trial.daemon
        assert daemon is not None
        assert daemon.poll() is None, f"the daemon ended by itself\n{self.on.last_words()}"
        self.on.kill()
        self.tally.kills += 1
        assert self.tally.caught is not None
        for row in self.on.grounds.vms():
            self.tally.caught[row["vm_phase"]] = self.tally.caught.get(row["vm_phase"], 0) + 1

    async def _do(self, deed: Deed, begun: float) -> None:
        await asyncio.sleep(max(0.0, begun + deed.at_s - time.monotonic()))
        match deed.kind:
            case "start" | "stop" | "restart":
                await self._wish(deed.kind, deed.vm_id)
            case "import":
                self._import()
            case "delete":
                await self._delete()
            case "connect":
                await self._visit(deed.vm_id)
            case "take over":
                async with asyncio.TaskGroup() as rivals:
                    for _ in range(2):
                        rivals.create_task(self._visit(deed.vm_id))

    async def _wish(self, verb: str, vm_id: int) -> None:
        with suppress(StoreError):
            if await self.on.wish(verb, vm_id):
                self.tally.wishes += 1
                wanted = {"stopped"} if verb == "stop" else {"running"}
                if self._visitors[vm_id]:
                    wanted.add("running")  # who waits for a desktop that stops has it started again
                self._wanted[vm_id] = wanted

    async def _visit(self, vm_id: int) -> None:
        """Be a client, until one's desktop has echoed something or the daemon dies."""
        self._wanted[vm_id] = self._wanted[vm_id] | {"running"}
        self._visitors[vm_id] += 1
        with suppress(OSError, EOFError):
            async with self.on.connected(vm_id) as (client, reply):
                if reply.status == 101:
                    await client.send(b"echo\n")
                    await client.reader.readexactly(5)
                    self.tally.sessions += 1
        self._visitors[vm_id] -= 1

    def _import(self) -> None:
        words = ["di", "add", f"path={self.on.quick}", "osf=small"]
        self._importers.append(self._qa(*words))
        self.tally.imports += 1

    async def _delete(self) -> None:
        """Delete the oldest image that is neither run nor wanted."""
        for row in self.on.grounds.rows("SELECT id FROM dis WHERE id > 2 ORDER BY id LIMIT 1"):
            await self._remove(row["id"])

    async def _remove(self, di_id: int) -> None:
        for verb in ("del", "purge"):
            await asyncio.to_thread(self._qa("di", verb, "--force", "-f", f"id={di_id}").wait, 60)

    async def _sweep(self) -> None:
        """Delete what has been imported beyond a few."""
        rows = self.on.grounds.rows("SELECT id FROM dis WHERE id > 2 ORDER BY id")
        for row in rows[:-KEPT_IMAGES]:
            await self._remove(row["id"])

    def _qa(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(BIN / "qa"), "--config", str(self.on.trial.config), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


async def torment(on: Ordeal, rounds: Sequence[Round]) -> Tally:
    """Play all the rounds; a failure says in which it happened."""
    player = Torment(on)
    for number, each in enumerate(rounds):
        try:
            await player.play(number, each)
        except* AssertionError as failures:
            raise AssertionError(f"round {number} ({each}): {failures.exceptions[0]}") from failures
    return player.tally
