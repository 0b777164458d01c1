"""Whether an error means that memory has run out, whatever library raised it, and how much was asked for; pure."""

from __future__ import annotations

import errno
import re

from memkit.errors import UnitError
from memkit.units import parse_bytes

# What an error says when memory has run out, by the name of one of its classes. Provoked under a small RLIMIT_DATA with
# CPython 3.11, torch 2.13, pandas 3.1, safetensors 0.8, glibc 2.36; tests/memory/guard/test_translate.py does it again.
_WORDS = {
    "builtins.RuntimeError": r"DefaultCPUAllocator|[Cc]an(?:'|no)t allocate memory|can't start new thread|bad_alloc",
    "builtins.ValueError": r"out of memory|malloc failure",  # pandas' ParserError; OpenSSL
    "builtins.ImportError": r"(?i)cannot allocate memory|failed to map segment|cannot map zero-fill pages",
    "builtins.SystemError": r"^error return without exception set$",  # CPython 3.11: no room for a frame
    "sqlite3.Error": r"out of memory",
    "zlib.error": r"^Error -4 ",  # Z_MEM_ERROR, zlib.h
}
# A failed fork says EAGAIN for too many processes and ENOMEM for too little memory; so does every other system call.
_CODE = errno.ENOMEM
# Memory of a device is not this process', and has other ways out.
_DEVICE = re.compile(r"\b(?:CUDA|HIP|MPS|XPU|GPU)\b")
# numpy (which writes "153. MiB"), torch's allocator, torch's mappings; pyarrow, in bytes.
_SIZES = re.compile(
    r"(?:Unable to allocate|tried to allocate|unable to mmap) (?P<size>[\d.]+ ?(?:[KMGT]i)?[Bb](?:ytes)?)\b"
    r"|(?:malloc|realloc)(?: of)? size (?P<bytes>\d+)"
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that this process could not have memory; False for the memory of a GPU."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == _CODE
    text = _text(error)
    patterns = (_WORDS.get(f"{kind.__module__}.{kind.__name__}") for kind in type(error).__mro__)
    return not _DEVICE.search(text) and any(pattern and re.search(pattern, text) for pattern in patterns)


def asked_for(error: BaseException) -> int | None:
    """The bytes that were asked for, where the message names them."""
    found = _SIZES.search(_text(error))
    if found is None:
        return None
    try:
        return parse_bytes(found["size"] or found["bytes"])
    except UnitError:
        return None


def _text(error: BaseException) -> str:
    """The message; none where a foreign class cannot write it."""
    try:
        return str(error)[:2000]
    except Exception:  # noqa: BLE001 - foreign code, while another error is being told
        return ""
