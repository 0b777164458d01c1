"""The ceilings that apply to this process, and which of them leaves the least room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memkit.errors import UnitError
from memkit.units import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HUB_VARIABLE = "MEM_LIMIT"  # set by JupyterHub's spawners: bytes, sometimes as float text


@dataclass(frozen=True, slots=True)
class Constraint:
    """A ceiling: `limit` bytes, of which `used` cannot be had by dropping caches."""

    name: str
    limit: int
    used: int

    @property
    def room(self) -> int:
        """Bytes left, never below 0 nor above the limit: kernel counters lag and may briefly disagree."""
        return min(self.limit, max(0, self.limit - self.used))


@dataclass(frozen=True, slots=True)
class Effective:
    """All ceilings as one: the lowest limit, the least room, whose room that is, and by how much it is exceeded."""

    limit: int
    available: int
    binding: str
    over: int


def effective(constraints: Sequence[Constraint]) -> Effective:
    """The one ceiling that several amount to; of equal ones the first is named."""
    tightest = min(constraints, key=lambda constraint: constraint.room)
    over = max(0, tightest.used - tightest.limit)
    return Effective(min(constraint.limit for constraint in constraints), tightest.room, tightest.name, over)


def hub_limit(environ: Mapping[str, str]) -> tuple[int | None, str | None]:
    """The limit a hub put into the environment, and a note where its text makes no sense; unset or 0 is no limit."""
    text = environ.get(HUB_VARIABLE, "").strip()
    if not text:
        return None, None
    try:
        return parse_bytes(text) or None, None
    except UnitError as error:
        return None, f"{HUB_VARIABLE} is ignored: {error}"
