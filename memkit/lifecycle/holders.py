"""The four ways a value is held.

owned     memkit holds it; `Handle.get()` hands it out
variable  a name in the notebook holds it; memkit reads and clears the name
observed  the user holds it; memkit has a weak reference and lets go when the user does
external  it is outside this process (a model in Ollama); memkit has only callbacks
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, MutableMapping
from typing import Any, Literal, Protocol

from memkit.lifecycle.resource import Tier

Kind = Literal["owned", "variable", "observed", "external"]


class _Gone:
    """The answer of a holder that holds nothing."""

    def __repr__(self) -> str:
        return "GONE"


GONE = _Gone()


class Holder(Protocol):
    """Where a value is kept. None of these runs foreign code but `External`'s callbacks."""

    kind: Kind
    tier: Tier
    demotable: bool

    def get(self) -> Any:
        """The value, or GONE."""

    def clear(self) -> None:
        """Let go of the value; harmless when there is none."""

    def place(self, value: Any) -> None:
        """Put a restored value back."""

    def references(self, value: Any) -> int:
        """How many references to the value this holder accounts for."""


class Keeper(Protocol):
    """What a front end keeps of values besides the user's names, as IPython does in `Out` and in tracebacks."""

    def references(self, value: Any) -> int:
        """How many references to the value `forget` would clear."""

    def forget(self, value: Any) -> object:
        """Clear every reference the front end itself keeps."""

    def forget_traceback(self, value: Any) -> object:
        """Clear the last traceback if its frames hold the value."""


class Namespace:
    """The names whose values can be tracked as variables, and the front end that may keep more of them."""

    def __init__(self, variables: MutableMapping[str, Any] | None = None, keeper: Keeper | None = None) -> None:
        self.variables: MutableMapping[str, Any] = {} if variables is None else variables
        self.keeper = keeper


class Owned:
    """memkit holds the value."""

    kind: Kind = "owned"
    tier: Tier = "ram"
    demotable = True
    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def get(self) -> Any:
        return self._value

    def clear(self) -> None:
        self._value = GONE

    def place(self, value: Any) -> None:
        self._value = value

    def references(self, value: Any) -> int:
        return 1 if self._value is value else 0


class Variable:
    """A name of a namespace holds the value; `ident` tells when the user has bound the name to something else."""

    kind: Kind = "variable"
    tier: Tier = "ram"
    demotable = True
    __slots__ = ("ident", "name", "space")

    def __init__(self, space: Namespace, name: str) -> None:
        self.space = space
        self.name = name
        self.ident = id(self.get())

    def get(self) -> Any:
        return self.space.variables.get(self.name, GONE)

    def clear(self) -> None:
        value = self.space.variables.pop(self.name, GONE)
        if value is not GONE and self.space.keeper is not None:
            self.space.keeper.forget(value)

    def place(self, value: Any) -> None:
        self.ident = id(value)
        self.space.variables[self.name] = value

    def references(self, value: Any) -> int:
        kept = 0 if self.space.keeper is None else self.space.keeper.references(value)
        return (self.get() is value) + kept


class Observed:
    """The user holds the value; `on_gone` is called once it has died, from wherever that happens."""

    kind: Kind = "observed"
    tier: Tier = "ram"
    demotable = False
    __slots__ = ("__weakref__", "_reference", "on_gone")

    def __init__(self, value: Any, on_gone: Callable[[], object] = lambda: None) -> None:
        self.on_gone = on_gone
        self._reference: weakref.ref[Any] | None = weakref.ref(value, lambda _: self.on_gone())

    def get(self) -> Any:
        value = self._reference() if self._reference is not None else None
        return GONE if value is None else value

    def clear(self) -> None:
        self._reference = None

    def place(self, value: Any) -> None:
        raise TypeError("an observed value is the user's; it is never placed")

    def references(self, value: Any) -> int:
        return 0


class External:
    """Something outside this process, known only through callbacks; `measure` gives its bytes."""

    kind: Kind = "external"
    tier: Tier = "external"
    demotable = False
    __slots__ = ("measure",)

    def __init__(self, measure: Callable[[], int] | None = None) -> None:
        self.measure = measure

    def get(self) -> Any:
        return None

    def clear(self) -> None:
        """Nothing is held here: letting go is the work of the resource's `on_release`."""

    def place(self, value: Any) -> None:
        """Nothing is held here: coming back is the work of the resource's `reload`."""

    def references(self, value: Any) -> int:
        return 0
