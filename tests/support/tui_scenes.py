"""The screens of which pictures are kept: on which installation, and how one gets there.

Desktops, users and images are named by their ids in `tui_rows.company`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from appliance.tui.glyphs import ASCII
from tests.support.tui_rows import NOW
from tests.support.tui_site import HERE, ROUNDS, Setting, Stage, arriving, on_stage

Size = tuple[int, int]
SMALL, USUAL, LARGE = (80, 24), (120, 40), (200, 60)
SIZES = (SMALL, USUAL, LARGE)
TWO_SIZES = (SMALL, USUAL)
Steps = Callable[[Stage], Awaitable[None]]
USING = {"company": range(1, 39), "long_names": range(1, 5), "ill": range(1, 20), "crowd": range(1, 40)}
"""Which desktops use something, by installation."""
LAB_11, OFFICE_10, ARRIVING = 5, 1, 7
VIEWS = [
    {"pane": "vms", "name": "due first", "sort": "hard"},
    {"pane": "vms", "name": "trouble", "filter": "state=zombie", "sort": "state", "reverse": True},
]
PROMPT = "\x1b[1;32malice@office-3\x1b[0m:\x1b[1;34m~\x1b[0m$ "
STARTED = "[\x1b[1;32m  OK  \x1b[0m] "
CONSOLE = "\r\n".join(
    [
        f"{STARTED}Started \x1b[1msystemd-logind.service\x1b[0m - User Login Management.",
        f"{STARTED}Reached target \x1b[1mmulti-user.target\x1b[0m - Multi-User System.",
        f"{STARTED}Started \x1b[1mqvd-vma.service\x1b[0m - Agent of the desktop.",
        "",
        "Debian GNU/Linux 12 office-3 console",
        "",
        "office-3 login: alice",
        "Password:",
        "Last login: Mon Nov 23 08:12:40 UTC 2026 on console",
        f"{PROMPT}ls --color",
        "\x1b[1;34mDesktop\x1b[0m  \x1b[1;34mDocuments\x1b[0m  \x1b[1;32mbackup.sh\x1b[0m  notes.txt",
        f"{PROMPT}systemctl is-system-running",
        "\x1b[32mrunning\x1b[0m",
        f"{PROMPT}df -h --output=target,size,pcent /home",
        "Mounted on  Size Use%",
        "/home        10G  37%",
        PROMPT,
    ]
).encode()
OTHER_CONSOLE = b"\r\nDebian GNU/Linux 12 office-6 console\r\n\r\noffice-6 login: "


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One screen."""

    name: str
    steps: Steps
    fixture: str = "company"
    sizes: tuple[Size, ...] = SIZES
    setting: Setting = field(default_factory=Setting)
    imports: bool = False
    """Whether an import is under way."""

    def __str__(self) -> str:
        return self.name


@asynccontextmanager
async def played(scene: Scene, size: Size | None = None) -> AsyncIterator[Stage]:
    """The scene, on an installation that is already below the current directory."""
    rounds = ROUNDS if "dashboard" in scene.name else 1
    running = USING.get(scene.fixture, ())
    setting = replace(scene.setting, size=size or scene.sizes[0], running=running, rounds=rounds)
    with arriving(ARRIVING, scene.imports):
        async with on_stage(setting) as stage:
            await scene.steps(stage)
            yield stage


def staging() -> None:
    """Put archives into the staging directory."""
    for name, kib, days in (
        ("office-2026-12.tar.zst", 1834, 0.1),
        ("lab-2026-12.tar.zst", 2411, 0.2),
        ("old.tar", 900, 33),
    ):
        file = HERE / "storage/staging" / name
        with file.open("wb") as made:
            made.truncate(kib * 1024 * 1024)
        at = NOW.timestamp() - days * 86_400
        os.utime(file, (at, at))


# Panes


def pane(key: str, *shown: str, cursor: Hashable = None) -> Steps:
    """A pane by its key, when it shows these texts."""

    async def steps(stage: Stage) -> None:
        await stage.press(key)
        await stage.until_shown(*shown)
        if cursor is not None:
            await stage.go(cursor)

    return steps


def keys(first: Steps, *more: str, shown: tuple[str, ...] = ()) -> Steps:
    """More keys, and what they bring."""

    async def steps(stage: Stage) -> None:
        await first(stage)
        await stage.press(*more)
        await stage.until_shown(*shown)

    return steps


def marked(first: Steps, *records: Hashable) -> Steps:
    """The same with marks."""

    async def steps(stage: Stage) -> None:
        await first(stage)
        await stage.go(*records)

    return steps


DASHBOARD = pane("1", "user disable", "Next deadlines")
VMS = pane("2", "office-3", cursor=3)
USERS = pane("3", "chiara", cursor=3)
IMAGES = pane("4", "2026-11", cursor=(1, LAB_11))
SESSIONS = pane("5", "farid", cursor=6)
HOSTS = pane("6", "192.0.2.10")
EVENTS = pane("7", "user disable")
SETTINGS = pane("8", "expire.batch")
CONSOLES = pane("9", "No console is open")


async def console(stage: Stage) -> None:
    """A console with somebody at its keys, and another one behind it."""
    await pane("2", "office-6", cursor=6)(stage)
    await stage.press("c")
    await stage.until_shown("login:", "you write")
    await stage.press("ctrl+right_square_bracket", "escape")
    await VMS(stage)
    await stage.press("c")
    await stage.until_shown("systemctl", "you write")


PANES = tuple(
    Scene(name=name, steps=steps, imports=name == "images")
    for name, steps in (
        ("dashboard", DASHBOARD),
        ("vms", VMS),
        ("users", USERS),
        ("images", IMAGES),
        ("sessions", SESSIONS),
        ("hosts", HOSTS),
        ("events", EVENTS),
        ("settings", SETTINGS),
        ("consoles-none", CONSOLES),
        ("details-of-desktop", keys(marked(VMS, 6), "enter", shown=("office-6", "Since"))),
        ("details-of-failure", keys(marked(VMS, 11), "enter", shown=("exit status 127",))),
        ("marks", marked(VMS, 2, 3, 6)),
    )
)
CONSOLE_SCENES = (
    Scene(name="console-typing", steps=console, setting=Setting(consoles={3: CONSOLE, 6: OTHER_CONSOLE})),
    Scene(
        name="console-commands",
        steps=keys(console, "ctrl+right_square_bracket", shown=("take over",)),
        setting=Setting(consoles={3: CONSOLE, 6: OTHER_CONSOLE}),
    ),
)

# Dialogs and lines


async def good_time(stage: Stage) -> None:
    """A time as people write it."""
    await VMS(stage)
    await stage.press("e")
    await stage.until_shown("Expire hard")
    await stage.press("tab", '"10:00 saturday')
    await stage.until_shown("Sat 28 Nov 10:00")


async def bad_time(stage: Stage) -> None:
    """A time with a slip."""
    await VMS(stage)
    await stage.press("e")
    await stage.until_shown("Expire hard")
    await stage.press("tab", '"now + 3 dayz')
    await stage.until_shown("^")


async def passwords(stage: Stage) -> None:
    """Two that differ."""
    await USERS(stage)
    await stage.press("P")
    await stage.until_shown("again")
    await stage.press('"open', "tab", '"ope')
    await stage.until_shown("differ")


async def tagging(stage: Stage) -> None:
    """A tag, with the desktops that would move."""
    await IMAGES(stage)
    await stage.press("t")
    await stage.until_shown("Expire soft")
    await stage.press('"default', "tab", '"now + 30 minutes', "tab", '"now + 2 days')
    await stage.until_shown("would boot", "lab-3")


async def picker(stage: Stage) -> None:
    """Files that wait."""
    staging()
    await IMAGES(stage)
    await stage.press("a")
    await stage.until_shown("office-2026-12")


async def importing(stage: Stage) -> None:
    """An import, on its way."""
    await picker(stage)
    await stage.press('"office-2026-12.tar.zst', "tab", '"office', "enter")
    await stage.until_shown("62%")


async def properties(stage: Stage) -> None:
    """Properties of two desktops."""
    await marked(VMS, 3, 6)(stage)
    await stage.press("p")
    await stage.until_shown("4711")


async def done(stage: Stage) -> None:
    """Two commands, one of which failed."""
    await marked(VMS, 4)(stage)
    await stage.press("b")
    await stage.until_shown("qa vm block", "✓")


DIALOGS = tuple(
    Scene(name=name, steps=steps, setting=Setting(remembered={"views": VIEWS}))
    for name, steps in (
        ("confirm-plain", keys(marked(VMS, 4, 15), "s", shown=("Start 2 desktops",))),
        ("confirm-dangerous", keys(marked(VMS, 3, 6, 9), "x", shown=("Stop 3 desktops",))),
        ("confirm-all", keys(VMS, "asterisk", "r", shown=("Restart",))),
        ("confirm-typed", keys(marked(VMS, 26), "D", shown=("cannot be undone",))),
        ("form-vm-add", keys(VMS, "a", shown=("Bulk",))),
        ("form-vm-edit", keys(VMS, "E", shown=("name",))),
        ("form-expiry-good", good_time),
        ("form-expiry-wrong", bad_time),
        ("form-password", passwords),
        ("form-message", keys(VMS, "m", shown=("Message",))),
        ("form-osf-add", keys(IMAGES, "A", shown=("Memory",))),
        ("tagging", tagging),
        ("import-picker", picker),
        ("import-progress", importing),
        ("properties", properties),
        ("columns", keys(VMS, "f2", shown=("Columns",))),
        ("saved-views", keys(VMS, "f3", shown=("due first",))),
        ("help", keys(VMS, "question_mark", shown=("Every desktop",))),
        ("palette", keys(VMS, "ctrl+p", '"stop', shown=("VMs: Stop",))),
        ("filter-right", keys(VMS, "slash", '"state=running,osf=off*', shown=(" of 38",))),
        ("filter-wrong", keys(VMS, "slash", '"state=running,', shown=("has no '='",))),
        ("filter-words", keys(VMS, "slash", '"bruno lab', shown=("2 of 38",))),
        ("filter-nothing", keys(VMS, "slash", '"nobody', shown=("Nothing matches",))),
        ("go-to", keys(VMS, "colon", '"ima', shown=("images",))),
        ("refusal", keys(marked(VMS, 4), "x", shown=("not running",))),
    )
)
COMMANDS = (Scene(name="command-log", steps=keys(done, "l"), sizes=TWO_SIZES),)
"""Where there is room for the history of a desktop, it tells when the command was really given."""

# Odd installations

SPECIAL = (
    *(
        Scene(name=f"empty-{name}", steps=pane(key, shown), fixture="nothing", sizes=TWO_SIZES)
        for key, name, shown in (
            ("1", "dashboard", "nobody is connected"),
            ("2", "vms", "no desktops yet"),
            ("3", "users", "no users yet"),
            ("4", "images", "no OSFs yet"),
            ("5", "sessions", "Nobody is connected"),
        )
    ),
    *(
        Scene(name=f"crowd-{name}", steps=steps, fixture="crowd", sizes=TWO_SIZES)
        for name, steps in (
            ("dashboard", pane("1", "10,000 in all")),
            ("vms", keys(pane("2", "desk-1"), "G", shown=("desk-10000",))),
            ("confirm", keys(pane("2", "desk-1"), "asterisk", "x", shown=("6,000 desktops",))),
        )
    ),
    *(
        Scene(name=f"long-{name}", steps=steps, fixture="long_names", sizes=TWO_SIZES)
        for name, steps in (
            ("dashboard", pane("1", "Next deadlines")),
            ("vms", pane("2", "営業部")),
            ("details", keys(pane("2", "営業部", cursor=2), "enter", shown=("Uses",))),
            ("users", pane("3", "максимилиана")),
            ("images", pane("4", "第二十三版")),
            ("sessions", pane("5", "鈴木一郎")),
            ("events", pane("7", "vm edit")),
            ("confirm", keys(pane("2", "営業部"), "asterisk", "x", shown=("4 desktops",))),
        )
    ),
    *(
        Scene(name=f"ill-{name}", steps=steps, fixture="ill", sizes=TWO_SIZES)
        for name, steps in (
            ("dashboard", pane("1", "image: 2026-11")),
            ("vms", pane("2", "wants-stop")),
            ("details", keys(pane("2", "zombie", cursor=2), "enter", shown=("Failures",))),
        )
    ),
)


async def dead(stage: Stage) -> None:
    """The daemon has been away for a while."""
    await stage.pass_time(83)
    await stage.until_shown("daemon down 00:01:23")


def dead_then(first: Steps) -> Steps:
    """A pane without the daemon."""

    async def steps(stage: Stage) -> None:
        await first(stage)
        await dead(stage)

    return steps


DEAD = tuple(
    Scene(name=f"dead-{name}", steps=dead_then(steps), setting=Setting(daemon=False), sizes=TWO_SIZES)
    for name, steps in (("dashboard", DASHBOARD), ("vms", VMS), ("hosts", HOSTS))
)
PLAIN_SIGNS = tuple(
    Scene(name=f"ascii-{name}", steps=steps, setting=Setting(glyphs=ASCII), sizes=TWO_SIZES, imports=True)
    for name, steps in (
        ("dashboard", DASHBOARD),
        ("vms", VMS),
        ("images", IMAGES),
        ("tagging", tagging),
        ("confirm", keys(marked(VMS, 3, 6, 9), "x", shown=("Stop 3 desktops",))),
    )
)
READ_ONLY = (Scene(name="readonly-vms", steps=VMS, setting=Setting(read_only=True), sizes=TWO_SIZES),)
THEMES = tuple(
    Scene(name=f"{theme}-{name}", steps=steps, setting=Setting(theme=theme), sizes=(SMALL,))
    for theme in ("qvd-light", "qvd-contrast", "qvd-colourblind")
    for name, steps in (
        ("dashboard", DASHBOARD),
        ("vms", VMS),
        ("confirm", keys(marked(VMS, 3, 6, 9), "x", shown=("Stop 3 desktops",))),
    )
)
ALL = (*PANES, *CONSOLE_SCENES, *DIALOGS, *COMMANDS, *SPECIAL, *DEAD, *PLAIN_SIGNS, *READ_ONLY, *THEMES)

IN_DOCS: dict[str, tuple[str, Size]] = {
    "dashboard": ("dashboard", (120, 36)),
    "vms": ("details-of-desktop", (120, 40)),
    "tagging": ("tagging", (120, 34)),
    "console": ("console-typing", (120, 30)),
}
"""The screens that documents show, and their sizes."""


def named(name: str) -> Scene:
    """A scene by its name."""
    return next(scene for scene in ALL if scene.name == name)
