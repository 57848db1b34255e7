"""Flavours, their images, and the tags that point at these: one table that reads like a tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, ClassVar

from textual.binding import BindingType

from appliance.model import ArrivingDi, Di, DiState, Osf
from appliance.tui import facts
from appliance.tui.columns import Cell, Column, Scene
from appliance.tui.listing import Key
from appliance.tui.offers.images import IMAGE_ACTIONS
from appliance.tui.panes.base import bindings
from appliance.tui.panes.fetched import FetchedPane
from appliance.tui.site import Site
from appliance.tui.view import amount
from appliance.tui.widgets.details import Section

STATE_STYLES = {
    DiState.NEW: "busy",
    DiState.GENERATING: "busy",
    DiState.UPLOADING: "busy",
    DiState.VERIFYING: "busy",
    DiState.READY: "plain",
    DiState.PUBLISHED: "good",
    DiState.RETIRED: "dim",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """A flavour, or one of its images beneath it."""

    id: int
    osf_id: int
    osf: str
    of: Osf | Di | ArrivingDi
    order: tuple[Any, ...]
    """Flavours by name, each followed by its images, the newest first."""
    is_last: bool = False
    running: int = 0
    """How many desktops run it, or one of its images."""
    followers: int = 0
    """How many would boot it, or one of its images, next."""

    @property
    def name(self) -> str:
        """A flavour's name, an image's version."""
        if isinstance(self.of, Osf):
            return self.of.name
        return self.of.version if isinstance(self.of, Di) else f"import {self.id}"

    @property
    def is_image(self) -> bool:
        """Whether it is an image that can be worked on."""
        return isinstance(self.of, Di)

    @property
    def arriving(self) -> bool:
        """Whether it is on its way."""
        return isinstance(self.of, ArrivingDi)

    @property
    def retired(self) -> bool:
        """Whether it is in the trash."""
        return isinstance(self.of, Di) and self.of.retired is not None

    @property
    def blocked(self) -> bool:
        """Whether nothing may boot it."""
        return isinstance(self.of, Di) and self.of.blocked

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that point at it."""
        return self.of.tags if isinstance(self.of, Di) else ()


def name(row: ImageRow, scene: Scene) -> Cell:
    """Its place in the tree."""
    if isinstance(row.of, Osf):
        return row.name, "strong"
    branch = scene.glyphs.last_branch if row.is_last else scene.glyphs.branch
    return f"{branch} {row.name}", "dim" if row.retired else "plain"


def tags(row: ImageRow, scene: Scene) -> Cell:
    """The tags; its own version says nothing new."""
    shown = [tag for tag in row.tags if tag != row.name]
    return ", ".join(shown), "info"


def state(row: ImageRow, scene: Scene) -> Cell:
    """Where an image is in its life; how a flavour's desktops run."""
    of = row.of
    if isinstance(of, Osf):
        return of.backend, "dim"
    if isinstance(of, ArrivingDi):
        width = 10
        done = round(of.progress * width)
        bar = scene.glyphs.bar * done + scene.glyphs.bar_rest * (width - done)
        return f"{of.state} {bar} {of.progress:.0%}", "busy"
    if of.blocked:
        return f"{scene.glyphs.blocked} {of.state}, blocked", "bad"
    return of.state, STATE_STYLES[of.state]


def number(value: int, style: str) -> Cell:
    """A count; nothing is nothing."""
    return (f"{value:,}", style) if value else ("", "plain")


COLUMNS: tuple[Column[ImageRow], ...] = (
    Column(
        key="name",
        title="OSF and images",
        cell=name,
        sort=lambda row: row.order,
        least=20,
        most=44,
    ),
    Column(key="tags", title="Tags", cell=tags, least=12, most=40),
    Column(key="state", title="State", cell=state, least=10, most=28),
    Column(
        key="running",
        title="Run it",
        cell=lambda row, scene: number(row.running, "good"),
        least=7,
        most=8,
        right=True,
        rank=1,
    ),
    Column(
        key="next",
        title="Boot next",
        cell=lambda row, scene: number(row.followers, "info"),
        least=10,
        most=10,
        right=True,
        rank=1,
    ),
    Column(
        key="size",
        title="Size",
        cell=lambda row, scene: (amount(row.of.size_bytes) if isinstance(row.of, Di) else "", "plain"),
        least=6,
        most=7,
        right=True,
        rank=3,
    ),
    Column(
        key="created",
        title="Since",
        cell=lambda row, scene: (facts.local(row.of.created) if isinstance(row.of, Di) else "", "dim"),
        least=16,
        most=16,
        rank=4,
    ),
    Column(
        key="resources",
        title="Each gets",
        cell=lambda row, scene: (resources(row.of) if isinstance(row.of, Osf) else "", "dim"),
        least=14,
        most=22,
        rank=5,
    ),
    Column(
        key="id",
        title="Id",
        cell=lambda row, scene: ("" if isinstance(row.of, Osf) else str(row.id), "dim"),
        least=4,
        most=6,
        rank=2,
        right=True,
    ),
)


def resources(osf: Osf) -> str:
    """What each desktop of a flavour gets."""
    parts = [f"{osf.memory_mib}M"]
    if osf.cpus is not None:
        parts.append(f"{osf.cpus:g} cpu")
    if osf.user_storage_mib is not None:
        parts.append(f"home {osf.user_storage_mib}M")
    return ", ".join(parts)


class ImagesPane(FetchedPane[ImageRow]):
    """Flavours, images and tags."""

    name_ = "images"
    title = "Images"
    short = "Images"
    help_ = (
        "Flavours (OSFs) with their disk images, and the tags that say which image desktops boot. "
        "Moving a tag moves desktops: with a soft limit they are asked, at the hard limit they are restarted."
    )
    noun = "di"
    nouns = frozenset({"osf", "di", "tag", "operation", "vm"})
    columns: ClassVar[tuple[Column[Any], ...]] = COLUMNS
    actions = IMAGE_ACTIONS
    BINDINGS: ClassVar[list[BindingType]] = bindings(IMAGE_ACTIONS)
    empty = "There are no OSFs yet: A adds one, then a imports an image."

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._beneath: dict[int, list[ImageRow]] = {}
        """The images of each flavour."""

    async def fetch(self) -> dict[Key, ImageRow]:
        """The whole tree."""
        osfs, dis, arriving = await self.site.database.images()
        rows = tree(osfs, dis, arriving, self.site.tally.running, self.site.tally.following)
        self._beneath = {osf.id: [] for osf in osfs}
        for row in rows.values():
            if not isinstance(row.of, Osf):
                self._beneath[row.osf_id].append(row)
        return rows

    def searched(self, record: ImageRow) -> str:
        """Its words, and the flavour to which it belongs; a flavour is found by its images too."""
        words = f"{record.osf.casefold()}\0{super().searched(record)}"
        if not isinstance(record.of, Osf):
            return words
        return "\0".join([words, *map(self.searched, self._beneath.get(record.id, ()))])

    def action_sort(self, by: int) -> None:
        """Say that there is nothing to choose."""
        self.notify("Flavours stand by their names, each above its images.", title="Sort")

    def action_reverse(self) -> None:
        """Say the same."""
        self.action_sort(0)

    def apply(self, changed: Mapping[Key, ImageRow], gone: frozenset[Key] = frozenset()) -> None:
        """With an image comes its flavour, last: whether that is shown depends on its images."""
        records = self.all_records()
        concerned = [*changed.values(), *(records[key] for key in gone if key in records)]
        flavours = {
            (0, row.osf_id): changed.get((0, row.osf_id), records.get((0, row.osf_id))) for row in concerned
        }
        last = {key: row for key, row in flavours.items() if row is not None and key not in gone}
        super().apply({key: row for key, row in changed.items() if key not in last} | last, gone)

    def admits(self, record: ImageRow, passing: set[int]) -> bool:
        """An image that passes, and every flavour that has one."""
        if not isinstance(record.of, Osf):
            return record.id in passing
        return any(row.id in passing for row in self._beneath.get(record.id, ()))

    def noun_of(self, row: Any) -> str:
        """Images and flavours."""
        return "osf" if isinstance(row.of, Osf) else "operation" if row.arriving else "di"

    def name_of(self, row: Any) -> object:
        """A flavour's name, an image's version."""
        return row.name

    def called(self, row: Any) -> str:
        """An image with its flavour: `office v3`."""
        return str(row.name) if isinstance(row.of, Osf) else f"{row.osf} {row.name}"

    def sections(self, record: ImageRow) -> list[Section]:
        """What its row tells."""
        return of_osf(record) if isinstance(record.of, Osf) else of_image(record)

    async def more(self, record: ImageRow) -> list[Section]:
        """Properties and history."""
        if record.arriving:
            return []
        noun = self.noun_of(record)
        return [
            facts.properties(await self.site.database.properties(noun, record.id)),
            facts.history(await self.site.database.history(noun, record.id)),
        ]


def tree(
    osfs: list[Osf],
    dis: list[Di],
    arriving: list[ArrivingDi],
    running: Any,
    following: Any,
) -> dict[Key, ImageRow]:
    """The rows: each flavour, and beneath it what arrives, then its images from the newest."""
    rows: dict[Key, ImageRow] = {}
    for osf in osfs:
        coming = [one for one in arriving if one.osf_id == osf.id]
        ours = sorted(
            (di for di in dis if di.osf_id == osf.id), key=lambda di: (di.retired is not None, -di.id)
        )
        place = osf.name.casefold(), osf.id
        beneath: list[ArrivingDi | Di] = [*coming, *ours]
        rows[(0, osf.id)] = ImageRow(
            id=osf.id,
            osf_id=osf.id,
            osf=osf.name,
            of=osf,
            order=(*place, 0),
            running=sum(running.get(di.id, 0) for di in ours),
            followers=sum(following.get(di.id, 0) for di in ours),
        )
        for number_, one in enumerate(beneath, 1):
            rows[(1, one.id)] = ImageRow(
                id=one.id,
                osf_id=osf.id,
                osf=osf.name,
                of=one,
                order=(*place, number_),
                is_last=number_ == len(beneath),
                running=running.get(one.id, 0),
                followers=following.get(one.id, 0),
            )
    return rows


def of_osf(row: ImageRow) -> list[Section]:
    """A flavour: what its desktops get, and how they age."""
    osf = row.of
    assert isinstance(osf, Osf)
    ageing = osf.ageing
    yes_no = {True: "yes", False: "no"}
    postponed = f"{ageing.postpone_times} times" if ageing.postpone_times else "no"
    return [
        Section(
            "Each desktop gets",
            [
                ("Backend", (osf.backend, "plain")),
                ("Memory", (f"{osf.memory_mib} MiB", "plain")),
                ("Processors", (f"{osf.cpus:g}" if osf.cpus else "no limit", "plain")),
                ("Home", (f"{osf.user_storage_mib} MiB" if osf.user_storage_mib else "no limit", "plain")),
            ],
        ),
        Section(
            "Ageing",
            [
                ("Idle move", (yes_no[ageing.expire_idle], "plain")),
                ("On leaving", (yes_no[ageing.expire_on_disconnect], "plain")),
                ("Put off", (postponed, "plain")),
            ],
        ),
    ]


def of_image(row: ImageRow) -> list[Section]:
    """An image: what it is, and who uses it."""
    if not isinstance(row.of, Di):
        return [Section("On its way", [("OSF", (row.osf, "plain"))])]
    di = row.of
    lines: list[tuple[str, Cell]] = [
        ("OSF", (di.osf, "plain")),
        ("State", (di.state, STATE_STYLES[di.state])),
        ("Tags", (", ".join(di.tags) or "none", "info" if di.tags else "dim")),
        ("Size", (amount(di.size_bytes), "plain")),
        ("Since", (facts.local(di.created), "plain")),
        ("Sha256", (di.sha256[:16], "dim")),
        ("File", (di.path, "dim")),
        ("Id", (str(di.id), "dim")),
    ]
    if di.notes:
        lines.insert(0, ("Notes", (di.notes, "plain")))
    if di.until is not None:
        lines.append(("Goes", (facts.local(di.until.astimezone(UTC)), "warn")))
    use: list[tuple[str, Cell]] = [
        ("Run it", (f"{row.running:,} desktops", "plain")),
        ("Boot next", (f"{row.followers:,} desktops", "plain")),
    ]
    return [Section("Image", lines), Section("Use", use)]
