"""Colours of the figures; `assets/app.css` holds the same values as CSS variables."""

from __future__ import annotations

from dataclasses import dataclass

FONT = 'Inter, system-ui, -apple-system, "Segoe UI", sans-serif'


@dataclass(frozen=True)
class Theme:
    """One colour per role, as CSS hex."""

    panel: str
    text: str
    muted: str
    grid: str
    line: str
    up: str
    down: str
    accent: str
    series: tuple[str, ...]


DARK = Theme(
    panel="#141920",
    text="#dde3ea",
    muted="#8d97a5",
    grid="#222a34",
    line="#2c3541",
    up="#3dbba6",
    down="#f0875c",
    accent="#6ca8ff",
    series=("#6ca8ff", "#e0a83e", "#3dbba6", "#c792ea", "#f0875c", "#9ccc65"),
)
LIGHT = Theme(
    panel="#ffffff",
    text="#161b22",
    muted="#5b6673",
    grid="#eceff3",
    line="#dde2e8",
    up="#0b8573",
    down="#c4491d",
    accent="#1f66d6",
    series=("#1f66d6", "#a36a00", "#0b8573", "#8a3fc0", "#c4491d", "#55801f"),
)
THEMES = {"dark": DARK, "light": LIGHT}


def faded(colour: str, opacity: float) -> str:
    """Return a hex colour with an opacity, as CSS rgba."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
