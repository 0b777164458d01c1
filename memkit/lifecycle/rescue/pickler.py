"""Writing a value so that another process can read it: the store's exact reductions, and the notebook's code."""

from __future__ import annotations

import io
import types
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from memkit.lifecycle.rescue import code
from memkit.lifecycle.rescue.code import REDUCERS
from memkit.lifecycle.store.pickling import Pickler, Writing
from memkit.lifecycle.store.stream import StreamWriter

Maker = Callable[[Writing, StreamWriter], Pickler]


def _refuse(value: Any) -> Any:
    raise TypeError(f"a {type(value).__name__} belongs to the process that made it")


# cloudpickle would turn these into something else: a file into its text, a view of memory into bytes.
_REFUSED: dict[type, Any] = dict.fromkeys((io.TextIOWrapper, memoryview), _refuse)


class RescuePickler(Pickler):
    """`named` maps the ids of the functions and classes that variables hold to these variables' names; `own` are the
    names being written now; `globals` is the notebook's namespace; `session` is not written but found again."""

    dispatch_table: Any = ChainMap(_REFUSED, cloudpickle.Pickler.dispatch_table)  # noqa: RUF012 - read by pickle itself

    def __init__(
        self,
        writing: Writing,
        stream: StreamWriter,
        named: Mapping[int, str],
        own: frozenset[str],
        globals: Mapping[str, Any],
        session: object,
    ) -> None:
        super().__init__(writing, stream)
        self._named = named
        self._own = own
        self._globals = globals
        self._session = session
        self._cloud = cloudpickle.Pickler(io.BytesIO(), 5)

    def reducer_override(self, value: Any) -> Any:
        name = self._named.get(id(value))
        if name is not None and name not in self._own:
            return code.variable, (name,)
        cls = type(value)
        if (reduce := REDUCERS.get(cls)) is not None:
            return reduce(value)
        if cls is types.FunctionType:
            self.last = value
            own = value.__globals__ is self._globals
            return code.reduce_function(value) if own else self._cloud.reducer_override(value)
        if isinstance(value, type):
            self.last = value
            return self._cloud.reducer_override(value)
        if cls is types.ModuleType:
            return NotImplemented
        if value is self._session:
            return code.kept, (code.SESSION,)
        return super().reducer_override(value)


def maker(named: Mapping[int, str], own: frozenset[str], globals: Mapping[str, Any], session: object) -> Maker:
    """What `pickling.dump` makes its pickler with."""
    return lambda writing, stream: RescuePickler(writing, stream, named, own, globals, session)
