"""What there is to be saved, as the forked child finds it: values, what is stored already, recipes, modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

from memkit.lifecycle.holders import GONE
from memkit.lifecycle.rescue.manifest import Kept
from memkit.lifecycle.resource import Resource
from memkit.lifecycle.store import Store, Stored

# A Stored that belongs to no process: its file is that of a rescue, and only that removes it.
NOBODY = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Where a picture is made of: the user's `variables`, the namespace they are in, tracked resources, the
    store if there is one, the session, and objects that lead to everything (`stops`)."""

    variables: Mapping[str, Any]
    globals: Mapping[str, Any]
    resources: Iterable[Resource] = ()
    store: Store | None = None
    session: object = None
    stops: tuple[Any, ...] = ()


@dataclass(slots=True)
class Picture:
    """The same sorted by what must be done to save it."""

    source: Source
    values: dict[str, Any] = field(default_factory=dict)
    stored: dict[int, tuple[Stored, list[str]]] = field(default_factory=dict)
    recipes: dict[str, Callable[[], Any]] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Every variable, module or not, in memory or not."""
        stored = [name for _, group in self.stored.values() for name in group]
        return [*dict.fromkeys((*self.values, *stored, *self.recipes, *self.modules))]

    def named_code(self) -> dict[int, str]:
        """The functions and classes that variables hold, by id."""
        found: dict[int, str] = {}
        for name, value in self.values.items():
            if isinstance(value, (FunctionType, type)):
                found.setdefault(id(value), name)
        return found

    def type_of(self, name: str) -> str:
        return _type_name(self.values[name]) if name in self.values else "value"


def take(source: Source) -> Picture:
    """Sort what there is. Runs in the child and does nothing that could fail or wait."""
    picture = Picture(source)
    for name, value in source.variables.items():
        if type(value) is ModuleType or isinstance(value, ModuleType):
            picture.modules[name] = value.__name__
        else:
            picture.values[name] = value
    for resource in source.resources:
        _add(picture, resource)
    return picture


def _add(picture: Picture, resource: Resource) -> None:
    name, holder = resource.name, resource.holder
    if holder.kind not in ("variable", "owned"):
        return
    if resource.demoted:
        _add_demoted(picture, resource)
    elif holder.kind == "owned" and (value := holder.get()) is not GONE:
        picture.values.setdefault(name, value)
    if not resource.options.metadata.get("rescued"):
        policy, options = resource.policy, resource.options
        tags = tuple(sorted(options.tags))
        kept = Kept(policy.type, policy.ttl, policy.priority, holder.kind, resource.size, tags, options.owner)
        picture.kept[name] = kept


def _add_demoted(picture: Picture, resource: Resource) -> None:
    name, stored = resource.name, resource.stored
    if name in picture.values:  # the name was bound anew, and nobody has looked since
        return
    if resource.tier == "unloaded" and (module := resource.options.metadata.get("module")):
        picture.modules[name] = module
    elif resource.tier == "unloaded":
        if resource.options.reload is not None and not resource.options.metadata.get("rescued"):
            picture.recipes[name] = resource.options.reload
    elif stored is not None:
        picture.stored.setdefault(id(stored), (stored, []))[1].append(name)


def _type_name(value: Any) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"
