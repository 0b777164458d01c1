"""The variables that must not be lost: made in the kernel, checksummed in it, and known outside."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys

# Taken together about 8 % of the limit: mostly numbers, as in a notebook.
_PLAIN = """
import numpy
keep_numbers = numpy.arange(LIMIT * 7 // 100 // 8, dtype="int64") * 2654435761
keep_text = "".join(f"{i:x}," for i in range(LIMIT // 100 // 16))
keep_nested = {"rows": [[i, str(i), (i / 7, None)] for i in range(5000)], "name": {"deep": [{1, 2}, b"bytes"]}}
"""
_FRAME = """
import pandas
keep_frame = pandas.DataFrame({"a": range(20_000), "b": [str(i % 97) for i in range(20_000)]})
keep_frame["c"] = keep_frame["b"].astype("category")
"""
_CODE = """
class Keep:
    def __init__(self, value):
        self.value = value
def keep_function(x):
    return keep_nested["rows"][x][1] + "!"
keep_object = Keep([1, "two", 3.0])
"""
_SUMS = """
import zlib as _zlib
_sums = {
    "numbers": (_zlib.crc32(keep_numbers), str(keep_numbers.dtype), keep_numbers.shape),
    "text": [_zlib.crc32(keep_text[i:i + 2**20].encode()) for i in range(0, len(keep_text), 2**20)],
    "nested": _zlib.crc32(repr(keep_nested).encode()),
}
"""
_FRAME_SUM = """
_sums["frame"] = (_zlib.crc32(keep_frame.to_csv().encode()), str(keep_frame.dtypes["c"]))
"""
_CODE_SUM = """
_sums["function"] = keep_function(1234)
_sums["object"] = (type(keep_object).__name__, repr(keep_object.value))
"""
# A little memory and a little work: what any next cell needs.
_WORK = """
_work = sum(bytearray(b"\\1") * (2 * 2**20)) + len([[i] for i in range(20_000)])
"""
WORK_DONE = 2 * 2**20 + 20_000


def make(frame: bool, code: bool = False) -> str:
    """The cell that makes them."""
    return _PLAIN + _FRAME * frame + _CODE * code


def check(frame: bool, code: bool = False) -> str:
    """The cell that mentions each by name and sums it up in `_sums`, and works a little."""
    return _SUMS + _FRAME_SUM * frame + _CODE_SUM * code + _WORK


@functools.cache
def expected(limit: int, frame: bool, code: bool = False, python: str = sys.executable) -> dict[str, object]:
    """What `_sums` must be; computed in a process without a kernel, so that its memory is not ours."""
    script = f"LIMIT = {limit}\n{make(frame, code)}\n{check(frame, code)}\nprint(_sums)"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    sums = ast.literal_eval(done.stdout)
    assert isinstance(sums, dict)
    return sums
