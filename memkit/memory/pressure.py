"""From the share of memory in use to a level, with hysteresis; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from memkit.errors import ConfigError
from memkit.units import MIB, format_share

Level = Literal["normal", "warning", "emergency"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares of the limit at which a level begins, the share below which it ends, and bytes to keep free.

    Raises ConfigError with every problem unless 0 < recovery < warning < emergency <= 1 and reserve >= 0.
    """

    warning: float = 0.75
    emergency: float = 0.90
    recovery: float = 0.70
    reserve: int = 512 * MIB

    def __post_init__(self) -> None:
        checks = {
            f"recovery ({format_share(self.recovery)}) must be above 0 %": self.recovery > 0,
            f"recovery ({format_share(self.recovery)}) must be below warning ({format_share(self.warning)})": (
                self.recovery < self.warning
            ),
            f"warning ({format_share(self.warning)}) must be below emergency ({format_share(self.emergency)})": (
                self.warning < self.emergency
            ),
            f"emergency ({format_share(self.emergency)}) must be at most 100 %": self.emergency <= 1,
            f"reserve ({self.reserve} bytes) must be 0 or more": self.reserve >= 0,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise ConfigError(problems)

    @property
    def relief(self) -> float:
        """The share below which an emergency becomes a warning: as far below its mark as recovery is below warning."""
        return self.emergency - (self.warning - self.recovery)


def next_level(current: Level, share: float, thresholds: Thresholds) -> Level:
    """The level after a reading: rises at once at a mark, falls only below the mark's lower edge."""
    if share >= thresholds.emergency or (current == "emergency" and share >= thresholds.relief):
        return "emergency"
    if share >= thresholds.warning or (current != "normal" and share >= thresholds.recovery):
        return "warning"
    return "normal"


def reserve_for(limit: int, thresholds: Thresholds) -> int:
    """Bytes to keep free so that releasing can run: the reserve, or an eighth of the limit where that is smaller."""
    return min(thresholds.reserve, limit // 8)


def bytes_to_free(limit: int, available: int, level: Level, thresholds: Thresholds) -> int:
    """Bytes whose release brings the use below the recovery mark and, in an emergency, also frees the reserve."""
    if level == "normal":
        return 0
    excess = (limit - available) - _most_below(thresholds.recovery, limit)
    missing = reserve_for(limit, thresholds) - available if level == "emergency" else 0
    return max(0, excess, missing)


def _most_below(mark: float, limit: int) -> int:
    """The most bytes in use whose share is below the mark, as `next_level` sees it: by the same rounded division."""
    used = math.floor(mark * limit) + 1
    while used / limit >= mark and used > 0:
        used -= 1
    return used
