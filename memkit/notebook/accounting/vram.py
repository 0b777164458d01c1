"""The highest that torch has allocated on the GPUs while a cell ran."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("memkit")


@dataclass(frozen=True, slots=True)
class Vram:
    """Bytes that torch's allocator has handed out, summed over all GPUs: now, and the most since its peak was reset."""

    current: int = 0
    peak: int = 0


def read(modules: Mapping[str, Any] = sys.modules) -> Vram | None:
    """What torch says, about 0.05 ms a GPU; None where it is not loaded or has not used a GPU. Never wakes a GPU."""
    try:
        cuda = _cuda(modules)
        if cuda is None:
            return None
        # The nested dict costs half of what `max_memory_allocated` does, which flattens and sorts it first.
        found = [cuda.memory_stats_as_nested_dict(n)["allocated_bytes"]["all"] for n in range(cuda.device_count())]
        return Vram(sum(one["current"] for one in found), sum(one["peak"] for one in found))
    except Exception:  # foreign: torch may be half imported, its driver gone, the allocator another one
        log.debug("memkit: torch's memory cannot be read", exc_info=True)
        return None


def restart(modules: Mapping[str, Any] = sys.modules) -> None:
    """Have torch count its peak anew, for its other users too."""
    cuda = _cuda(modules)
    for number in range(cuda.device_count() if cuda is not None else 0):
        cuda.reset_peak_memory_stats(number)


def between(before: Vram | None, after: Vram | None) -> tuple[int | None, bool]:
    """The peak from one reading to another, and whether it is exact.

    It is where torch's peak has risen meanwhile. torch's own is never reset for an ordinary cell, since notebooks read
    it cells later; where it has not risen, the peak was at least what is allocated at either end.
    """
    if after is None:
        return None, True
    before = before or Vram()
    if after.peak > before.peak or after.peak == before.peak == before.current:
        return after.peak, True
    since_reset = after.peak if after.peak < before.peak else 0  # the cell has reset it
    return max(before.current, after.current, since_reset), False


def _cuda(modules: Mapping[str, Any]) -> Any:
    cuda = getattr(modules.get("torch"), "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None
