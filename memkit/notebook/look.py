"""One look for plots and reports: colours, order and words of tiers, levels and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ThemeName = Literal["light", "dark"]

# Colours: Okabe and Ito, "Color Universal Design" (2008), and lighter or darker neighbours of theirs.
WARNING, EMERGENCY = "#E69F00", "#D55E00"


@dataclass(frozen=True, slots=True)
class TierLook:
    """How one tier is shown; `hatch` is matplotlib's pattern, empty for none."""

    label: str
    light: str
    dark: str
    hatch: str = ""
    dark_alpha: float = 1.0


# Stacked from bottom to top; a tier is told by label, order and hatch too, never by colour alone.
STACKED: Mapping[str, TierLook] = {
    "tracked": TierLook("RAM, tracked", "#0072B2", "#4DA3D9"),
    "untracked": TierLook("RAM, not tracked", "#7FB8D8", "#2F6F94"),
    "file_backed": TierLook("RAM, file-backed (reclaimable)", "#56B4E9", "#56B4E9", "////", 0.5),
    "compressed": TierLook("compressed", "#009E73", "#2BC79B"),
}
# Each in a row of its own, never stacked on RAM.
OWN_ROWS: Mapping[str, TierLook] = {
    "vram": TierLook("VRAM", "#CC79A7", "#DE9BBF"),
    "swap": TierLook("swap", "#D55E00", "#F07F2E"),
    "disk": TierLook("disk (spilled)", "#999999", "#8A8A8A"),
}
TIERS: Mapping[str, TierLook] = {**STACKED, **OWN_ROWS}


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a page or figure that are not a tier's."""

    name: ThemeName
    text: str
    muted: str
    grid: str
    background: str

    def tier(self, key: str) -> str:
        """The colour of a tier."""
        return getattr(TIERS[key], self.name)  # type: ignore[no-any-return]

    def alpha(self, key: str) -> float:
        """The opacity of a tier, 0 to 1."""
        return TIERS[key].dark_alpha if self.name == "dark" else 1.0


THEMES: Mapping[str, Theme] = {
    "light": Theme("light", "#1b1f24", "#57606a", "#d8dee4", "#ffffff"),
    "dark": Theme("dark", "#e6e9ed", "#9aa4b0", "#3a424c", "#14181d"),
}


@dataclass(frozen=True, slots=True)
class EventLook:
    """A lane of the event strip: its word, matplotlib's marker, and the tier whose colour it has (None: the text's)."""

    lane: str
    marker: str
    tier: str | None = None


EVENTS: Mapping[str, EventLook] = {
    "expired": EventLook("expired", "v"),
    "compressed": EventLook("demoted", "s", "compressed"),
    "spilled": EventLook("demoted", "D", "disk"),
    "unloaded": EventLook("demoted", "o"),
    "released": EventLook("released", "X"),
    "restored": EventLook("restored", "^", "tracked"),
    "failed": EventLook("failed", "P", "swap"),
}
LANES = ("expired", "demoted", "released", "restored", "failed")
WHERE_TO: Mapping[str, str] = {"compressed": "compressed", "spilled": "disk", "unloaded": "unloaded"}
