"""Letting go for good, and telling the truth about it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from memkit.errors import ReleaseError
from memkit.lifecycle.holders import GONE, Variable
from memkit.lifecycle.operation import Claimant
from memkit.lifecycle.reports import Outcome, StillHeld
from memkit.lifecycle.resource import Resource
from memkit.lifecycle.tracker import Tracker
from memkit.lifecycle.who import Who
from memkit.units import MIB

log = logging.getLogger("memkit")

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type)


class Release:
    """Releases resources; `who` names who still holds a value."""

    def __init__(self, tracker: Tracker, who: Who) -> None:
        self._tracker = tracker
        self._who = who

    def one(self, resource: Resource, reason: str, outcome: Outcome, by: Claimant) -> None:
        """Release one resource; its size counts as expected only where the bytes are in this process."""
        with self._tracker.claim([resource], "release", by):
            value = resource.holder.get()
            value = None if value is GONE else value
            notify(self._tracker, resource, value)
            resource.holder.clear()
            outcome.expected += resource.in_memory
            self._tracker.forget(resource, "released", reason)
            outcome.released.append(resource.name)
            holders = self._holders(resource, value)
        if holders:
            outcome.still_held.append(StillHeld(resource.name, holders))

    def _holders(self, resource: Resource, value: Any) -> tuple[str, ...]:
        """Who keeps a cleared value, or the memory in it, alive."""
        if isinstance(value, _ATOMS):
            return ()
        if isinstance(resource.holder, Variable) and resource.holder.space.keeper is not None:
            resource.holder.space.keeper.forget_traceback(value)
        # References here: `value` in this frame and in the caller's, the argument passed on to getrefcount.
        if sys.getrefcount(value) <= 4 and resource.size < MIB:
            return ()
        return self._who(value)


def notify(tracker: Tracker, resource: Resource, value: Any) -> None:
    """Call `on_release`. Where it raises the resource stays tracked and the failure is logged and raised."""
    callback = resource.options.on_release
    if callback is None:
        return
    try:
        callback(value)
    except Exception as error:
        reason = f"on_release raised {type(error).__name__}: {error}"
        tracker.log.add("failed", resource.name, resource.policy.type, resource.size, reason)
        log.exception("memkit: on_release of %r failed; it is still tracked", resource.name)
        raise ReleaseError(f"{resource.name!r} was not released: its {reason}") from error
