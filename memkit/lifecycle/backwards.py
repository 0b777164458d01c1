"""Holders that no name leads to, found backwards through the garbage collector."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType, FunctionType, ModuleType
from typing import Any

from memkit.lifecycle import edges, frames, peek
from memkit.lifecycle.edges import Path

_MOST_PARTS = 10_000
_HIGHEST = 4  # steps up from a holder to something with a name

NAMELESS = "(reached through gc)"  # ends the description of a holder that no name leads to


def holders(value: object, excluded: set[int], is_late: Callable[[], bool]) -> list[str]:
    """Places that refer to the value, told by the nearest thing above them that has a name.

    `excluded` are ids of holders known already. Objects the collector does not track (arrays, and dicts and tuples of
    plain values) are not seen from here.
    """
    if is_late():
        return []
    own = _parts_of(value)
    found = []
    referrers = gc.get_referrers(value)
    own.add(id(referrers))
    for holder in referrers:
        if id(holder) not in excluded and id(holder) not in own and not _is_ours(holder):
            found.append(_told(holder, value, own, is_late))
        if is_late():
            break
    return found


def _parts_of(value: object) -> set[int]:
    """Ids of what the value consists of: a circle through itself is no holder."""
    own, waiting = {id(value)}, [value]
    while waiting and len(own) < _MOST_PARTS:
        for part in edges.children(waiting.pop()):
            if id(part) not in own and not peek.is_kind(type(part), type):
                own.add(id(part))
                waiting.append(part)
    return own


def _is_ours(holder: Any) -> bool:
    frame = edges.suspended_frame(holder) if edges.is_suspended(holder) else holder
    return peek.is_ours(type(holder)) or (type(frame) is FrameType and frames.is_ours(frame))


def _told(holder: Any, value: Any, own: set[int], is_late: Callable[[], bool]) -> str:
    chain = [value, holder]
    for _ in range(_HIGHEST):
        start = _start(chain[-1])
        if start is not None:
            return _way(start, chain)
        above = None if is_late() else _above(chain, own)
        if above is None:
            break
        _join(chain, above)
    return f"an object of type {peek.type_name(holder)} {NAMELESS}"


def _join(chain: list[Any], above: Any) -> None:
    """Go up; what Python puts in between (cells, the dict of a class) is left out."""
    held = set(map(id, edges.children(above)))
    direct = next((i for i, one in enumerate(chain) if id(one) in held), len(chain) - 1)
    chain[direct + 1 :] = [above]


def _way(path: Path, chain: list[Any]) -> str:
    """From the named end of a chain back to the value."""
    for i in range(len(chain) - 1, 0, -1):
        parent, child = chain[i], chain[i - 1]
        if path.is_root:
            path = Path(f"module `{path.text}`.{_name(parent, child)}", is_code=False)
        elif type(parent) is not FrameType:
            path = edges.step(path, parent, child)
    return str(path)


def _name(names: dict[str, Any], child: Any) -> str:
    return next((str(name) for name, held in list(names.items()) if held is child), "?")


def _start(place: Any) -> Path | None:
    """The words for something that has a name of its own."""
    if type(place) is FrameType:
        return Path(frames.describe(place, None, ""), is_code=False, joins=False)
    if edges.is_suspended(place):
        return Path(edges.suspended_text(place))
    if type(place) is FunctionType:
        return Path(place.__qualname__)
    if peek.is_kind(type(place), type):
        return Path(peek.class_name(place))
    if type(place) is dict:
        module = next((n for n, m in list(sys.modules.items()) if type(m) is ModuleType and vars(m) is place), None)
        return Path(module, is_root=True) if module is not None else None
    return None


def _above(chain: list[Any], own: set[int]) -> Any:
    """What holds the end of the chain, something with a name before anything else."""
    candidates = [
        one
        for one in gc.get_referrers(chain[-1])
        if one is not chain and id(one) not in own and type(one) is not ModuleType and not _is_ours(one)
    ]
    return next((one for one in candidates if _start(one) is not None), candidates[0] if candidates else None)
