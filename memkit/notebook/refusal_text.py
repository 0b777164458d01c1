"""The words a cell ends with that ran out of memory; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from memkit.errors import MemkitError, MemoryGuardInterrupt
from memkit.lifecycle.reports import Report
from memkit.memory.guard.handler import message
from memkit.notebook.aftermath import Place, describe
from memkit.notebook.growth import Grown
from memkit.units import GIB, MIB, format_bytes

_WORTH_NAMING = MIB
_LONGEST = 200  # characters of a foreign message


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to say. `wanted` bytes at once, where the error says so; policies have `freed`, or could free."""

    error: BaseException
    refused: Any
    growing: tuple[Grown, ...]
    places: tuple[Place, ...]
    wanted: int | None
    freed: Report | None
    could_free: int


def text_of(told: Told, shell: Any) -> str:
    """The message, several lines without a line break at its end."""
    lines = [_first(told), _ways(told), _foreign(told.error), *(f"  {describe(one, shell)}" for one in told.places)]
    if told.freed is not None:
        lines.insert(2, f"  memkit has freed {_freed(told.freed)}: run the cell again")
    return "\n".join(line for line in lines if line)


def _first(told: Told) -> str:
    """The guard's own words, where it has ended the cell; an allocation that has failed is told in the same."""
    if isinstance(told.error, (MemkitError, MemoryGuardInterrupt)) and str(told.error):
        return str(told.error)
    if told.refused is None:
        return "this cell needed more memory than is left."
    return message(told.refused)


def _ways(told: Told) -> str:
    named = [one for one in told.growing if one.size >= _WORTH_NAMING]
    kept = [one.name for one in named if not one.where and one.name.isidentifier()]
    ways = [f"del {', '.join(kept)}"] if kept else []
    if told.could_free >= _WORTH_NAMING:
        ways.append(f"%memkit reclaim {_round(told.could_free)}")
    to_go_on = "to go on: " + "   |   ".join([*(ways or ["%memkit top"]), _last_way(told.error)])
    growing = "growing: " + ", ".join(map(_grown, named)) if named else ""
    return f"  {growing}          {to_go_on}" if growing else f"  {to_go_on}"


def _last_way(error: BaseException) -> str:
    """What was refused before it was tried can be tried all the same."""
    tried = not isinstance(error, MemkitError) or str(error).startswith("this cell")
    return "read in chunks" if tried else "memkit.guard.lift()"


def _grown(one: Grown) -> str:
    name = f"{one.name} in {one.where}" if one.where else one.name
    since = "gone with this error" if one.where else "new in this cell" if one.new else "grown in this cell"
    return f"{name} ({one.type}, {format_bytes(one.size)}, {since})"


def _foreign(error: BaseException) -> str:
    """What another library has said, in one line."""
    if isinstance(error, (MemkitError, MemoryGuardInterrupt)):
        return ""
    text = " ".join(str(error).split())
    return f"  {type(error).__name__.lstrip('_')}: {text[:_LONGEST]}" if text else ""


def _freed(report: Report) -> str:
    done = [f"{', '.join(report.demoted)} moved away"] if report.demoted else []
    done += [f"{', '.join(report.released)} released"] if report.released else []
    return f"{format_bytes(report.measured)} since ({'; '.join(done)})"


def _round(size: int) -> str:
    """A size as one would type it, not less than it is."""
    return f"{math.ceil(size / GIB * 10) / 10:g}GiB" if size >= GIB else f"{math.ceil(size / MIB)}MiB"
