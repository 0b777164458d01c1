"""What single libraries need so that running out of memory ends in an exception and not in the process' end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from memkit.memory.guard import copyonwrite, stepwise
from memkit.memory.guard.gate import Gate, Post, let_in
from memkit.memory.guard.imports import WEIGHTS, ImportGate
from memkit.memory.guard.mappings import ADAPTED, Mappings
from memkit.memory.guard.patch import Patch
from memkit.units import MIB

# OpenBLAS 0.3.30 in numpy 2.4 and again in scipy 1.17 maps 32 MiB at the first product that two threads share, and
# calls exit(1) where it cannot. Of square matrices 128 is the smallest such product; 256 takes 2 ms.
_SIDE = 256
_ROOM_TO_WARM_UP = 32 * MIB
_THREADS = "mode.max_threads"


class Libraries:
    """The import gate, the mappings and the adaptations, put in place and taken away together.

    Libraries that are loaded are adapted at once, others as soon as they have been imported, also within one cell.
    """

    def __init__(self, weights: Mapping[str, int] = WEIGHTS) -> None:
        self._post = Post()
        self._patches: list[Patch] = []
        self._adapted: set[str] = set()
        self._pandas: Any = None
        self._arrow: tuple[Any, Any] | None = None  # the library, and the pool it had
        self._adaptations: dict[str, Callable[[Any], object]] = {
            "numpy": self._adapt_numpy,
            "scipy.linalg": self._warm_up_scipy,
            "pandas": self._adapt_pandas,
            "pandas.io.parsers.c_parser_wrapper": self._adapt_reader,
            "torch": self._adapt_torch,
            "pyarrow": self._adapt_arrow,
        }
        self._mappings = Mappings()
        after = dict.fromkeys(self._adaptations, self._adapt) | dict.fromkeys(ADAPTED, self._mappings.adapt)
        self._imports = ImportGate(weights, after)

    def install(self, gate: Gate) -> None:
        """Idempotent."""
        self._post.take(gate)
        self._mappings.install(gate)
        self._imports.install(gate)

    def uninstall(self) -> None:
        """Everything as it was before; idempotent."""
        self._imports.uninstall()
        self._mappings.uninstall()
        for patch in reversed(self._patches):
            patch.undo()
        self._patches.clear()
        self._adapted.clear()
        if self._pandas is not None and self._pandas.get_option(_THREADS) == 1:
            self._pandas.set_option(_THREADS, None)
        self._pandas = None
        if self._arrow is not None:
            self._arrow[0].set_memory_pool(self._arrow[1])
        self._arrow = None
        self._post.leave()

    def _adapt(self, library: Any) -> None:
        if library.__name__ not in self._adapted:
            self._adapted.add(library.__name__)
            self._adaptations[library.__name__](library)

    def _adapt_numpy(self, numpy: Any) -> None:
        self._patches += copyonwrite.adapt(self._post, numpy)
        self._warm_up(numpy, lambda square: square @ square)

    def _warm_up_scipy(self, linalg: Any) -> None:
        self._warm_up(sys.modules["numpy"], lambda square: linalg.blas.dgemm(1.0, square, square))

    def _warm_up(self, numpy: Any, multiply: Callable[[Any], object]) -> None:
        gate = self._post.gate
        if gate is not None and gate.free() >= _ROOM_TO_WARM_UP:
            with let_in(gate):
                multiply(numpy.zeros((_SIDE, _SIDE)))

    def _adapt_pandas(self, pandas: Any) -> None:
        """From 3.1 on `read_csv` reads in several threads, of which one without memory ends the process (segfault), and
        the others go on for seconds after the exception. What the user has chosen stays."""
        with suppress(KeyError):  # pandas' OptionError: an older pandas has no such option
            if pandas.get_option(_THREADS) is None:
                pandas.set_option(_THREADS, 1)
                self._pandas = pandas

    def _adapt_arrow(self, pyarrow: Any) -> None:
        """Its own allocators reserve a GiB, of which no limit and no reading tells how much is taken, and keep it."""
        self._arrow = pyarrow, pyarrow.default_memory_pool()
        pyarrow.set_memory_pool(pyarrow.system_memory_pool())

    def _adapt_reader(self, wrapper: Any) -> None:
        self._patches.append(stepwise.adapt(wrapper.CParserWrapper))

    def _adapt_torch(self, torch: Any) -> None:
        """`torch.load(mmap=True)` and safetensors map privately through these; measured: all of it counts as data."""
        storage = torch.UntypedStorage
        self._patches.append(Patch(storage, "from_file", lambda before: staticmethod(self._unlimited(before))))
        self._patches.append(Patch(torch, "from_file", self._unlimited))

    def _unlimited(self, before: Any) -> Any:
        def from_file(*args: Any, **options: Any) -> Any:
            gate = self._post.gate
            if gate is None:
                return before(*args, **options)
            with gate.lifted():
                return before(*args, **options)

        return from_file
