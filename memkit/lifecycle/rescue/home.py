"""The kernel that rescued variables come back to, and what of it they refer to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memkit.lifecycle.demotion import Demotion
from memkit.lifecycle.holders import Namespace
from memkit.lifecycle.registration import Registration
from memkit.lifecycle.rescue.manifest import Entry, read_layout
from memkit.lifecycle.rescue.picture import NOBODY
from memkit.lifecycle.store import Store, Stored
from memkit.lifecycle.tracker import Tracker


@dataclass(frozen=True, slots=True)
class Home:
    """The kernel that variables come back to."""

    tracker: Tracker
    demotion: Demotion
    registration: Registration
    space: Namespace
    store: Callable[[], Store]
    session: object = None


def stored_of(folder: Path, entry: Entry, home: Home, code: Callable[[str], Any]) -> Stored:
    """A rescue's file as the store reads it; `code` answers the function or class of a variable by its name."""
    path = folder / entry.file
    return Stored(
        key=0, names=entry.names, tier="disk", raw_bytes=entry.raw, stored_bytes=entry.stored, freed_bytes=0,
        mapped=entry.mapped, kept=(home.space.variables, code, home.session), path=path,
        layout=read_layout(path.with_suffix(".layout"), entry.layout), head=bytes.fromhex(entry.head), owner=NOBODY,
    )  # fmt: skip


@dataclass(slots=True)
class Recipe:
    """A reload recipe that is read when it is first needed; written down it is the recipe itself."""

    home: Home
    name: str
    stored: Stored

    def __call__(self) -> Any:
        return self.recipe()()

    def recipe(self) -> Any:
        """The recipe that the dead kernel had."""
        return self.home.store().load(self.stored)[self.name]

    def __reduce__(self) -> Any:
        return same, (self.recipe(),)


def same(value: Any) -> Any:
    """What a recipe is written down as leads to itself."""
    return value
