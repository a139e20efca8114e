"""Flat weights: layouts, the laws of cutting and merging, and training through one buffer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ddpnas_ray.costs.convnet import CELL_OPS
from ddpnas_ray.nn.weights import ALIGN, Layout, Piece, Weights, bind, joined, split_shared
from ddpnas_ray.spaces.cell.space import make
from ddpnas_ray.spaces.target import Inputs

LAW = settings(derandomize=True, deadline=None, max_examples=60)
shapes = st.lists(st.integers(1, 5), min_size=0, max_size=3).map(tuple)


@st.composite
def tensors(draw: Callable[..., Any]) -> dict[str, np.ndarray]:
    found = draw(st.lists(shapes, min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return {f"part{i}.weight": rng.standard_normal(shape).astype(np.float32) for i, shape in enumerate(found)}


def piece(draw: Callable[..., Any], name: str, shape: tuple[int, ...]) -> Piece:
    if not shape or draw(st.booleans()):
        return Piece(name, shape)
    slices = []
    for side in shape:
        start = draw(st.integers(0, side - 1))
        slices.append(slice(start, draw(st.integers(start + 1, side)), draw(st.sampled_from([None, 1, 2]))))
    return Piece(
        name, tuple(len(range(*s.indices(side))) for s, side in zip(slices, shape, strict=True)), tuple(slices)
    )


@st.composite
def paths(draw: Callable[..., Any]) -> tuple[dict[str, np.ndarray], list[list[Piece]]]:
    """Weights, and architectures that use parts of them: whole tensors and slices that may overlap."""
    weights = draw(tensors())
    found = []
    for _ in range(draw(st.integers(1, 5))):
        names = draw(st.lists(st.sampled_from(sorted(weights)), unique=True))
        found.append([piece(draw, name, weights[name].shape) for name in names])
    return weights, found


def part(tensor: np.ndarray, used: Piece) -> np.ndarray:
    return tensor if used.slices is None else tensor[used.slices]


@LAW
@given(given_shapes=st.lists(shapes, max_size=8))
def test_pieces_lie_one_after_the_other_at_multiples_of_64_bytes(given_shapes: list[tuple[int, ...]]) -> None:
    layout = Layout.of(Piece(str(i), shape) for i, shape in enumerate(given_shapes))
    end = 0
    for used, offset in zip(layout.pieces, layout.offsets, strict=True):
        assert offset * 4 % 64 == 0
        assert end <= offset < end + ALIGN
        end = offset + used.size
    assert end <= layout.size < end + ALIGN
    assert layout.size % ALIGN == 0


def test_the_buffer_of_no_pieces_is_empty() -> None:
    assert Layout.of(()) == Layout((), (), 0)
    assert Weights({"w": np.ones(3, dtype=np.float32)}).cut(Layout.of(())).shape == (0,)


def test_views_share_the_buffer() -> None:
    layout = Layout.of([Piece("a", (2, 3)), Piece("b", ()), Piece("c", (4,))])
    flat = np.zeros(layout.size, dtype=np.float32)
    for i, view in enumerate(layout.views(flat), start=1):
        view[...] = i
    assert [view.shape for view in layout.views(flat)] == [(2, 3), (), (4,)]
    assert flat[:6].tolist() == [1.0] * 6
    assert flat[16] == 2.0
    assert flat[32:36].tolist() == [3.0] * 4
    assert np.count_nonzero(flat) == 6 + 1 + 4


@LAW
@given(given_tensors=tensors())
def test_the_master_holds_a_copy_in_order(given_tensors: dict[str, np.ndarray]) -> None:
    weights = Weights(given_tensors)
    assert list(weights.tensors) == list(given_tensors)
    for name, tensor in given_tensors.items():
        np.testing.assert_array_equal(weights.tensors[name], tensor)
        tensor += 1.0
        assert (weights.tensors[name] != tensor).all()
        assert np.shares_memory(weights.tensors[name], weights.flat)


@LAW
@given(given_paths=paths())
def test_cut_copies_every_piece(given_paths: tuple[dict[str, np.ndarray], list[list[Piece]]]) -> None:
    given_tensors, found = given_paths
    weights = Weights(given_tensors)
    for path in found:
        layout = Layout.of(path)
        flat = weights.cut(layout)
        for used, view in zip(path, layout.views(flat), strict=True):
            np.testing.assert_array_equal(view, part(given_tensors[used.name], used))
        assert flat.dtype == np.float32
        flat[...] = 9.0
        for name, tensor in given_tensors.items():
            np.testing.assert_array_equal(weights.tensors[name], tensor)


@LAW
@given(given_paths=paths())
def test_merging_what_was_cut_changes_nothing(given_paths: tuple[dict[str, np.ndarray], list[list[Piece]]]) -> None:
    given_tensors, found = given_paths
    weights = Weights(given_tensors)
    layouts = [Layout.of(path) for path in found]
    weights.merge([(layout, weights.cut(layout)) for layout in layouts])
    for name, tensor in given_tensors.items():
        np.testing.assert_array_equal(weights.tensors[name], tensor)


@LAW
@given(given_paths=paths(), seed=st.integers(0, 2**32 - 1))
def test_merge_takes_the_mean_change_of_those_that_trained_an_element(
    given_paths: tuple[dict[str, np.ndarray], list[list[Piece]]], seed: int
) -> None:
    given_tensors, found = given_paths
    rng = np.random.default_rng(seed)
    weights, learned = Weights(given_tensors), []
    ends: dict[tuple[str, tuple[int, ...]], list[float]] = {}
    for path in found:
        layout = Layout.of(path)
        flat = rng.standard_normal(layout.size).astype(np.float32)
        learned.append((layout, flat))
        for used, view in zip(path, layout.views(flat), strict=True):
            numbers = np.arange(given_tensors[used.name].size).reshape(given_tensors[used.name].shape)
            for number, value in zip(part(numbers, used).ravel(), view.ravel(), strict=True):
                at = tuple(int(i) for i in np.unravel_index(number, numbers.shape)) if numbers.shape else ()
                ends.setdefault((used.name, at), []).append(float(value))
    weights.merge(learned)
    for name, before in given_tensors.items():
        for at in np.ndindex(before.shape):
            got, values = weights.tensors[name][at], ends.get((name, at), [])
            if not values:
                assert got == before[at]
            elif len(values) == 1:
                assert got == np.float32(values[0])
            else:
                changes = [value - float(before[at]) for value in values]
                assert got == pytest.approx(float(before[at]) + sum(changes) / len(changes), rel=2e-7, abs=1e-7)


def test_the_padding_that_comes_back_is_ignored() -> None:
    weights = Weights({"a": np.ones(3, dtype=np.float32), "b": np.full(3, 2.0, dtype=np.float32)})
    layout = Layout.of([Piece("a", (3,))])
    weights.merge([(layout, np.arange(16, dtype=np.float32))])
    assert weights.tensors["a"].tolist() == [0.0, 1.0, 2.0]
    assert weights.tensors["b"].tolist() == [2.0, 2.0, 2.0]


def test_slices_of_one_architecture_may_lie_in_one_tensor() -> None:
    weights = Weights({"heads": np.zeros((4, 2), dtype=np.float32)})
    layout = Layout.of(
        [Piece("heads", (1, 2), (slice(0, 1), slice(None))), Piece("heads", (1, 2), (slice(3, 4), slice(None)))]
    )
    flat = weights.cut(layout)
    for i, view in enumerate(layout.views(flat), start=1):
        view[...] = i
    weights.merge([(layout, flat)])
    assert weights.tensors["heads"].tolist() == [[1, 1], [0, 0], [0, 0], [2, 2]]


@LAW
@given(given_paths=paths())
def test_shared_pieces_are_those_of_every_path_and_the_rest_is_its_own(
    given_paths: tuple[dict[str, np.ndarray], list[list[Piece]]],
) -> None:
    given_tensors, found = given_paths
    weights = Weights(given_tensors)
    shared, owns = split_shared(found)
    assert len(owns) == len(found)
    for path, own in zip(found, owns, strict=True):
        whole = joined(shared, own)
        assert sorted(map(repr, whole.pieces)) == sorted(map(repr, path))
        assert all(offset % ALIGN == 0 for offset in whole.offsets)
        assert all(used in path for used in shared.pieces)
        np.testing.assert_array_equal(weights.cut(whole), np.concatenate([weights.cut(shared), weights.cut(own)]))
    if len(found) == 1:
        assert not shared.pieces
    else:
        everywhere = [used for used in found[0] if all(used in path for path in found)]
        assert list(shared.pieces) == everywhere


# --- binding a network to a buffer ---


def network_and_layout() -> tuple[nn.Module, Layout]:
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 16, 7, bias=False),
        nn.Linear(7, 3),
    )
    return network, Layout.of(Piece(name, tuple(p.shape)) for name, p in network.named_parameters())


def flat_of(network: nn.Module, layout: Layout) -> torch.Tensor:
    weights = Weights({name: p.detach().numpy() for name, p in network.named_parameters()})
    return torch.from_numpy(weights.cut(layout))


@pytest.mark.parametrize("clip", [0.05, 1e6])
def test_training_through_the_buffer_is_plain_sgd(clip: float) -> None:
    plain, layout = network_and_layout()
    bound = copy.deepcopy(plain).to("meta")
    bound.load_state_dict({name: b.clone() for name, b in plain.named_buffers()}, strict=False, assign=True)
    whole = bind(bound, layout, flat_of(plain, layout))
    options: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 3e-4}
    one, many = torch.optim.SGD([whole], **options), torch.optim.SGD(plain.parameters(), **options)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        images = torch.randn(8, 1, 4, 4, generator=generator)
        labels = torch.randint(3, (8,), generator=generator)
        norms = []
        for network, optimizer, parameters in ((bound, one, [whole]), (plain, many, list(plain.parameters()))):
            optimizer.zero_grad(set_to_none=False)
            nn.functional.cross_entropy(network(images), labels).backward()
            norms.append(float(nn.utils.clip_grad_norm_(parameters, clip)))
            optimizer.step()
        assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    for (name, ours), (_, theirs) in zip(bound.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.linalg.vector_norm(ours - theirs) <= 1e-6 * torch.linalg.vector_norm(theirs), name


def test_bound_parameters_and_their_gradients_are_views() -> None:
    network, layout = network_and_layout()
    names = [name for name, _ in network.named_parameters()]
    flat = flat_of(network, layout)
    whole = bind(network, layout, flat)
    assert [name for name, _ in network.named_parameters()] == names
    assert whole.grad is not None
    network(torch.randn(4, 1, 4, 4)).sum().backward()
    for (_, parameter), view, grad in zip(
        network.named_parameters(), layout.views(flat.numpy()), layout.views(whole.grad.numpy()), strict=True
    ):
        assert parameter.grad is not None
        assert np.shares_memory(parameter.detach().numpy(), view)
        assert np.shares_memory(parameter.grad.numpy(), grad)
    assert whole.grad.abs().sum() > 0
    padding = np.ones(layout.size, dtype=bool)
    for used, offset in zip(layout.pieces, layout.offsets, strict=True):
        padding[offset : offset + used.size] = False
    assert not whole.grad.numpy()[padding].any()


def test_a_stand_alone_network_is_bound_in_any_order_of_pieces() -> None:
    spec, inputs = make(cells=2, nodes=1, channels=4), Inputs(shape=(1, 8, 8), outputs=10)
    torch.manual_seed(0)
    supernet: Any = spec.supernet(inputs)
    weights = Weights({name: p.detach().numpy() for name, p in supernet.named_parameters()})
    alpha_E = np.array(
        [CELL_OPS.index(name) for name in ("sep_conv_3x3", "skip_connect", "dil_conv_5x5", "skip_connect")]
    )
    pieces = supernet.pieces(alpha_E)
    x, outputs = torch.randn(3, 1, 8, 8), []
    for order in (pieces, pieces[::-1]):
        network = spec.build(alpha_E, inputs)
        layout = Layout.of(order)
        bind(network, layout, torch.from_numpy(weights.cut(layout)))
        outputs.append(network(x))
    assert torch.equal(outputs[0], outputs[1])
