"""torch tensors in main memory: a storage once, however many tensors share it, and each tensor as a window on it."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

from memkit.errors import DemotionError
from memkit.lifecycle.store.reducers import Reducer, overlap, rebuilder
from memkit.lifecycle.store.region import is_region, starts_region

if TYPE_CHECKING:
    from memkit.lifecycle.store.pickling import Reading, Writing


def _torch() -> Any:
    return sys.modules["torch"]


def reducer(cls: type) -> Reducer | None:
    torch = _torch()
    if issubclass(cls, torch.UntypedStorage):
        return _reduce_storage
    if not issubclass(cls, torch.Tensor):
        return None
    usual = (torch.Tensor.__reduce_ex__, torch.nn.Parameter.__reduce_ex__)
    return _reduce_tensor if cls.__reduce_ex__ in usual else None


def is_plain(tensor: Any) -> bool:
    """Whether the tensor is a window on a storage in main memory."""
    return tensor.layout is _torch().strided and tensor.device.type == "cpu" and not tensor.is_quantized


def held_by(tensor: Any) -> list[Any]:
    """The tensors that this one holds in C++: its gradient, and what it is a view of."""
    gradient = tensor.grad if tensor.is_leaf else None
    return [other for other in (gradient, tensor._base) if other is not None]


def is_storage(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.UntypedStorage)


def references(value: Any) -> int:
    """How many references to a tensor or a storage there are in C++, where Python does not count them."""
    if is_storage(value):
        return int(_torch()._C._storage_Use_Count(value._cdata))
    return int(value._use_count())


def _refuse(tensor: Any) -> str | None:
    """Why the tensor cannot be written down, if it cannot."""
    if tensor.device.type != "cpu":
        return f"a tensor on {tensor.device} is not in main memory; move it with .cpu() or release it"
    if tensor.grad_fn is not None:
        return "a tensor that was computed with gradients belongs to a graph that cannot be written; .detach() it first"
    if tensor.is_quantized or tensor.is_mkldnn or tensor.is_nested:
        return "quantized, mkldnn and nested tensors cannot be written exactly"
    return None


def _reduce_tensor(tensor: Any, writing: Writing) -> Any:
    reason = _refuse(tensor)
    if reason is not None:
        raise DemotionError(reason)
    if tensor.layout is not _torch().strided:
        return NotImplemented
    flags = (tensor.requires_grad, tensor.is_conj(), tensor.is_neg(), tensor.is_inference())
    window = (tensor.dtype, tensor.storage_offset(), tuple(tensor.size()), tensor.stride())
    arguments = (type(tensor), tensor.untyped_storage(), window, flags)
    state = (tensor.grad, tensor._backward_hooks, dict(getattr(tensor, "__dict__", {})))
    if not any(part is not None and part != {} for part in state):
        return rebuild_tensor, arguments
    return rebuild_tensor, arguments, state, None, None, finish_tensor


@rebuilder
def rebuild_tensor(
    reading: Reading,
    cls: type,
    storage: Any,
    window: tuple[Any, int, tuple[int, ...], tuple[int, ...]],
    flags: tuple[bool, bool, bool, bool],
) -> Any:
    torch = _torch()
    dtype, offset, size, stride = window
    requires_grad, conjugate, negative, inference = flags
    with torch.inference_mode(inference), torch.no_grad():
        tensor = torch.empty(0, dtype=dtype).set_(storage, offset, size, stride)
        tensor = torch._conj(tensor) if conjugate else tensor
        tensor = torch._neg_view(tensor) if negative else tensor
        if cls is not torch.Tensor:
            return torch.Tensor._make_subclass(cls, tensor, requires_grad)
    return tensor.requires_grad_() if requires_grad else tensor


def finish_tensor(tensor: Any, state: tuple[Any, Any, dict[str, Any]]) -> None:
    """Gradient, hooks and attributes."""
    tensor.grad, hooks, attributes = state
    if hooks is not None:
        tensor._backward_hooks = hooks
    tensor.__dict__.update(attributes)


def _reduce_storage(storage: Any, writing: Writing) -> Any:
    if storage.device.type != "cpu":
        raise DemotionError(f"a storage on {storage.device} is not in main memory")
    size = storage.nbytes()
    if size == 0:
        return rebuild_storage, (b"",)
    if not storage.resizable():
        _refuse_shared(storage, size, writing)
    memory = (ctypes.c_ubyte * size).from_address(storage.data_ptr())
    return rebuild_storage, (writing.buffer(memoryview(memory).cast("B")),)


def _refuse_shared(storage: Any, size: int, writing: Writing) -> None:
    start = storage.data_ptr()
    if not starts_region(start) and overlap.in_file(start):
        raise DemotionError("a tensor's memory is a mapped file, already on disk")
    ranges = writing.same.setdefault("arrays", None) or overlap.array_ranges()
    writing.same["arrays"] = ranges
    if any(low < start + size and start < high for low, high in ranges):
        raise DemotionError("a tensor shares its memory with a numpy array (torch.from_numpy) and cannot be moved")


@rebuilder
def rebuild_storage(reading: Reading, reference: Any) -> Any:
    torch = _torch()
    memory = reading.buffer(reference)
    if is_region(memory):
        return torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    storage = torch.UntypedStorage(len(memory))  # small: torch's own memory again, that can be resized
    if len(memory):
        target = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (len(memory),), (1,))
        target.copy_(torch.frombuffer(memory, dtype=torch.uint8))
    return storage
