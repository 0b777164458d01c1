"""pandas' C reader, a chunk at a time.

It reads a whole file in one call, in which no signal is handled, and crashes when an allocation fails. It makes chunks
of its own and puts them together at the end; here it is asked for them one by one, with Python in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memkit.memory.guard.patch import Patch

_BUFFER = 1 << 20  # pandas/_libs/parsers.pyx: a chunk has the largest power of two of rows below this over the width


def adapt(wrapper: Any) -> Patch:
    """Patch `pandas.io.parsers.c_parser_wrapper.CParserWrapper`."""

    def stepwise(before: Any) -> Any:
        def read(self: Any, nrows: int | None = None) -> Any:
            whole = self._reader
            if nrows is None and self.low_memory:
                self._reader = _Stepwise(whole)
            try:
                return before(self, nrows)
            finally:
                self._reader = whole

        return read

    return Patch(wrapper, "read", stepwise)


class _Stepwise:
    """Stands in for a TextReader while one file is read."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def read_low_memory(self, nrows: int | None) -> list[Any]:
        """The chunks that the reader would have made; raises StopIteration where there is nothing."""
        chunks = [chunk for part in self._parts() for chunk in part]
        if not chunks:
            raise StopIteration
        return chunks

    def _parts(self) -> Iterator[list[Any]]:
        rows = 1 << max(0, (_BUFFER // max(1, self._reader.table_width)).bit_length() - 1)
        while True:
            try:
                part = self._reader.read_low_memory(rows)
            except StopIteration:
                return
            yield part
