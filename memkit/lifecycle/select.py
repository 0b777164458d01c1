"""Which resources are meant: by name, type, pattern, priority, expiry. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from memkit.errors import MemkitError
from memkit.lifecycle.resource import ResourceInfo


@dataclass(frozen=True, slots=True)
class Selection:
    """Rules that all must hold; `names` and `pattern` are shell patterns (`tmp_*`). Empty selects nothing."""

    names: tuple[str, ...] = ()
    type: str | None = None
    pattern: str | None = None
    below_priority: int | None = None
    expired: bool = False
    all: bool = False

    @property
    def empty(self) -> bool:
        return self == Selection()

    @property
    def by_choice(self) -> bool:
        """Whether the user chose what to let go of, rather than leaving it to each type's policy."""
        return self != Selection(expired=self.expired)

    def apply(self, infos: Iterable[ResourceInfo]) -> list[ResourceInfo]:
        """The resources for which every given rule holds."""
        return [] if self.empty else [info for info in infos if self._holds(info)]

    def _holds(self, info: ResourceInfo) -> bool:
        return (
            (not self.names or any(fnmatchcase(info.name, name) for name in self.names))
            and (self.type is None or info.type == self.type)
            and (self.pattern is None or fnmatchcase(info.name, self.pattern))
            and (self.below_priority is None or info.priority < self.below_priority)
            and (not self.expired or info.state == "expired")
        )


def plain_names(names: Sequence[str]) -> list[str]:
    """Those that name one resource rather than being a pattern."""
    for name in names:
        if not isinstance(name, str):
            raise MemkitError(f"{name!r} is not a name; give the resource's name as text")
    return [name for name in names if not any(char in name for char in "*?[")]
