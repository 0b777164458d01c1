"""What a kernel and its successor have in common, and whether a folder's name speaks of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

from memkit.lifecycle.store.folder import RESCUED

_NONE = "0" * 8


def keys(connection_file: str | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Digests of the connection file's name, kept over a restart of the kernel, and of the notebook's, kept over a
    restart of the server. Empty where the kernel has no connection file."""
    if not connection_file:
        return ()
    session = environ.get("JPY_SESSION_NAME", "")
    return _digest(os.path.basename(connection_file)), _digest(session) if session else _NONE


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=4).hexdigest()


def folder_name(of: tuple[str, ...], unique: str) -> str:
    """The name of a rescue's folder."""
    return f"{RESCUED}{'-'.join(of)}-{unique}"


def is_of(name: str, of: tuple[str, ...]) -> bool:
    """Whether a folder of this name holds a rescue of the kernel with these keys: one of them is the same."""
    return name.startswith(RESCUED) and bool((set(of) - {_NONE}).intersection(name.split("-")[1:3]))
