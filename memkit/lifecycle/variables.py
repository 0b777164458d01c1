"""Notebook variables: in memory and held while a cell uses them, followed when the user rebinds or deletes them."""

from __future__ import annotations

from collections.abc import Iterable

from memkit.errors import ReleasedError
from memkit.lifecycle.demotion import Demotion
from memkit.lifecycle.holders import GONE, Variable
from memkit.lifecycle.resource import Resource
from memkit.lifecycle.tracker import Tracker


class Variables:
    """What happens to tracked variables around the code that mentions them. `stale` are those to be sized again."""

    def __init__(self, tracker: Tracker, demotion: Demotion) -> None:
        self._tracker = tracker
        self._demotion = demotion
        self.stale: set[str] = set()

    def is_tracked(self, name: str) -> bool:
        """Whether a tracked variable has this name."""
        resource = self._tracker.find(name)
        return resource is not None and resource.holder.kind == "variable"

    def enter(self, names: Iterable[str]) -> list[Resource]:
        """Pin the tracked ones of these names and bring back those that are demoted; give the list to `leave`.

        Raises what the restoration raises; nothing stays pinned then.
        """
        pinned: list[Resource] = []
        try:
            for name in sorted(names):
                if self.is_tracked(name):
                    self._hold(name, pinned)
        except BaseException:
            self.leave(pinned)
            raise
        return pinned

    def _hold(self, name: str, pinned: list[Resource]) -> None:
        try:
            resource = self._tracker.pin(name, cell=True)
        except ReleasedError:  # it was past its deadline and has just gone; the cell will say so
            return
        pinned.append(resource)
        if not self._demotion.restore(resource, "mentioned by the cell"):
            self._tracker.log.hits += 1

    def leave(self, pinned: Iterable[Resource]) -> None:
        """End what `enter` began: the access ends now, and what the code did to the names is taken over."""
        for resource in pinned:
            self._tracker.unpin(resource, cell=True)
            self.stale.add(resource.name)
        self.reconcile()

    def reconcile(self) -> None:
        """Follow the names: a rebound one is tracked with its new value, a deleted one no longer."""
        for resource in self._tracker.resources():
            if isinstance(resource.holder, Variable) and resource.operation is None:
                self._follow(resource, resource.holder)

    def _follow(self, resource: Resource, holder: Variable) -> None:
        value = holder.get()
        if value is GONE:
            if not resource.demoted:
                self._tracker.forget(resource, "deleted", "its name was deleted")
        elif resource.demoted or id(value) != holder.ident:
            holder.ident = id(value)
            self.stale.add(resource.name)
            self._tracker.settle(resource, "ram", None, kind="rebound", reason="the name has a new value")

    def forget_all(self, reason: str) -> None:
        """Stop tracking every variable, demoted ones too: the namespace was reset."""
        for resource in self._tracker.resources():
            if resource.holder.kind == "variable":
                self._tracker.forget(resource, "deleted", reason)
