"""Who holds a value, in words a user knows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from memkit.lifecycle.holders import Namespace
from memkit.lifecycle.tracker import Tracker


class Who:
    """Asks for the holders of a value among the user's names, everything they lead to, and other resources."""

    def __init__(self, tracker: Tracker, space: Namespace) -> None:
        self._tracker = tracker
        self._space = space

    def __call__(self, value: Any, without: Collection[str] = ()) -> tuple[str, ...]:
        """The holders, leaving out the names in `without`; nameless ones only where no other is found."""
        # Imported here: asked rarely, and loading memkit should be quick.
        from memkit.lifecycle.backwards import NAMELESS
        from memkit.lifecycle.referrers import holders_of

        found = holders_of(value, roots=self._space.variables, ignore=without)
        named = [holder for holder in found if NAMELESS not in holder]
        return (*named, *self._resources(value, without)) or found

    def _resources(self, value: Any, without: Collection[str]) -> list[str]:
        """Other resources that memkit itself holds this very value for."""
        owned = [r for r in self._tracker.resources() if r.holder.kind == "owned" and r.name not in without]
        return [f"resource `{r.name}`" for r in owned if r.holder.get() is value]
