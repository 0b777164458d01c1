"""What became of one case at one limit, and whether the table allows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tests.guard.case import ALIVE, BROKEN, RESCUED, WRONG, Case


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one case. `limit` and `peak` in bytes, `seconds` of the hostile cell and `total` of all around it."""

    case: Case
    limit: int
    kind: str
    detail: str = ""  # the error's name, or the signal
    seconds: float = 0.0
    total: float = 0.0
    peak: int = 0
    oom_kills: int = 0
    note: str = ""  # the error's text, or the last words of the kernel

    @property
    def allowed(self) -> bool:
        """Whether the table foresees this end."""
        return self.kind in self.case.may

    @property
    def survived(self) -> bool:
        """Whether the kernel lives, with its variables, and runs cells."""
        return self.kind in ALIVE or self.kind == WRONG

    @property
    def kept(self) -> bool:
        """Whether every variable is there, in this kernel or in the next."""
        return self.survived or self.kind == RESCUED

    @property
    def failed(self) -> bool:
        """Whether this end is below what the table allows; a known failure is one too where variables are lost."""
        return not self.allowed and not (self.case.known_failure and self.kept)

    def as_dict(self) -> dict[str, Any]:
        """For a file of results."""
        known = {"case": self.case.name, "theme": self.case.theme, "known_failure": self.case.known_failure}
        return asdict(self) | known | {"allowed": self.allowed}


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of some outcomes were as they should be. The deaths that nothing can stop do not count as survivals."""

    of: int
    survived: int
    kept: int
    allowed: int


def rate(outcomes: Iterable[Outcome]) -> Rate:
    """The survival rate of some outcomes."""
    counted = [o for o in outcomes if o.kind != BROKEN]
    return Rate(
        len(counted),
        sum(o.survived for o in counted),
        sum(o.kept for o in counted),
        sum(o.allowed for o in counted),
    )
