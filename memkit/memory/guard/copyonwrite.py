"""Changing a file mapped with mode "c" takes memory page by page, in one C call, and no limit stops it.

The mapping itself may be larger than all memory, and passes. It is the change that is refused: before a method of
`numpy.memmap` writes, what it would write and does not yet own must fit.
"""

from __future__ import annotations

from typing import Any

from memkit.memory.guard.gate import Gate, Post, demand
from memkit.memory.guard.patch import Patch
from memkit.memory.residency import private_share
from memkit.units import MIB

_LARGE = 32 * MIB  # smaller changes are seen by the watcher in time
_PAGE = 4096  # the least that one changed element costs
_ARITHMETIC = (
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "lshift",
    "rshift",
    "and",
    "or",
    "xor",
)
_WHOLE = ("fill", "sort", "partition", *(f"__i{name}__" for name in _ARITHMETIC))


def adapt(post: Post, numpy: Any) -> list[Patch]:
    """Stand before every method of `numpy.memmap` that writes; what it inherits goes on being inherited elsewhere."""

    def whole(before: Any) -> Any:
        def method(self: Any, *args: Any, **options: Any) -> Any:
            gate = post.gate
            if gate is not None and self.nbytes >= _LARGE and getattr(self, "mode", None) == "c":
                _demand(gate, self, self.nbytes)
            return before(self, *args, **options)

        return method

    def item(before: Any) -> Any:
        def __setitem__(self: Any, index: Any, value: Any) -> None:  # noqa: N807
            gate = post.gate
            if gate is not None and self.nbytes >= _LARGE and getattr(self, "mode", None) == "c":
                _demand(gate, *_target(numpy, self, index))
            before(self, index, value)

        return __setitem__

    names = [name for name in _WHOLE if hasattr(numpy.memmap, name)]
    return [Patch(numpy.memmap, "__setitem__", item), *(Patch(numpy.memmap, name, whole) for name in names)]


def _target(numpy: Any, array: Any, index: Any) -> tuple[Any, int]:
    """What an assignment writes to, and at most how many bytes; a list or mask of places may touch a page for each."""
    parts = index if isinstance(index, tuple) else (index,)
    if all(part is None or part is Ellipsis or isinstance(part, (int, slice, numpy.integer)) for part in parts):
        view = numpy.ndarray.__getitem__(array, index)
        return (view, view.nbytes) if isinstance(view, numpy.ndarray) else (array, 0)
    places = sum(int(numpy.count_nonzero(part)) for part in parts if getattr(part, "dtype", None) == "bool")
    places = places or max((numpy.size(part) for part in parts), default=0)
    return array, min(array.nbytes, places * _PAGE)


def _demand(gate: Gate, array: Any, count: int) -> None:
    if count >= _LARGE:
        owned = private_share(array.__array_interface__["data"][0], array.nbytes) or 0.0
        demand(gate, int(count * (1 - owned)), "changing this part of a mapped file in memory")
