"""Doing to a resource what its policy says."""

from __future__ import annotations

from memkit.config import Action
from memkit.errors import DemotionError, PinnedError, ReleasedError, ReleaseError
from memkit.lifecycle.demotion import Demotion
from memkit.lifecycle.operation import Claimant
from memkit.lifecycle.order import gentle
from memkit.lifecycle.release import Release
from memkit.lifecycle.reports import Outcome, Skipped
from memkit.lifecycle.resource import Resource
from memkit.lifecycle.tracker import Tracker
from memkit.units import format_ttl

_ASK_AGAIN = 30.0  # seconds


class Acts:
    """Applies a policy's action to one resource and notes what came of it; a failure leaves the resource as it was."""

    def __init__(self, tracker: Tracker, release: Release, demotion: Demotion) -> None:
        self._tracker = tracker
        self._release = release
        self._demotion = demotion

    def apply(self, resource: Resource, action: Action, reason: str, outcome: Outcome, by: Claimant = "policy") -> bool:
        """True when the resource was let go of or moved.

        A policy does not ask again for a while what could not be moved and has not been used since: under lasting
        pressure each reading would search anew for who holds it.
        """
        if by == "policy" and (why_not := self._refused(resource)):
            outcome.skipped.append(Skipped(resource.name, why_not))
            return False
        try:
            self._do(resource, action, reason, outcome, by)
        except (PinnedError, ReleasedError) as error:
            outcome.skipped.append(Skipped(resource.name, str(error)))
        except ReleaseError as error:
            outcome.failed.append(Skipped(resource.name, str(error)))
        except DemotionError as error:
            outcome.skipped.append(Skipped(resource.name, str(error)))
            resource.refused = (self._tracker.clock(), str(error))
            self._tracker.log.add("failed", resource.name, resource.policy.type, resource.size, str(error))
        else:
            return action != "keep"
        return False

    def _refused(self, resource: Resource) -> str:
        """Why it could not be moved a short while ago; empty when it is worth asking."""
        when, why = resource.refused or (0.0, "")
        fresh = self._tracker.clock() - when < _ASK_AGAIN and resource.used <= when
        return why if fresh else ""

    def _do(self, resource: Resource, action: Action, reason: str, outcome: Outcome, by: Claimant) -> None:
        if action == "release":
            self._release.one(resource, reason, outcome, by)
        elif action != "keep":
            size = resource.in_memory
            self._demotion.demote([resource], action, reason, by)
            outcome.demoted.append(resource.name)
            outcome.expected += size

    def expire(self, resource: Resource, outcome: Outcome, why: str = "") -> None:
        """Do the next step of a resource that is past its deadline, or for another reason."""
        steps = resource.policy.on_expire
        why = why or f"not used for {format_ttl(resource.policy.ttl)}"
        if resource.step == 0:
            self._tracker.log.add("expired", resource.name, resource.policy.type, resource.size, why)
        if self._is_one_of_the_last(resource):
            outcome.skipped.append(Skipped(resource.name, f"min_keep {resource.policy.min_keep} of its type"))
            self._tracker.advance(resource, more=False)
            return
        action = gentle(steps[min(resource.step, len(steps) - 1)], resource.policy, resource.options.reload is not None)
        self.apply(resource, action, f"expired: {why}", outcome)
        self._tracker.advance(resource, more=resource.step + 1 < len(steps))

    def _is_one_of_the_last(self, resource: Resource) -> bool:
        """Whether without it fewer of its type would be in memory than the type keeps."""
        policy = resource.policy
        if not policy.min_keep or resource.demoted:
            return False
        resident = sum(r.policy.type == policy.type and not r.demoted for r in self._tracker.resources())
        return resident <= policy.min_keep
