"""pandas: its own pickling, whose arrays go through ours, and the copy-on-write bonds that it leaves out.

Frames that share memory know of each other through a `BlockValuesRefs`. Were it lost while the memory stays shared,
writing into one frame would change the other.
"""

from __future__ import annotations

import copyreg
import sys
from typing import TYPE_CHECKING, Any

from memkit.lifecycle.store.reducers import Reducer, rebuilder
from memkit.lifecycle.store.reducers.arrays import set_attributes

if TYPE_CHECKING:
    from memkit.lifecycle.store.pickling import Reading, Writing


def _internals() -> Any:
    return sys.modules["pandas._libs.internals"]


def reducer(cls: type) -> Reducer | None:
    internals, pandas = _internals(), sys.modules["pandas"]
    if cls is internals.BlockValuesRefs:
        return _reduce_refs
    if issubclass(cls, internals.Block):
        return _reduce_block
    if issubclass(cls, sys.modules["pandas.core.internals.managers"].SingleBlockManager):
        return _reduce_series
    if issubclass(cls, pandas.arrays.ArrowExtensionArray):
        return _reduce_arrow
    return _reduce_index if issubclass(cls, pandas.Index) else None


def _reduce_refs(refs: Any, writing: Writing) -> Any:
    return rebuild_refs, ()


@rebuilder
def rebuild_refs(reading: Reading) -> Any:
    return _internals().BlockValuesRefs()


def _reduce_block(block: Any, writing: Writing) -> Any:
    function, arguments = block.__reduce__()[:2]
    return rebuild_block, (function, arguments, block.refs)


@rebuilder
def rebuild_block(reading: Reading, function: Any, arguments: tuple[Any, ...], refs: Any) -> Any:
    block = function(*arguments)
    if refs is not None:
        refs.add_reference(block)
        block.refs = refs
    return block


def _reduce_series(manager: Any, writing: Writing) -> Any:
    # A series' own way makes a new block of the values, where a frame's passes its blocks on.
    return type(manager), (manager.blocks[0], manager.axes[0])


def _reduce_arrow(array: Any, writing: Writing) -> Any:
    # pandas' own way first joins the chunks: a copy of the whole column.
    state = {**array.__dict__, "_cache": {}}
    return copyreg.__newobj__, (type(array),), state, None, None, set_attributes  # type: ignore[attr-defined]


def _reduce_index(index: Any, writing: Writing) -> Any:
    refs = getattr(index, "__dict__", {}).get("_references")  # a range has no memory and makes it up when asked
    if refs is None or sum(bond() is not None for bond in refs.referenced_blocks) < 2:
        return NotImplemented
    function, arguments = index.__reduce__()[:2]
    return rebuild_index, (function, arguments, refs)


@rebuilder
def rebuild_index(reading: Reading, function: Any, arguments: tuple[Any, ...], refs: Any) -> Any:
    index = function(*arguments)
    refs.add_index_reference(index)
    index._references = refs
    return index
