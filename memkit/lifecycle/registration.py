"""From what the user hands over to a tracked resource: which holder, which policy, which name."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from memkit.config import Policy, closest
from memkit.errors import ConfigError, MemkitError
from memkit.lifecycle.holders import External, Holder, Kind, Namespace, Observed, Owned, Variable
from memkit.lifecycle.resource import Options, Resource, Tier
from memkit.lifecycle.tracker import Tracker
from memkit.units import parse_seconds

if TYPE_CHECKING:
    from memkit.lifecycle.sizing import Size


class _Default:
    """An argument that was not given, where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT = _Default()
GENERAL = "general"


class Registration:
    """Registers things with a tracker, following the policies of `types`."""

    def __init__(self, tracker: Tracker, types: Mapping[str, Policy], space: Namespace) -> None:
        self._tracker = tracker
        self._types = types
        self._space = space
        self._numbers = itertools.count(1)
        self._policies: dict[tuple[Any, ...], Policy] = {}

    def add(
        self,
        value: Any,
        *,
        name: str | None,
        type: str,
        ttl: Any,
        priority: int | None,
        size: int | Callable[[], int] | None,
        hold: Kind | None,
        options: Options,
    ) -> Resource:
        """Track a value; a resource of the same name is replaced. Raises ConfigError on a wrong type or priority."""
        policy = self.policy(type, ttl, priority)
        name = self._check_name(name) if name is not None else self._find_name(value, hold, type)
        kind = hold or self._kind(name, value)
        holder = self._holder(kind, name, value, size)
        measured = self._size(holder, size)
        resource = self._tracker.register(name, holder, policy, options, measured.bytes)
        resource.exact = measured.exact
        resource.tier = _tier(value, holder)
        if isinstance(holder, Observed):
            holder.on_gone = lambda: self._tracker.observed_gone(resource)
        return resource

    def policy(self, type: str, ttl: Any = DEFAULT, priority: int | None = None) -> Policy:
        """The policy of a type with the given exceptions; equal exceptions share one object."""
        base = self._types.get(type)
        if base is None:
            known = ", ".join(sorted(self._types))
            raise ConfigError([f"there is no type {type!r}{closest(type, self._types)}; known: {known}"])
        changes: dict[str, Any] = {}
        if ttl is not DEFAULT:
            changes["ttl"] = _checked_ttl(ttl)
        if priority is not None:
            changes["priority"] = _checked_priority(priority)
        if not changes:
            return base
        return self._policies.setdefault((type, *changes.items()), dataclasses.replace(base, **changes))

    def measure(self, resource: Resource) -> None:
        """Size a resource anew, where its value is in memory."""
        if not resource.demoted:
            measured = self._size(resource.holder, None)
            self._tracker.resize(resource, measured.bytes, exact=measured.exact)

    def _size(self, holder: Holder, given: int | Callable[[], int] | None) -> Size:
        from memkit.lifecycle.sizing import Size, size_of  # not before something is tracked

        if isinstance(holder, External):
            return Size(int(holder.measure()) if holder.measure is not None else 0, True, 0)
        return Size(given, True, 0) if isinstance(given, int) else size_of(holder.get())

    def _check_name(self, name: str) -> str:
        if not isinstance(name, str) or not name.strip():
            raise MemkitError(f"{name!r} is not a name; a resource's name is a non-empty text")
        return name

    def _find_name(self, value: Any, hold: Kind | None, type: str) -> str:
        """The notebook's name for this very object, or one made up from the type."""
        if hold in (None, "variable"):
            for name, bound in list(self._space.variables.items()):
                if bound is value and not name.startswith("_"):
                    return name
        if hold == "variable":
            raise MemkitError("no notebook variable holds this object; give its name")
        return next(name for n in self._numbers if (name := f"{type}-{n}") not in self._tracker)

    def _kind(self, name: str, value: Any) -> Kind:
        return "variable" if self._space.variables.get(name, self) is value else "owned"

    def _holder(self, kind: Kind, name: str, value: Any, size: int | Callable[[], int] | None) -> Holder:
        if kind == "variable":
            if name not in self._space.variables:
                raise MemkitError(f"there is no variable {name!r}{closest(name, self._space.variables)}")
            if isinstance(self._space.variables[name], ModuleType):
                raise MemkitError(f"{name!r} is a module; there is nothing to let go of")
            return Variable(self._space, name)
        if kind == "observed":
            return _observe(value)
        if kind == "external":
            return External((lambda: size) if isinstance(size, int) else size)
        return Owned(value)


def _tier(value: Any, holder: Holder) -> Tier:
    """`vram` for a tensor that lives on a GPU, by its own word; otherwise what the holder says."""
    torch = sys.modules.get("torch")
    tensor: Any = getattr(torch, "Tensor", None)
    if tensor is None or not isinstance(value, tensor):
        return holder.tier
    return "vram" if value.device.type in ("cuda", "mps", "xpu") else holder.tier


def _observe(value: Any) -> Observed:
    try:
        return Observed(value)
    except TypeError:
        kind = type(value).__name__
        raise MemkitError(f"a {kind} cannot be observed (no weak references); track it as owned instead") from None


def _checked_ttl(ttl: Any) -> float | None:
    seconds = parse_seconds(ttl)
    if seconds == 0:
        raise ConfigError(["ttl 0 would expire at once; use release, or a ttl longer than nothing"])
    return seconds


def _checked_priority(priority: Any) -> int:
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise ConfigError([f"priority {priority!r} is not a whole number"])
    return priority
