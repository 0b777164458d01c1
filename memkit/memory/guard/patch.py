"""Putting a function in the place of a library's, and taking it away again without a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_INHERITED = object()


class Patch:
    """One attribute of a class or module that was replaced by `make(what was there)`."""

    def __init__(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        self._owner = owner
        self._name = name
        self._before = vars(owner).get(name, _INHERITED)
        self._ours = make(getattr(owner, name))
        setattr(owner, name, self._ours)

    def undo(self) -> None:
        """As it was; if somebody else has replaced it since, theirs stays."""
        if vars(self._owner).get(self._name) is not self._ours:
            return
        if self._before is _INHERITED:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._before)
