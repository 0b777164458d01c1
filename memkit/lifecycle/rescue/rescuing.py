"""What the child does when the kernel has died, or asks it to save now."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from memkit.errors import MemkitError
from memkit.lifecycle.rescue import picture, sets
from memkit.lifecycle.rescue.cause import Counters, counters, ended, likely, own_groups
from memkit.lifecycle.rescue.child import Reason
from memkit.lifecycle.rescue.journal import Journal
from memkit.lifecycle.rescue.manifest import Manifest
from memkit.lifecycle.rescue.picture import Source
from memkit.lifecycle.rescue.saving import PATIENCE, Saving
from memkit.lifecycle.rescue.writer import Place, free_for

_TOKEN_BYTES = 16
_NO_LIMIT = 2**60  # version 1 of control groups says "none" as a number near 2**63


@dataclass(frozen=True, slots=True)
class Orders:
    """What a child is sent off with: where to save, under which keys, how much; what was true when it was forked.

    `replaces` are the folders of earlier rescues that the kernel was giving back: what is left of them is saved anew.
    """

    base: Path
    keys: tuple[str, ...]
    most: int | None
    journal: Journal
    source: Callable[[], Source]
    pid: int
    taken: float
    before: Counters
    replaces: tuple[Path, ...] = ()
    patience: float = PATIENCE


def carry_out(orders: Orders, reason: Reason, line: int) -> None:
    """Save everything, and on being asked say where; in the child, which ends afterwards."""
    try:
        folder = _save(orders, reason)
        answer = str(folder)
    except (MemkitError, OSError) as error:
        answer = f"!{error}"
    if reason == "asked":
        with contextlib.suppress(OSError):  # the kernel did not wait for the answer
            os.write(line, answer.encode() + b"\n")


def _save(orders: Orders, reason: Reason) -> Path:
    manifest = _what_happened(orders, reason)
    folder, _ = sets.create(orders.base, orders.keys)
    place = Place(folder, os.urandom(_TOKEN_BYTES), free_for(folder, orders.most))
    Saving(picture.take(orders.source()), place, manifest, orders.patience).run()
    if reason == "death":
        for old in orders.replaces:
            sets.clear(old)
    return folder


def _what_happened(orders: Orders, reason: Reason) -> Manifest:
    known = Manifest(orders.pid, orders.taken, time.time(), reason == "asked", doing=orders.journal.read())
    if reason == "asked":
        return known
    how, after = ended(orders.pid), counters(own_groups())
    limited = after.limit is not None and after.limit < _NO_LIMIT
    return replace(known, cause=likely(how, orders.before, after), peak=after.peak if limited else None)


def prepare() -> None:
    """Import in the kernel whatever the child will need: in the child an import could wait for ever for a lock."""
    import encodings.idna
    import json.decoder
    import json.encoder

    import cloudpickle  # type: ignore[import-untyped]

    from memkit.lifecycle.rescue import pickler, sharing
    from memkit.lifecycle.store import store
    from memkit.lifecycle.store.reducers import arrays, arrow, by_reference, frames, images, overlap, tensors

    needed = (arrays, arrow, by_reference, cloudpickle, encodings, frames, images, json, overlap, pickler, sharing)
    assert all((*needed, store, tensors))
