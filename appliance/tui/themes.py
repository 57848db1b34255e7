"""How the TUI can look: dark, light, high contrast, and colours that colour-blind people tell apart."""

from __future__ import annotations

from typing import Any

from textual.app import App
from textual.theme import Theme

DEFAULT = "qvd-dark"
NAMES = {
    "qvd-dark": "dark ground, the usual one",
    "qvd-light": "light ground, for bright rooms",
    "qvd-contrast": "black ground and pure colours, for tired eyes and bad screens",
    "qvd-colourblind": "blue and orange instead of green and red",
    "ansi-dark": "the sixteen colours of the terminal itself, on its dark ground",
    "ansi-light": "the same on its light ground",
}

DARK = Theme(
    name="qvd-dark",
    primary="#5FA8D3",
    secondary="#8E7CC3",
    accent="#F2B84B",
    success="#7BC47F",
    warning="#F0A04B",
    error="#E8646A",
    foreground="#DCE3EA",
    background="#12171E",
    surface="#1A212B",
    panel="#222C38",
    dark=True,
    variables={"primary-background": "#1F4E6E", "text-muted": "#8A97A6", "text-disabled": "#5C6773"},
)
LIGHT = Theme(
    name="qvd-light",
    primary="#1D6A96",
    secondary="#6A5ACD",
    accent="#9A5B00",
    success="#2E7D32",
    warning="#B25E00",
    error="#B3261E",
    foreground="#1B232C",
    background="#FBFCFD",
    surface="#F0F3F6",
    panel="#E2E8EE",
    dark=False,
    variables={"primary-background": "#BBD9EA", "text-muted": "#5A6773", "text-disabled": "#98A2AC"},
)
CONTRAST = Theme(
    name="qvd-contrast",
    primary="#00FFFF",
    secondary="#FF80FF",
    accent="#FFFF00",
    success="#00FF00",
    warning="#FFFF00",
    error="#FF6060",
    foreground="#FFFFFF",
    background="#000000",
    surface="#000000",
    panel="#202020",
    dark=True,
    variables={"primary-background": "#003C5A", "text-muted": "#D0D0D0", "text-disabled": "#A0A0A0"},
)
COLOURBLIND = Theme(
    name="qvd-colourblind",
    primary="#56B4E9",
    secondary="#CC79A7",
    accent="#F0E442",
    success="#56B4E9",
    warning="#E69F00",
    error="#FF7F50",
    foreground="#E6E9EC",
    background="#14181D",
    surface="#1B2027",
    panel="#252C35",
    dark=True,
    variables={"primary-background": "#124A6E", "text-muted": "#93A0AD", "text-disabled": "#66717C"},
)


def register(app: App[Any]) -> None:
    """Let the app know our looks, and put the usual one on."""
    for theme in (DARK, LIGHT, CONTRAST, COLOURBLIND):
        app.register_theme(theme)
    app.theme = DEFAULT
