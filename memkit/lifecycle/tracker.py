"""The table of what is tracked: register, touch, pin, find what is due.

The tracker holds the one lock of the lifecycle. Under it only records change: no callback, no pickling, no
destructor of a user's value runs while it is held. Work on a value is done by whoever has *claimed* its resource.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from memkit.config import Policy, closest
from memkit.errors import MemkitError, PinnedError, ReleasedError, UnknownResourceError
from memkit.lifecycle.events import EventKind, EventLog
from memkit.lifecycle.expiry import Expiry
from memkit.lifecycle.forks import keep_in_order_through_forks
from memkit.lifecycle.holders import Holder
from memkit.lifecycle.operation import Claimant, Operation
from memkit.lifecycle.resource import NEVER, NO_OPTIONS, Options, Resource, ResourceInfo, Tier
from memkit.lifecycle.tombstones import Tombstone, Tombstones


class Tracker:
    """All resources by name. Thread-safe; survives a fork at any moment.

    `discard(stored)` is called, outside the lock, when nothing refers to a stored value any more. `expire(resource)`
    is called, outside the lock, when a resource is asked for after its deadline and before a sweep has found it.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        log: EventLog | None = None,
        discard: Callable[[Any], None] = lambda stored: None,
        expire: Callable[[Resource], None] = lambda resource: None,
    ) -> None:
        self.clock = clock
        self.log = EventLog() if log is None else log
        self.discard = discard
        self.expire = expire
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._resources: dict[str, Resource] = {}
        self._expiry = Expiry()
        self._tombstones = Tombstones()
        # Filled by weak references' callbacks, which may run at any allocation, even under the lock.
        self._dead: deque[Resource] = deque()
        keep_in_order_through_forks(self._lock, self, Tracker._after_fork)

    # -- looking ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._resources)

    def __contains__(self, name: object) -> bool:
        return name in self._resources

    def find(self, name: str) -> Resource | None:
        """The resource of that name, or None."""
        return self._resources.get(name)

    def get(self, name: str) -> Resource:
        """The resource of that name; raises ReleasedError or UnknownResourceError."""
        resource = self._resources.get(name)
        if resource is None:
            raise self._missing(name)
        return resource

    def _missing(self, name: str) -> MemkitError:
        stone = self._tombstones.get(name)
        if stone is not None:
            return ReleasedError(str(stone))
        return UnknownResourceError(f"no resource named {name!r} is tracked{closest(name, self._resources)}")

    def tombstone(self, name: str) -> Tombstone | None:
        """What is remembered of a released name, or None."""
        return self._tombstones.get(name)

    def resources(self) -> list[Resource]:
        """Every resource, in order of registration."""
        self._bury()
        with self._lock:
            return list(self._resources.values())

    def snapshot(self) -> tuple[ResourceInfo, ...]:
        """A frozen picture of all resources at one moment."""
        self._bury()
        with self._lock:
            now = self.clock()
            return tuple(resource.info(now) for resource in self._resources.values())

    # -- registering -----------------------------------------------------------------------------------------------

    def register(
        self, name: str, holder: Holder, policy: Policy, options: Options = NO_OPTIONS, size: int = 0
    ) -> Resource:
        """Track what `holder` holds, `size` bytes of it; a resource of the same name is replaced."""
        fresh = Resource(name, holder, policy, options, self.clock(), size)
        with self._lock:
            old = self._resources.get(name)
            if old is not None:
                self._wait(old)
                self._remove(old, "replaced", "registered again")
            self._resources[name] = fresh
            self._tombstones.remove(name)
            self._expiry.add(fresh)
            self.log.add("registered", name, policy.type, size)
        if old is not None:
            self.drop_stored(old)
        return fresh

    def forget(self, resource: Resource, kind: EventKind, reason: str) -> bool:
        """Take a resource out of the table; False when it had left already. Its stored bytes go with it."""
        with self._lock:
            if self._resources.get(resource.name) is not resource:
                return False
            self._remove(resource, kind, reason)
            if kind == "released":
                self._tombstones.add(resource.name, resource.policy.type, reason)
        self.drop_stored(resource)
        return True

    def _remove(self, resource: Resource, kind: EventKind, reason: str) -> None:
        del self._resources[resource.name]
        self._expiry.remove(resource)
        self.log.add(kind, resource.name, resource.policy.type, resource.size, reason)

    def observed_gone(self, resource: Resource) -> None:
        """An observed value has died: remember to take it out. Safe in a weak reference's callback."""
        self._dead.append(resource)

    def _bury(self) -> None:
        while self._dead:
            self.forget(self._dead.popleft(), "deleted", "the observed object is gone")

    def drop_stored(self, resource: Resource) -> None:
        """Give up a resource's stored bytes; a group's go when its last member gives them up."""
        stored, resource.stored = resource.stored, None
        if stored is not None:
            self._give_up(stored)

    def _give_up(self, stored: Any) -> None:
        with self._lock:
            shared = any(other.stored is stored for other in self._resources.values())
        if not shared:
            self.discard(stored)

    # -- access ----------------------------------------------------------------------------------------------------

    def touch(self, name: str) -> None:
        """Note an access now; the time to live begins anew. O(1).

        The common case takes no lock: every step of it is atomic, and whatever another thread may have changed in
        between (a pin, a replacement) makes it raise KeyError or moves a countdown that began this very moment.
        """
        try:
            resource = self._resources[name]
            now = self.clock()
            if resource.since + resource.ttl > now:
                resource.queue.move_to_end(name)  # type: ignore[union-attr]
                resource.used = resource.since = now
                resource.uses += 1
                resource.step = 0
                return
        except (KeyError, AttributeError):  # unknown, or no countdown to move
            pass
        self._touch_slowly(name)

    def _touch_slowly(self, name: str) -> None:
        """A touch of what is pinned, overdue, expired or unknown."""
        self._expire_overdue(name)
        with self._lock:
            self._used(self.get(name))

    def _expire_overdue(self, name: str) -> None:
        """What is past its deadline has expired, whether or not a sweep has come by."""
        resource = self.get(name)
        if resource.queue is not None and resource.since + resource.ttl <= self.clock():
            with self._lock:
                self._expiry.remove(resource)
            self.expire(resource)

    def _used(self, resource: Resource) -> None:
        resource.used = resource.since = self.clock()
        resource.uses += 1
        resource.step = 0
        resource.expired = False
        if not resource.held:
            self._expiry.add(resource)

    def pin(self, name: str, *, cell: bool = False) -> Resource:
        """Hold a resource: until `unpin` it is neither expired nor demoted nor released. Cancels work under way.

        A hold of a running `cell` gives way to what that cell itself asks for by name.
        """
        self._expire_overdue(name)
        with self._lock:
            resource = self.get(name)
            self._wait(resource, cancel=True)
            if self._resources.get(name) is not resource:
                return self.pin(name, cell=cell)
            resource.pins += not cell
            resource.cells += cell
            resource.expired = False
            self._expiry.remove(resource)
            return resource

    def unpin(self, resource: Resource, *, cell: bool = False) -> None:
        """End one hold; the last one's end counts as the end of an access."""
        with self._lock:
            if not (resource.cells if cell else resource.pins):
                raise MemkitError(f"{resource.name!r} is not pinned")
            resource.pins -= not cell
            resource.cells -= cell
            if self._resources.get(resource.name) is resource:
                self._used(resource)

    # -- exclusive work --------------------------------------------------------------------------------------------

    @contextmanager
    def claim(self, resources: Sequence[Resource], kind: str, by: Claimant) -> Iterator[Operation]:
        """Have resources for oneself for the length of a demotion, restoration or release.

        Raises PinnedError when one is in use and ReleasedError when one has left. A policy never waits: whoever
        frees memory on the way to something else must not wait for a thread that may be waiting for him.
        """
        operation = Operation(kind)
        ordered = sorted(resources, key=lambda r: r.name)  # one order for all threads: no two can wait for each other
        taken: list[Resource] = []
        try:
            with self._lock:
                for resource in ordered:
                    if by != "policy":
                        self._wait(resource)
                    self._admit(resource, by)
                    taken.append(resource)
                    resource.operation = operation
            yield operation
        finally:
            with self._lock:
                for resource in taken:
                    resource.operation = None
                self._idle.notify_all()

    def _admit(self, resource: Resource, by: Claimant) -> None:
        if self._resources.get(resource.name) is not resource:
            raise self._missing(resource.name)
        if resource.operation is not None:
            raise PinnedError(f"{resource.name!r} is being worked on ({resource.operation.kind})")
        if by != "access" and resource.pins:
            raise PinnedError(f"{resource.name!r} is pinned ({resource.pins}x); %memkit unpin {resource.name}")
        if by == "policy" and resource.cells:
            raise PinnedError(f"{resource.name!r} is in use by the running cell")

    def _wait(self, resource: Resource, *, cancel: bool = False) -> None:
        """Wait, the lock given up meanwhile, until no other thread works on the resource."""
        while (work := resource.operation) is not None and work.thread != threading.get_ident():
            if cancel:
                work.cancel()
            self._idle.wait()

    def settle(
        self, resource: Resource, tier: Tier, stored: Any, *, kind: EventKind, reason: str = "", mapped: bool = False
    ) -> None:
        """Record where a claimed resource's value now is; the bytes stored before are given up.

        An interrupt may come between any two steps. In this order what is recorded is true after each of them: a tier
        that says "stored" is never without its bytes.
        """
        before = resource.stored
        with self._lock:
            if stored is not None:
                resource.stored = stored
            resource.tier = tier
            resource.mapped = mapped
            self.log.add(kind, resource.name, resource.policy.type, resource.size, reason)
        if stored is None:
            self.drop_stored(resource)
        elif before is not None:
            self._give_up(before)

    def resize(self, resource: Resource, size: int, *, exact: bool) -> None:
        """Record a resource's bytes as measured now."""
        with self._lock:
            resource.size, resource.exact = size, exact

    # -- expiry ----------------------------------------------------------------------------------------------------

    def take_due(self) -> list[Resource]:
        """Resources past their deadline, each handed out once until it is touched or advanced again."""
        self._bury()
        with self._lock:
            return self._expiry.due(self.clock())

    def due_in(self) -> float | None:
        """Seconds until the next deadline; None when there is none."""
        with self._lock:
            due = self._expiry.next_due()
            return None if due == NEVER else max(0.0, due - self.clock())

    def advance(self, resource: Resource, *, more: bool) -> None:
        """An expiry step is done: count down to the next where there are `more`, else leave it expired."""
        with self._lock:
            resource.step += 1
            resource.since = self.clock()
            resource.expired = not more
            if more and not resource.held and self._resources.get(resource.name) is resource:
                self._expiry.add(resource)

    def _after_fork(self) -> None:
        """In the child only the forking thread lives: work of the others ended in the middle."""
        me = threading.get_ident()
        for resource in self._resources.values():
            if resource.operation is not None and resource.operation.thread != me:
                resource.operation = None
