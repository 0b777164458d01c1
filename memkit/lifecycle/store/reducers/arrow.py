"""pyarrow buffers: once, however many arrays show parts of one. Everything above them pickles by itself."""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any

from memkit.lifecycle.store.reducers import Reducer, rebuilder

if TYPE_CHECKING:
    from memkit.lifecycle.store.pickling import Reading, Writing


def reducer(cls: type) -> Reducer | None:
    return _reduce_buffer if issubclass(cls, sys.modules["pyarrow"].Buffer) else None


def _reduce_buffer(buffer: Any, writing: Writing) -> Any:
    # pyarrow makes a new object for the same memory whenever asked; the first stands for all of them. It is held in
    # `same` until the end: memory freed meanwhile could come back at this address with other contents.
    first = writing.same.setdefault((buffer.address, buffer.size), buffer)
    if first is not buffer:
        return same_object, (first,)
    if not buffer.is_cpu:
        return NotImplemented
    return rebuild_buffer, (writing.buffer(pickle.PickleBuffer(buffer).raw()) if buffer.size else b"",)


@rebuilder
def rebuild_buffer(reading: Reading, reference: Any) -> Any:
    return sys.modules["pyarrow"].py_buffer(reading.buffer(reference))


def same_object(value: Any) -> Any:
    return value
