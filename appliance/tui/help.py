"""What `?` shows: what a pane is for, and which keys do what. Pure."""

from __future__ import annotations

from textwrap import wrap

from textual.binding import Binding
from textual.content import Content

from appliance.tui.panes.base import Pane, TablePane

EVERYWHERE = (
    ("1 to 9  :", "another pane, by number or by name"),
    ("?", "this"),
    ("ctrl+p", "every action by name"),
    ("l", "the commands of this session, as qa takes them"),
    ("ctrl+l", "draw the screen anew"),
    ("q", "quit: desktops go on as they are"),
)
IN_TABLES = (
    ("j k  arrows", "move; g and G: first and last row"),
    ("space", "mark a row; V or ctrl+space: all from the last mark to here; *: all shown"),
    ("shift+arrows", "mark while moving"),
    ("enter", "what there is to know of a row; tab: scroll there"),
    ("/", "show only rows that match words, or a filter: state=running,osf=off*"),
    ("< >  =", "sort by another column; the other way round"),
    ("F2  F3", "choose columns; saved views"),
    ("y", "copy names"),
    ("escape", "take marks, then the filter, away"),
)
IN_CONSOLES = (
    ("ctrl+]", "give the keys back to the TUI"),
    ("enter", "type into the guest again"),
    ("left right", "another console"),
    ("t  r", "take over writing; release it"),
    ("pgup pgdn", "scroll back"),
    ("/  n N", "search, next, previous"),
    ("y", "copy"),
    ("mouse", "drag copies, the wheel scrolls; with shift if the guest wants it"),
    ("w", "close (detach)"),
    ("escape", "back to the desktops"),
)
WIDTH = 14
"""Cells of a key, with what follows it."""
ROOM = 68
"""Cells of a line, in the least of dialogs."""


def explanation(pane: Pane | None, read_only: bool) -> Content:
    """The help of a pane; of the consoles with None."""
    ours: list[tuple[str, str]]
    if pane is None:
        about, title = "The consoles of guests, several at once.", "Consoles"
        ours = list(IN_CONSOLES)
    else:
        about, title = pane.help_, pane.title
        actions = [one for one in pane.actions if not (read_only and one.changes)]
        ours = [(one.key, f"{one.title}. {one.doc}") for one in actions]
        ours += [(one.key, f"{one.description}.") for one in own_keys(pane)]
    parts: list[tuple[str, str] | str] = [(f"{title}. ", "bold $text-primary"), f"{about}\n"]
    sections = [
        ("", ours),
        ("In tables", IN_TABLES if isinstance(pane, TablePane) else ()),
        ("Everywhere", EVERYWHERE),
    ]
    for heading, keys in sections:
        if not keys:
            continue
        parts.append((f"\n{heading}\n" if heading else "\n", "bold $text-muted"))
        for key, words in keys:
            first, *more = wrap(words, ROOM - WIDTH)
            parts += [(f"{key:<{WIDTH}}", "bold $text-accent"), f"{first}\n"]
            parts += [f"{'':<{WIDTH}}{line}\n" for line in more]
    return Content.assemble(*parts)


def own_keys(pane: Pane) -> list[Binding]:
    """The keys of a pane that no other has and that are no actions."""
    bindings = [one for one in pane.BINDINGS if isinstance(one, Binding)]
    return [one for one in bindings if not one.action.startswith("app.act(")]
