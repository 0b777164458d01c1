"""Which resources are past their time to live.

One queue for each distinct ttl, ordered by when the countdown began: a touch moves a resource to the end of its queue
and the head is always the first that is due. A touch is O(1); finding what is due costs the number of things due
plus the number of distinct ttls, however many resources are tracked.
"""

from __future__ import annotations

from collections import OrderedDict

from memkit.lifecycle.resource import NEVER, Resource


class Expiry:
    """The queues; not thread-safe, the tracker's lock guards it. What never expires waits in the queue of NEVER."""

    def __init__(self) -> None:
        self._queues: dict[float, OrderedDict[str, Resource]] = {}

    def add(self, resource: Resource) -> None:
        """Begin, or begin again, the countdown of a resource whose `since` is now."""
        queue = self._queues.get(resource.ttl)
        if queue is None:
            queue = self._queues[resource.ttl] = OrderedDict()
        queue[resource.name] = resource
        queue.move_to_end(resource.name)
        resource.queue = queue

    def remove(self, resource: Resource) -> None:
        """Stop the countdown; harmless when there is none."""
        queue = resource.queue
        if queue is not None:
            resource.queue = None
            del queue[resource.name]
            if not queue:
                del self._queues[resource.ttl]

    def due(self, now: float) -> list[Resource]:
        """Resources whose time has come, their countdown stopped, the one that expired first in front."""
        found: list[Resource] = []
        for ttl, queue in list(self._queues.items()):
            while queue and (head := next(iter(queue.values()))).since + ttl <= now:
                self.remove(head)
                found.append(head)
        return sorted(found, key=_deadline)

    def next_due(self) -> float:
        """When the next resource will be due, on the tracker's clock; NEVER when none will."""
        return min((next(iter(queue.values())).since + ttl for ttl, queue in self._queues.items()), default=NEVER)


def _deadline(resource: Resource) -> float:
    return resource.since + resource.ttl
