"""Moving values out of the way and bringing them back: compress, spill, unload, restore."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from memkit.errors import CorruptedError, DemotionError, MemkitError, NotWorthwhileError, ReloadError, SharedMemoryError
from memkit.lifecycle.events import EventKind
from memkit.lifecycle.holders import GONE
from memkit.lifecycle.operation import Claimant, Operation
from memkit.lifecycle.release import notify
from memkit.lifecycle.resource import Resource, Tier
from memkit.lifecycle.tracker import Tracker
from memkit.lifecycle.who import Who

if TYPE_CHECKING:  # imported when something is first demoted
    from memkit.lifecycle.store import Store, Stored

log = logging.getLogger("memkit")

Demote = Literal["compress", "spill", "unload"]


class Demotion:
    """Demotes and restores claimed resources; `store` is asked for its store when there is something to put there.

    A value is let go of only after its stored form is complete, and a stored form is given up only after its value
    is back: whatever interrupts the work, one of the two is there. `make_room(bytes)` is asked before a restoration.
    """

    def __init__(
        self,
        tracker: Tracker,
        store: Callable[[], Store],
        who: Who,
        make_room: Callable[[int], object] = lambda size: None,
    ) -> None:
        self._tracker = tracker
        self._store = store
        self._who = who
        self._make_room = make_room

    def demote(self, resources: Sequence[Resource], action: Demote, reason: str, by: Claimant) -> None:
        """Compress, spill or unload as one group; values that share memory still share it when they come back.

        Raises PinnedError, or DemotionError with the values where they were. What would not shrink is spilled.
        """
        with self._tracker.claim(resources, action, by) as operation:
            resources = [r for r in resources if not self._is_there(r, action)]
            if action == "unload":
                for resource in filter(self._recipe, resources):
                    self._unload(resource, reason)
            resources = [r for r in resources if r.tier != "unloaded"]
            self._check_demotable(resources)
            self._move_to_disk([r for r in resources if r.tier == "compressed"], reason)
            resources = [r for r in resources if not r.demoted]
            if resources:
                self._put_away(resources, action, reason, operation)

    def _is_there(self, resource: Resource, action: Demote) -> bool:
        """Whether the resource already is as far away as asked."""
        return resource.tier in ("disk", "unloaded") or (resource.tier == "compressed" and action == "compress")

    def _recipe(self, resource: Resource) -> bool:
        return resource.options.reload is not None or resource.holder.kind == "external"

    def _check_demotable(self, resources: Sequence[Resource]) -> None:
        for resource in resources:
            if not resource.holder.demotable:
                raise DemotionError(f"{resource.name!r} is {resource.holder.kind}: memkit cannot move it")

    def _put_away(self, resources: Sequence[Resource], action: Demote, reason: str, operation: Operation) -> None:
        values = {r.name: r.holder.get() for r in resources}
        for resource in resources:
            if values[resource.name] is GONE:
                self._tracker.forget(resource, "deleted", "its name is gone")
                raise DemotionError(f"{resource.name!r} is not there any more; it is no longer tracked")
        references = {r.name: r.holder.references(values[r.name]) for r in resources}
        shared = ""
        try:
            stored = self._write(values, references, resources, action, operation)
        except SharedMemoryError as error:
            shared = str(error)  # the error itself holds the values, and would be found among their holders
        if shared:
            raise SharedMemoryError(self._with_holders(shared, values))
        try:
            if operation.cancelled or any(r.holder.get() is not values[r.name] for r in resources):
                raise DemotionError(f"{', '.join(values)}: came into use while being moved; left in place")
        except BaseException:
            self._store().discard(stored)
            raise
        tier: Tier = stored.tier
        kind: EventKind = "spilled" if tier == "disk" else "compressed"
        for resource in resources:
            self._tracker.settle(resource, tier, stored, kind=kind, reason=reason)
            resource.holder.clear()

    def _with_holders(self, message: str, values: dict[str, Any]) -> str:
        """The message, naming who else holds the values."""
        holders: dict[str, None] = {}
        for value in values.values():
            holders.update(dict.fromkeys(self._who(value, without=tuple(values))))
        return f"{message}; held by {', '.join(holders)}" if holders else message

    def _write(
        self,
        values: dict[str, Any],
        references: dict[str, int],
        resources: Sequence[Resource],
        action: Demote,
        operation: Operation,
    ) -> Stored:
        def cancelled() -> bool:
            return operation.cancelled

        if action == "compress":
            try:
                return self._store().pack(values, cancelled=cancelled, exempt_refs=references)
            except NotWorthwhileError as error:
                log.debug("memkit: %s; spilled instead", error)
        compress = resources[0].policy.compress
        return self._store().spill(values, compress=compress, cancelled=cancelled, exempt_refs=references)

    def _move_to_disk(self, resources: Sequence[Resource], reason: str) -> None:
        """Compressed bytes go to disk as they are; a group goes together."""
        for resource in resources:
            if resource.tier == "disk":  # it went with another of its group
                continue
            stored = resource.stored
            members = [r for r in self._tracker.resources() if r.stored is stored]
            moved = self._store().move_to_disk(stored)
            for member in members:
                self._tracker.settle(member, "disk", moved, kind="spilled", reason=reason)

    def _unload(self, resource: Resource, reason: str) -> None:
        value = resource.holder.get()
        if value is not GONE:
            notify(self._tracker, resource, value)
        self._tracker.settle(resource, "unloaded", None, kind="unloaded", reason=reason)
        resource.holder.clear()

    def restore(self, resource: Resource, reason: str = "asked for") -> bool:
        """Bring a resource, and the group it was demoted with, back into memory; False when it is there already.

        Raises CorruptedError, or ReloadError where its recipe raises; it then stays demoted.
        """
        if not resource.demoted:
            return False
        members = [r for r in self._tracker.resources() if r.stored is resource.stored and r.stored is not None]
        with self._tracker.claim(members or [resource], "restore", "access"):
            if not resource.demoted:  # another thread was quicker
                return False
            self._tracker.log.misses += 1
            if resource.tier == "unloaded":
                self._reload(resource, reason)
            else:
                self._bring_back(members, reason)
            return True

    def _bring_back(self, members: Sequence[Resource], reason: str) -> None:
        stored: Stored = members[0].stored
        if stored.tier == "compressed" or not stored.mapped:
            self._make_room(stored.raw_bytes)
        try:
            values = self._store().load(stored)
        except CorruptedError as error:
            for member in members:
                self._tracker.log.add("failed", member.name, member.policy.type, member.size, str(error))
            raise
        for member in members:
            member.holder.place(values[member.name])
            self._tracker.settle(member, "ram", None, kind="restored", reason=reason, mapped=stored.mapped)

    def _reload(self, resource: Resource, reason: str) -> None:
        recipe = resource.options.reload
        if recipe is None:
            raise MemkitError(f"{resource.name!r} was unloaded and has no reload recipe")
        self._make_room(resource.size)
        try:
            value = recipe()
        except Exception as error:
            why = f"its reload recipe raised {type(error).__name__}: {error}"
            raise ReloadError(f"{resource.name!r} could not be made anew: {why}; it stays unloaded") from error
        external = resource.holder.kind == "external"
        resource.holder.place(value)
        self._tracker.settle(resource, "external" if external else "ram", None, kind="restored", reason=reason)
