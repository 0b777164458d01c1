"""torch tensors come back as they were, with what they share; modules and optimizers go on working."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memkit.errors import DemotionError, SharedMemoryError
from memkit.lifecycle.store import Store
from tests.lifecycle.store.conftest import there_and_back

torch = pytest.importorskip("torch")

DTYPES = ["float32", "float64", "float16", "bfloat16", "complex64", "bool", "uint8", "int8", "int16", "int32", "int64"]


@pytest.mark.parametrize("size", [3, 50_000, 1_000_000])
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_and_size(store: Store, name: str, size: int) -> None:
    tensor = (torch.rand(size) * 100).to(getattr(torch, name))
    again = there_and_back(store, tensor=tensor)["tensor"]
    assert again.dtype == tensor.dtype
    assert torch.equal(again, tensor)
    again.fill_(1)
    assert (again == 1).all()


def test_windows_on_one_storage(store: Store) -> None:
    base = torch.arange(60_000.0).reshape(200, 300)
    part, turned = base[10:20, ::2], base.T
    again = there_and_back(store, base=base, part=part, turned=turned)
    assert torch.equal(again["part"], part)
    assert again["part"].stride() == part.stride()
    assert again["part"].storage_offset() == part.storage_offset()
    again["base"][10, 2] = -1
    assert again["part"][0, 1] == -1
    assert again["turned"][2, 10] == -1


def test_a_window_held_elsewhere_keeps_the_storage(store: Store) -> None:
    base = torch.arange(60_000.0)
    part = base[:10]
    with pytest.raises(SharedMemoryError):
        store.spill({"base": base})
    box = {"base": base, "big": np.random.default_rng(0).random(100_000)}
    del base
    again = there_and_back(store, box=box)["box"]
    again["base"][3] = -1
    assert part[3] == -1


def test_requires_grad_gradients_attributes_and_parameters(store: Store) -> None:
    leaf = torch.rand(20_000, requires_grad=True)
    (leaf * 2).sum().backward()
    leaf.note = ["mine"]
    parameter = torch.nn.Parameter(torch.rand(10), requires_grad=False)
    again = there_and_back(store, leaf=leaf, parameter=parameter)
    assert again["leaf"].requires_grad
    assert again["leaf"].is_leaf
    assert torch.equal(again["leaf"].grad, leaf.grad)
    assert again["leaf"].note == ["mine"]
    assert type(again["parameter"]) is torch.nn.Parameter
    assert not again["parameter"].requires_grad


def test_lazy_conjugates_negatives_and_inference_tensors(store: Store) -> None:
    base = torch.rand(10, dtype=torch.cfloat)
    with torch.inference_mode():
        inferred = torch.rand(5)
    again = there_and_back(store, values=[base.conj(), base.conj().imag, inferred])["values"]
    assert again[0].is_conj()
    assert torch.equal(again[0], base.conj())
    assert again[1].is_neg()
    assert torch.equal(again[1], base.conj().imag)
    assert again[2].is_inference()


def test_sparse_tensors(store: Store) -> None:
    tensor = torch.eye(500).to_sparse()
    assert torch.equal(there_and_back(store, tensor=tensor)["tensor"].to_dense(), torch.eye(500))


def test_a_model_and_its_optimizer_go_on_training(store: Store) -> None:
    """Tied weights stay tied, the optimizer has the model's parameters, a step does what it would have done."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64))
    model[2].weight = model[0].weight
    optimizer = torch.optim.Adam(model.parameters())
    data = torch.rand(8, 64)

    def step(model: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        model(data).square().sum().backward()
        optimizer.step()

    step(model, optimizer)
    again = there_and_back(store, model=model, optimizer=optimizer)
    new, new_optimizer = again["model"], again["optimizer"]
    assert new[2].weight is new[0].weight
    assert new_optimizer.param_groups[0]["params"][0] is new[0].weight
    step(model, optimizer)
    step(new, new_optimizer)
    for a, b in zip(model.parameters(), new.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_alone_keeps_the_parameters_it_shares(store: Store) -> None:
    model = torch.nn.Linear(300, 300)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 300)).sum().backward()
    optimizer.step()
    again = there_and_back(store, optimizer=optimizer)["optimizer"]
    assert again.param_groups[0]["params"][0] is model.weight
    assert torch.equal(again.state[model.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"])


def test_a_model_that_a_graph_still_holds_is_left(store: Store) -> None:
    """`loss` of the last cell holds the parameters in C++: moving them would free nothing."""
    model = torch.nn.Linear(300, 300)
    loss = model(torch.rand(2, 300)).sum()
    loss.backward()
    with pytest.raises(SharedMemoryError):
        store.spill({"model": model})
    del loss
    store.discard(store.spill({"model": model}))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.rand(3, requires_grad=True) * 2, "detach"),
        (lambda: torch.empty(3, device="meta"), "meta"),
        (lambda: torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.quint8), "quantized"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_written_says_why(store: Store, make: Any, reason: str) -> None:
    with pytest.raises(DemotionError, match=reason):
        store.spill({"value": [make()]})
    assert store.bytes_on_disk == 0


def test_tensors_and_arrays_on_one_memory(store: Store) -> None:
    """`tensor.numpy()` together with its tensor shares again; `from_numpy` with the array in use elsewhere is left."""
    tensor = torch.rand(30_000)
    array = tensor.numpy()[5:]
    again = there_and_back(store, tensor=tensor, array=array)
    again["array"][0] = -1
    assert again["tensor"][5] == -1
    del tensor
    again = there_and_back(store, array=array)["array"]
    assert (again == array).all()
    holder = [np.random.default_rng(0).random(30_000)]
    tensor = torch.from_numpy(holder[0])
    with pytest.raises(DemotionError, match="numpy"):
        store.spill({"tensor": tensor})
    with pytest.raises(SharedMemoryError):
        store.spill({"holder": holder})
    holder.clear()
    assert torch.equal(there_and_back(store, tensor=tensor)["tensor"], tensor)


def test_a_mapped_file_is_left(store: Store, tmp_path: Any) -> None:
    torch.save(torch.rand(500_000), tmp_path / "t.pt")
    tensor = torch.load(tmp_path / "t.pt", mmap=True)
    with pytest.raises(DemotionError, match="already on disk"):
        store.spill({"tensor": tensor})


def test_a_restored_tensor_can_be_put_away_again(store: Store) -> None:
    stored = store.spill({"tensor": torch.arange(500_000.0)})
    tensor = store.load(stored)["tensor"]
    store.discard(stored)
    again = there_and_back(store, tensor=tensor)["tensor"]
    assert torch.equal(again, torch.arange(500_000.0))


def test_a_small_restored_tensor_can_be_resized(store: Store) -> None:
    again = there_and_back(store, tensor=torch.arange(100.0))["tensor"]
    again.resize_(1000)
    assert again[99] == 99
