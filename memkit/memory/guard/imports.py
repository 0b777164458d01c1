"""The import gate: a large library is imported only where it fits, and told of as soon as it is there.

Without room for it `import torch` aborts the process: numpy's OpenBLAS calls exit(1), torch's C++ terminates, pandas
segfaults. A finder at the front of `sys.meta_path` lets the others find, and attends only to the loading.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from memkit.memory.guard.gate import Gate, Post, demand, let_in
from memkit.units import MIB

log = logging.getLogger("memkit")

# Growth of RssAnon by the import in a fresh process, what it imports in turn included; 20 November 2026, Linux 6.18,
# CPython 3.11, two cores: torch 2.13 CPU 141 MiB, transformers 5.23 35, tensorflow-cpu 258, jax 0.10 55, pandas 3.1
# 47, sklearn 67, pyarrow 26 15, polars 2.1 22, numpy 2.4 8, matplotlib.pyplot 39; after numpy, of scipy 1.17: linalg
# 17, sparse 16, optimize 29, signal 50, stats 46; after torch, torch._dynamo 70 and transformers.pipelines 109. VmData
# grows by up to 160 MiB more (stacks and buffers nobody touches), so the limit on it is lifted for an import let in.
_MEBIBYTES = {
    "tensorflow": 260, "torch": 145, "torch._dynamo": 70, "transformers": 35, "transformers.pipelines": 110, "jax": 60,
    "sklearn": 70, "pandas": 50, "matplotlib": 25, "matplotlib.pyplot": 40, "polars": 25, "pyarrow": 15, "numpy": 10,
    "scipy": 12, "scipy.linalg": 20, "scipy.special": 20, "scipy.sparse": 20, "scipy.fft": 20, "scipy.ndimage": 20,
    "scipy.spatial": 25, "scipy.cluster": 25, "scipy.optimize": 30, "scipy.interpolate": 32, "scipy.integrate": 32,
    "scipy.signal": 50, "scipy.stats": 50,
}  # fmt: skip
WEIGHTS: Mapping[str, int] = {name: mebibytes * MIB for name, mebibytes in _MEBIBYTES.items()}
# What an import must leave: a library that is half imported when the guard stops the cell cannot be imported again.
_LEAST_LEFT, _MOST_LEFT = 16 * MIB, 64 * MIB

Told = Callable[[Any], object]


class ImportGate:
    """Refuses an import that does not fit, before any of its code has run; `after` says what to call once it is done.

    Any thread. Uninstalled, or in a forked child, imports are as without it.
    """

    def __init__(self, weights: Mapping[str, int] = WEIGHTS, after: Mapping[str, Told] | None = None) -> None:
        self._weights = weights
        self._after = dict(after or {})
        self._post = Post()
        self._inside = threading.local()

    def install(self, gate: Gate) -> None:
        """Begin to attend to imports, and tell of what is loaded already; idempotent."""
        self._post.take(gate)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        for module in [sys.modules[name] for name in self._after if name in sys.modules]:
            if not getattr(module.__spec__, "_initializing", False):
                self._tell(module)

    def uninstall(self) -> None:
        """Take the finder away; idempotent."""
        self._post.leave()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """What the other finders find, its loading attended to where it matters (importlib's protocol)."""
        if (name not in self._weights and name not in self._after) or self._post.gate is None:
            return None
        spec = self._found_by_others(name, path, target)
        if spec is not None:
            self._attend(spec, reloading=target is not None)
        return spec

    def _found_by_others(self, name: str, path: Any, target: ModuleType | None) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None else None
            if spec is not None:
                return spec
        return None

    def _attend(self, spec: ModuleSpec, *, reloading: bool) -> None:
        """The loader stays what it is; for one call its `exec_module` is ours. Looking for a spec loads nothing."""
        loader: Any = spec.loader
        if loader is None or isinstance(loader, type) or not hasattr(loader, "exec_module"):
            return  # a namespace package, or a loader that all modules of its kind share
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if vars(loader).get("exec_module") is exec_module:
                del loader.exec_module
            self._load(module, execute, reloading=reloading)

        if "exec_module" not in getattr(loader, "__dict__", {"exec_module": None}):
            loader.exec_module = exec_module

    def _load(self, module: ModuleType, execute: Callable[[ModuleType], object], *, reloading: bool) -> None:
        gate = self._post.gate
        weight = None if reloading or gate is None else self._weights.get(module.__name__)
        with self._admitted(gate, module.__name__, weight):
            execute(module)
        if gate is not None and module.__name__ in self._after:
            self._tell(module)

    def _admitted(self, gate: Gate | None, name: str, weight: int | None) -> AbstractContextManager[None]:
        """What an import imports in turn is part of its weight."""
        if gate is None or weight is None or getattr(self._inside, "name", None):
            return nullcontext()
        left = min(_MOST_LEFT, max(_LEAST_LEFT, weight // 2))
        demand(gate, weight, f"importing {name}", besides=left, because="to go on with")
        return _Inside(self._inside, name, let_in(gate))

    def _tell(self, module: ModuleType) -> None:
        try:
            self._after[module.__name__](module)
        except Exception:
            log.warning("memkit: %s could not be adapted to the guard", module.__name__, exc_info=True)


class _Inside:
    """While a thread imports a large library."""

    def __init__(self, local: threading.local, name: str, allowed: AbstractContextManager[None]) -> None:
        self._local, self._name, self._allowed = local, name, allowed

    def __enter__(self) -> None:
        self._local.name = self._name
        self._allowed.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._local.name = None
        self._allowed.__exit__(*error)
