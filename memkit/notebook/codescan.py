"""Which names of its globals a code object uses, read from its bytecode."""

from __future__ import annotations

import re
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from opcode import opmap
from types import CodeType

_CO_OPTIMIZED = 0x1  # set on functions, not on a module or a class body (documented in `inspect`)

_LOADS = frozenset(opmap[name] for name in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS") if name in opmap)
_STORES = frozenset(opmap[name] for name in ("STORE_NAME", "STORE_GLOBAL"))
_DELETES = frozenset(opmap[name] for name in ("DELETE_NAME", "DELETE_GLOBAL"))
_LOCAL_TO_CLASS = frozenset(opmap[name] for name in ("STORE_NAME", "DELETE_NAME"))
# Since 3.11 the lowest bit of LOAD_GLOBAL's argument asks for a NULL under the value.
_SHIFTED = opmap["LOAD_GLOBAL"] if sys.version_info >= (3, 11) else -1


def _pattern() -> re.Pattern[bytes]:
    wanted = bytes(sorted(_LOADS | _STORES | _DELETES))
    prefix = re.escape(bytes([opmap["EXTENDED_ARG"]]))
    return re.compile(b"(?s)" + prefix + b"{0,3}[" + re.escape(wanted) + b"]")


_USES = _pattern()


@dataclass(frozen=True, slots=True)
class Uses:
    """Global names that a code object and all code inside it use; `names` are all its names, attributes included."""

    loads: frozenset[str]
    stores: frozenset[str]
    deletes: frozenset[str]
    names: frozenset[str]


def instructions(code: CodeType) -> Iterator[tuple[int, str]]:
    """Opcode and name wherever one code object loads, stores or deletes a global name, nested code left out.

    `co_code` holds pairs of opcode and argument; caches read as opcode 0 and specialised instructions as
    their general form, so a pattern over every other byte finds them. `dis` says the same, far more slowly.
    """
    raw, names = code.co_code, code.co_names
    opcodes, arguments = raw[::2], raw[1::2]
    for match in _USES.finditer(opcodes):
        start, end = match.span()
        opcode = opcodes[end - 1]
        index = arguments[start] if end - start == 1 else int.from_bytes(arguments[start:end], "big")
        yield opcode, names[index >> 1 if opcode == _SHIFTED else index]


def nested(code: CodeType) -> tuple[CodeType, ...]:
    """A code object and every code object inside it."""
    found, waiting = [], [code]
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting += [const for const in current.co_consts if type(const) is CodeType]
    return tuple(found)


def scan(code: CodeType) -> Uses:
    """Uses of a cell's code (or a function's), nested functions and classes counted in.

    Names that a class body assigns belong to the class; names that it reads may be the notebook's and count.
    """
    loads: set[str] = set()
    stores: set[str] = set()
    deletes: set[str] = set()
    codes = nested(code)
    for part in codes:
        in_class = part is not code and not part.co_flags & _CO_OPTIMIZED
        for opcode, name in instructions(part):
            if in_class and opcode in _LOCAL_TO_CLASS:
                continue
            (loads if opcode in _LOADS else stores if opcode in _STORES else deletes).add(name)
    names = frozenset(name for part in codes for name in part.co_names)
    return Uses(frozenset(loads), frozenset(stores), frozenset(deletes), names)


def strings(code: CodeType) -> Iterator[str]:
    """Constant texts in a code object and in the code inside it."""
    return (const for part in nested(code) for const in part.co_consts if type(const) is str)


# Keyed by identity: hashing a code object hashes its names and constants, and two equal ones may differ in nested code.
_known: dict[int, tuple[weakref.ref[CodeType], Uses]] = {}


def scan_cached(code: CodeType) -> Uses:
    """As `scan`, remembered for as long as the code object lives; any thread."""
    key = id(code)
    entry = _known.get(key)
    if entry is not None and entry[0]() is code:
        return entry[1]
    uses = scan(code)
    _known[key] = (weakref.ref(code, lambda _: _known.pop(key, None)), uses)
    return uses
