"""A value as a pickle stream and out-of-band buffers, and back; what is kept in memory is referred to by index.

Only what this session wrote is ever unpickled: the layout that leads to it exists in this process' memory alone.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

from memkit.errors import CorruptedError, DemotionError, MemkitError
from memkit.lifecycle.store import failures
from memkit.lifecycle.store.reducers import REBUILDERS, Reducer, find_reducer, rebuilder
from memkit.lifecycle.store.stored import Block, Chunk, Layout
from memkit.lifecycle.store.stream import StreamReader, StreamWriter
from memkit.lifecycle.store.writing import Writer
from memkit.units import KIB

# pickle's own frames are 64 KiB: a smaller buffer costs less inside the stream than as a chunk with its own checksum.
IN_STREAM_BELOW = 64 * KIB
_OWN = "memkit.lifecycle."


class Source(Protocol):
    """Where blocks are read back from, checked."""

    def read(self, block: Block) -> memoryview: ...

    def buffer(self, chunk: Chunk) -> Any: ...


class Writing:
    """What a reducer may ask for while its value is pickled."""

    def __init__(self, writer: Writer, kept: Mapping[int, Any]) -> None:
        self._writer = writer
        self.kept = list(kept.values())
        self.kept_index = {key: index for index, key in enumerate(kept)}
        self.same: dict[Any, Any] = {}
        self.exotic = False

    def buffer(self, view: memoryview, copied: bool = False) -> int | pickle.PickleBuffer:
        """What to put into a reduction in place of the bytes: a chunk's index, or the bytes if they are few."""
        return pickle.PickleBuffer(view) if len(view) < IN_STREAM_BELOW else self._writer.buffer(view, copied)

    def keep(self, value: Any) -> int:
        """Have the object itself kept in memory; answers its index."""
        index = self.kept_index.get(id(value))
        if index is None:
            index = self.kept_index[id(value)] = len(self.kept)
            self.kept.append(value)
        return index

    def foreign_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """pickle's `buffer_callback`: True keeps the bytes in the stream."""
        view = buffer.raw()
        if len(view) < IN_STREAM_BELOW:
            return True
        self._writer.foreign_buffer(view)
        return False


class Reading:
    """What a rebuilding function may ask for while its value is unpickled."""

    def __init__(self, source: Source, layout: Layout, kept: tuple[Any, ...]) -> None:
        self._source = source
        self._layout = layout
        self.kept = kept

    def buffer(self, reference: int | bytes | bytearray) -> Any:
        """The memory that `Writing.buffer` was given, as an object with that buffer; writable unless it is bytes."""
        return self._source.buffer(self._layout.chunks[reference]) if isinstance(reference, int) else reference

    def foreign_buffers(self) -> Iterator[Any]:
        return (self.buffer(index) for index in self._layout.foreign)

    def stream(self) -> Iterator[memoryview]:
        return (self._source.read(block) for block in self._layout.stream)


@rebuilder
def kept_object(reading: Reading, index: int) -> Any:
    """An object that never left memory."""
    return reading.kept[index]


class _Reducers(dict[type, "Reducer | None"]):
    """The reducer of a type, found once; `exotic` once one was asked for that pickles in its own way."""

    exotic = False

    def __missing__(self, cls: type) -> Reducer | None:
        reducer = self[cls] = find_reducer(cls)
        self.exotic = self.exotic or (reducer is None and _is_exotic(cls))
        return reducer


class Pickler(pickle.Pickler):
    """pickle, with exact reductions for the libraries of `reducers/`."""

    def __init__(self, writing: Writing, stream: StreamWriter) -> None:
        super().__init__(stream, protocol=5, buffer_callback=writing.foreign_buffer)
        self._writing = writing
        self.reducers = _Reducers()
        self.last: Any = None

    def reducer_override(self, value: Any) -> Any:
        writing = self._writing
        index = writing.kept_index.get(id(value))
        if index is not None:
            return kept_object, (index,)
        self.last = value
        reducer = self.reducers[type(value)]
        return NotImplemented if reducer is None else reducer(value, writing)


class KeepingPickler(Pickler):
    """Asks for each object, also lists and dicts, whether it is kept: a call per object, so used only where needed."""

    def persistent_id(self, value: Any) -> int | None:
        return self._writing.kept_index.get(id(value))


class Unpickler(pickle.Unpickler):
    """Undoes what Pickler did."""

    def __init__(self, reading: Reading, stream: Any) -> None:
        super().__init__(stream, buffers=reading.foreign_buffers())
        self._reading = reading

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module.startswith(_OWN) and found in REBUILDERS:
            return functools.partial(found, self._reading)
        return found

    def persistent_load(self, index: int) -> Any:
        return self._reading.kept[index]


def _is_exotic(cls: type) -> bool:
    """Whether the class decides itself how it is pickled, so that it may be written and yet not come back."""
    root = cls.__module__.partition(".")[0]
    if root in sys.stdlib_module_names or root in _TRUSTED or issubclass(cls, type):
        return False
    own = ("__reduce__", "__reduce_ex__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
    changed = any(getattr(cls, name, None) is not getattr(object, name, None) for name in own)
    return changed or cls in copyreg.dispatch_table


PicklerMaker = Callable[[Writing, StreamWriter], Pickler]
_TRUSTED = frozenset({"numpy", "pandas", "torch", "scipy", "pyarrow", "PIL", "sklearn", "polars", "transformers"})
_LISTLIKE = (dict, list, set, tuple, frozenset, bytes, bytearray, str)


def dump(
    values: Mapping[str, Any], writer: Writer, kept: Mapping[int, Any], make: PicklerMaker | None = None
) -> Writing:
    """Write the values as one group, with the pickler of `make`. Raises DemotionError, or what `writer` raises."""
    writing = Writing(writer, kept)
    stream = StreamWriter(writer.stream_block)
    needs_ids = any(type(value) in _LISTLIKE for value in kept.values())
    pickler = (make or (KeepingPickler if needs_ids else Pickler))(writing, stream)
    try:
        pickler.dump(dict(values))
        stream.flush()
        writing.exotic = pickler.reducers.exotic
    except (MemkitError, MemoryError):
        raise
    except Exception as error:  # anything may come out of a foreign __reduce__
        raise failures.not_written(values, error, pickler.last) from error
    finally:
        # A traceback may keep the pickler alive; it must not keep what was pickled.
        pickler.clear_memo()
        pickler.last = None
    return writing


def load(source: Source, layout: Layout, kept: tuple[Any, ...]) -> dict[str, Any]:
    """Read a group back. Raises CorruptedError; MemoryError and interrupts pass."""
    reading = Reading(source, layout, kept)
    with io.BufferedReader(cast("io.RawIOBase", StreamReader(reading.stream())), 256 * KIB) as stream:
        try:
            values: dict[str, Any] = Unpickler(reading, stream).load()
        except (DemotionError, CorruptedError, MemoryError):
            raise
        except Exception as error:  # anything may come out of a foreign __setstate__
            raise CorruptedError(f"it could not be rebuilt: {type(error).__name__}: {error}") from error
    return values
