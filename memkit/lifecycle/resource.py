"""A tracked resource: what memkit knows of one thing that takes memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from memkit.config import Policy

if TYPE_CHECKING:
    from memkit.lifecycle.holders import Holder
    from memkit.lifecycle.operation import Operation

Tier = Literal["ram", "vram", "compressed", "disk", "unloaded", "external"]
State = Literal["active", "pinned", "busy", "demoted", "expired"]

NEVER = math.inf
DEMOTED_TIERS: frozenset[Tier] = frozenset({"compressed", "disk", "unloaded"})


@dataclass(frozen=True, slots=True)
class Options:
    """What few resources have: callbacks, a recipe, labels. `on_release` gets the value (None for an external one)."""

    on_release: Callable[[Any], object] | None = None
    reload: Callable[[], Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    owner: str = ""


NO_OPTIONS = Options()


class Resource:
    """The live record of one resource; changed by the tracker under its lock, and by whoever works on it.

    `used` is when the last access ended and `since` when the present step of its time to live began, both on the
    tracker's clock. `queue` is where its countdown runs, None while there is none (pinned, or expired for good);
    `step` counts the expiry actions done since the last access. `stored` is where its bytes rest while demoted.
    `mapped`: since its restoration it lies in a mapped file, whose pages the system can take back by itself.
    `refused` is when, and why, it last could not be moved. `pins` counts holds that were asked for (pins, leases),
    `cells` the running cells that mention it.
    """

    __slots__ = (
        "cells", "created", "exact", "expired", "holder", "mapped", "name", "operation", "options", "pins",
        "policy", "queue", "refused", "since", "size", "step", "stored", "tier", "ttl", "used", "uses",
    )  # fmt: skip

    def __init__(self, name: str, holder: Holder, policy: Policy, options: Options, now: float, size: int) -> None:
        self.name = name
        self.holder = holder
        self.policy = policy
        self.options = options
        self.ttl = NEVER if policy.ttl is None else policy.ttl
        self.created = self.used = self.since = now
        self.size = size
        self.exact = True
        self.tier: Tier = holder.tier
        self.uses = self.pins = self.cells = self.step = 0
        self.expired = False
        self.mapped = False
        self.refused: tuple[float, str] | None = None
        self.queue: OrderedDict[str, Resource] | None = None
        self.operation: Operation | None = None
        self.stored: Any = None

    @property
    def demoted(self) -> bool:
        """Whether the value is elsewhere and must be restored before use."""
        return self.tier in DEMOTED_TIERS

    @property
    def held(self) -> int:
        """Holds of any kind."""
        return self.pins + self.cells

    @property
    def in_memory(self) -> int:
        """Bytes of this process' own memory it takes: none where they are elsewhere, or only mapped from a file."""
        if self.tier == "compressed":
            return int(self.stored.stored_bytes)
        return self.size if self.tier == "ram" and not self.mapped else 0

    @property
    def state(self) -> State:
        if self.operation is not None:
            return "busy"
        if self.held:
            return "pinned"
        if self.demoted:
            return "demoted"
        return "expired" if self.expired else "active"

    def info(self, now: float) -> ResourceInfo:
        """A frozen picture of this resource at `now` (tracker's clock)."""
        counting = self.queue is not None and self.ttl != NEVER
        return ResourceInfo(
            name=self.name,
            policy=self.policy,
            size=self.size,
            exact=self.exact,
            tier=self.tier,
            state=self.state,
            idle=0.0 if self.held else max(0.0, now - self.used),
            age=now - self.created,
            left=max(0.0, self.since + self.ttl - now) if counting else None,
            uses=self.uses,
            pins=self.pins,
            cells=self.cells,
            kind=self.holder.kind,
            owner=self.options.owner or self.holder.kind,
            tags=self.options.tags,
            metadata=self.options.metadata,
            mapped=self.mapped,
            in_memory=self.in_memory,
            reloadable=self.options.reload is not None,
        )


@dataclass(frozen=True, slots=True)
class ResourceInfo:
    """A frozen picture of a resource: sizes in bytes, times in seconds; `left` is the time to its expiry.

    `size` is that of the value wherever it is, `in_memory` what it takes of this process' own memory now.
    """

    name: str
    policy: Policy
    size: int
    exact: bool
    tier: Tier
    state: State
    idle: float
    age: float
    left: float | None
    uses: int
    pins: int
    cells: int
    kind: str
    owner: str
    tags: frozenset[str]
    metadata: Mapping[str, Any]
    mapped: bool
    in_memory: int
    reloadable: bool

    @property
    def type(self) -> str:
        return self.policy.type

    @property
    def priority(self) -> int:
        return self.policy.priority

    @property
    def ttl(self) -> float | None:
        return self.policy.ttl

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, the policy by its type, priority and ttl."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "policy"}
        return {"name": self.name, "type": self.type, "priority": self.priority, "ttl": self.ttl, **own}
