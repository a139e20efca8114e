"""Contract of search spaces: sampling, slicing, merging, building, decoding and costs.

Axes: E edges, K candidates, N images or architectures.
"""

from __future__ import annotations

import itertools
import json
import math
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ddpnas_ray.core.errors import GenotypeError
from ddpnas_ray.core.pruning import prune
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray, LongestPath, SearchSpace, expectation
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.nn.weights import Float32Array, Layout, Weights, bind
from ddpnas_ray.spaces.base import SpaceSpec, Supernet
from ddpnas_ray.spaces.target import Inputs, Target, TargetConfig
from ddpnas_ray.testing.counting import count_bn_relu, count_macs
from ddpnas_ray.testing.head_contract import HeadContract
from ddpnas_ray.testing.retraining_contract import RetrainingContract

EQUAL = 1e-12  # expectations that differ by less are equal
TRIED = 512  # combinations tried per block: all, or that many at random
_NOT_COUNTED = (nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict)


class SpaceContract(RetrainingContract, HeadContract):
    """Tests of a search space. A subclass names the function that creates it::

        class TestTinySpace(SpaceContract):
            make = staticmethod(make)

    Attributes:
        make: Returns the ``SpaceSpec``; options are bound with ``functools.partial``.
        inputs: Inputs of the search networks.
        target_config: The deploy network; small, since it is run.
        random_alphas: Random architectures, beside the first, the last and the most probable of every edge.
    """

    inputs: ClassVar[Inputs] = Inputs(shape=(1, 8, 8), outputs=10)
    target_config: ClassVar[TargetConfig] = TargetConfig()
    random_alphas: ClassVar[int] = 3

    # --- hooks ---

    @staticmethod
    def make() -> SpaceSpec:
        """Return the space under test."""
        raise NotImplementedError

    def batch(self, n: int, inputs: Inputs) -> Any:
        """Return a batch of ``n`` random examples; override for networks with other inputs."""
        return inputs.random(n)

    def macs(self, network: nn.Module, x: Any) -> int:
        """Count multiply-adds of one forward pass, independently of the space's table."""
        return count_macs(network, x)

    @pytest.fixture
    def spec(self) -> SpaceSpec:
        """Return a new instance of the space under test."""
        return self.make()

    # --- choices ---

    def test_blocks_partition_the_edges(self, spec: SpaceSpec) -> None:
        assert sorted(e for block in spec.space.blocks for e in block) == list(range(len(spec.space.edges)))

    def test_choices_on_an_inactive_edge_change_nothing(self, spec: SpaceSpec) -> None:
        supernet = self._supernet(spec)
        for alpha_E in self._alphas(spec):
            for e in np.flatnonzero(~spec.space.active(alpha_E)):
                for k in range(len(spec.space.edges[e].candidates)):
                    other_E = alpha_E.copy()
                    other_E[e] = k
                    assert supernet.pieces(other_E) == supernet.pieces(alpha_E), f"edge {e}, {alpha_E.tolist()}"

    def test_the_spec_can_be_pickled(self, spec: SpaceSpec) -> None:
        copy: SpaceSpec = pickle.loads(pickle.dumps(spec))
        assert (copy.space.name, copy.space.edges, copy.space.blocks) == (
            spec.space.name,
            spec.space.edges,
            spec.space.blocks,
        )
        theta_EK, live_EK = self._thetas(spec.space)[0]
        alpha_E = spec.argmax(theta_EK, live_EK)
        assert copy.decode(copy.argmax(theta_EK, live_EK)) == spec.decode(alpha_E)
        assert _described(copy.build(alpha_E, self.inputs)) == _described(spec.build(alpha_E, self.inputs))
        assert {name: cost(self.target)(alpha_E) for name, cost in copy.costs.items()} == {
            name: cost(self.target)(alpha_E) for name, cost in spec.costs.items()
        }

    # --- supernet and stand-alone networks ---

    def test_first_weights_depend_on_the_torch_seed_alone(self, spec: SpaceSpec) -> None:
        first, again, other = (_tensors(self._supernet(spec, seed)) for seed in (1, 1, 2))
        assert all(np.array_equal(first[name], again[name]) for name in first)
        assert not all(np.array_equal(first[name], other[name]) for name in first)

    def test_pieces_are_the_parameters_of_the_stand_alone_network(self, spec: SpaceSpec) -> None:
        supernet = self._supernet(spec)
        whole = dict(supernet.named_parameters())
        for alpha_E in self._alphas(spec):
            pieces = supernet.pieces(alpha_E)
            assert [(p.name, p.shape) for p in pieces] == _described(spec.build(alpha_E, self.inputs)), alpha_E.tolist()
            for piece in pieces:
                part = whole[piece.name] if piece.slices is None else whole[piece.name][piece.slices]
                assert tuple(part.shape) == piece.shape

    def test_a_supernet_without_storage_still_knows_its_pieces(self, spec: SpaceSpec) -> None:
        supernet: Any = self._supernet(spec)
        alphas = self._alphas(spec)
        before = [supernet.pieces(alpha_E) for alpha_E in alphas]
        without_storage = supernet.to("meta")
        assert [without_storage.pieces(alpha_E) for alpha_E in alphas] == before

    def test_a_slice_of_the_supernet_computes_what_the_supernet_does(self, spec: SpaceSpec) -> None:
        supernet: Any = self._supernet(spec)
        weights = Weights(_tensors(supernet))
        x = self.batch(3, self.inputs)
        for alpha_E in self._alphas(spec):
            network = spec.build(alpha_E, self.inputs)
            _load_slice(network, Layout.of(supernet.pieces(alpha_E)), weights)
            _reset_batch_norm(supernet)
            for training in (False, True, False):  # the second time with statistics of the batch seen in between
                supernet.train(training)
                network.train(training)
                with torch.no_grad(), _seeded(7):
                    ours = supernet(x, alpha_E)
                with torch.no_grad(), _seeded(7):
                    theirs = network(x)
                assert torch.isfinite(ours).all(), alpha_E.tolist()
                assert torch.equal(ours, theirs), f"train={training}, {alpha_E.tolist()}: {ours - theirs}"

    def test_a_forward_pass_runs_the_sampled_modules_and_nothing_else(self, spec: SpaceSpec) -> None:
        supernet: Any = self._supernet(spec)
        x = self.batch(3, self.inputs)
        for alpha_E in self._alphas(spec):
            sampled = {piece.name for piece in supernet.pieces(alpha_E)}
            with torch.no_grad(), _watched(supernet) as ran:
                supernet(x, alpha_E)
            network = spec.build(alpha_E, self.inputs)
            with torch.no_grad(), _watched(network) as ran_alone:
                network(x)
            for name, module in ran:
                own = {f"{name}.{parameter}".lstrip(".") for parameter, _ in module.named_parameters(recurse=False)}
                assert own <= sampled, f"{name} ran and is not part of {alpha_E.tolist()}"
            assert _kinds(ran) == _kinds(ran_alone), alpha_E.tolist()

    def test_gradients_reach_nothing_that_was_not_sampled(self, spec: SpaceSpec) -> None:
        supernet: Any = self._supernet(spec)
        x = self.batch(3, self.inputs)
        for alpha_E in self._alphas(spec):
            supernet.zero_grad(set_to_none=True)
            supernet(x, alpha_E).square().sum().backward()
            sampled = {piece.name for piece in supernet.pieces(alpha_E)}
            for name, parameter in supernet.named_parameters():
                assert parameter.grad is None or name in sampled, f"{name} is not part of {alpha_E.tolist()}"
                if parameter.grad is None:
                    continue  # not sampled, or on a path that `none` blocks
                unused = np.ones(parameter.shape, dtype=bool)
                for piece in supernet.pieces(alpha_E):
                    if piece.name == name:
                        unused[... if piece.slices is None else piece.slices] = False
                assert not parameter.grad.numpy()[unused].any(), f"{name}, {alpha_E.tolist()}"

    # --- merging ---

    def test_weights_trained_by_one_architecture_are_copied_exactly(self, spec: SpaceSpec) -> None:
        exists_EK = spec.space.exists_EK
        merged = self._merge(
            spec, list(disjoint_sample(initial_state(spec.space, 0).theta_EK, exists_EK, rng_for(0, 1)))
        )
        for name, after in merged.after.items():
            alone = merged.trained[name] == 1
            np.testing.assert_array_equal(after[alone], merged.last[name][alone], err_msg=name)

    def test_weights_trained_by_several_architectures_change_by_the_mean(self, spec: SpaceSpec) -> None:
        alphas = disjoint_sample(initial_state(spec.space, 0).theta_EK, spec.space.exists_EK, rng_for(0, 1))
        merged = self._merge(spec, [*alphas, alphas[0], *self._alphas(spec)])
        assert any((count > 1).any() for count in merged.trained.values())
        for name, after in merged.after.items():
            several = merged.trained[name] > 1
            mean = merged.changes[name][several] / merged.trained[name][several]
            expected = merged.before[name][several].astype(np.float64) + mean
            np.testing.assert_allclose(after[several], expected, rtol=2e-7, atol=1e-9, err_msg=name)

    def test_weights_not_sampled_stay_bit_identical(self, spec: SpaceSpec) -> None:
        for alpha_E in self._alphas(spec):
            merged = self._merge(spec, [alpha_E])
            for name, after in merged.after.items():
                untouched = merged.trained[name] == 0
                assert after[untouched].tobytes() == merged.before[name][untouched].tobytes(), name

    # --- the most probable architecture ---

    def test_argmax_chooses_live_selectable_operations(self, spec: SpaceSpec) -> None:
        for theta_EK, live_EK in self._thetas(spec.space):
            alpha_E = spec.argmax(theta_EK, live_EK)
            assert alpha_E.shape == (len(spec.space.edges),)
            assert np.issubdtype(alpha_E.dtype, np.integer)
            left_out = 0
            for e, k in enumerate(alpha_E):
                if spec.space.op(e, int(k)).generable:
                    if not spec.space.active(alpha_E)[e]:
                        continue
                    assert live_EK[e, k], f"edge {e} chooses {spec.space.op(e, int(k)).name}, which was pruned"
                else:
                    left_out += 1
            assert left_out < len(alpha_E)

    def test_argmax_has_the_largest_expectation(self, spec: SpaceSpec) -> None:
        """Checked per block, since blocks are chosen independently; ties take the lexicographically smallest."""
        for theta_EK, live_EK in self._thetas(spec.space):
            best_E = spec.argmax(theta_EK, live_EK)
            best = expectation(best_E, theta_EK, spec.space, live_EK)
            for other_E in self._others(spec.space, best_E, live_EK):
                gain = expectation(other_E, theta_EK, spec.space, live_EK) - best
                smaller = tuple(other_E) < tuple(best_E)
                if gain > EQUAL or (abs(gain) <= EQUAL and smaller):
                    assert not _admissible(spec, other_E), f"{other_E.tolist()} beats {best_E.tolist()} by {gain}"

    def test_a_genotype_decodes_and_encodes_to_itself(self, spec: SpaceSpec) -> None:
        for theta_EK, live_EK in self._thetas(spec.space):
            alpha_E = spec.argmax(theta_EK, live_EK)
            genotype = spec.decode(alpha_E)
            read_back = json.loads(json.dumps(genotype))
            assert read_back == genotype, "a genotype is plain JSON"
            np.testing.assert_array_equal(spec.encode(genotype), alpha_E)
            np.testing.assert_array_equal(spec.encode(read_back), alpha_E)

    # --- costs ---

    @property
    def target(self) -> Target:  # type: ignore[override]
        """The deploy network whose costs are counted."""
        return Target.resolve(self.target_config, self.inputs, self.make().target)

    def test_cost_tables_add_up(self, spec: SpaceSpec) -> None:
        for name, cost in spec.costs.items():
            table = cost(self.target)
            if isinstance(table, LongestPath):
                continue
            assert table.entries_EK.shape == spec.space.shape
            assert table.entries_EK.dtype == np.int64
            assert table.base >= 0
            assert (table.entries_EK >= 0).all()
            assert not table.entries_EK[~spec.space.exists_EK].any(), f"{name}: padding costs something"
            for alpha_E in self._alphas(spec):
                total = table.base
                for e in np.flatnonzero(spec.space.active(alpha_E)):
                    total += int(table.entries_EK[e, alpha_E[e]])
                assert table(alpha_E) == total

    def test_costs_are_those_of_the_deploy_network(self, spec: SpaceSpec) -> None:
        tables = {name: cost(self.target) for name, cost in spec.costs.items()}
        for theta_EK, live_EK in self._thetas(spec.space):
            alpha_E = spec.argmax(theta_EK, live_EK)
            network = spec.deploy(alpha_E, self.target).eval()
            x = self.batch(1, self.target.inputs)
            if "params" in tables:
                assert tables["params"](alpha_E) == sum(p.numel() for p in network.parameters()), alpha_E.tolist()
            if "macs" in tables:
                assert tables["macs"](alpha_E) == self.macs(network, x), alpha_E.tolist()
            if "macs_bn_relu" in tables:
                expected = self.macs(network, x) + count_bn_relu(network, x)
                assert tables["macs_bn_relu"](alpha_E) == expected, alpha_E.tolist()

    def test_parts_add_up_to_the_deploy_network(self, spec: SpaceSpec) -> None:
        """Parts timed for a latency table cover every module with weights once, at its size."""
        if spec.parts is None:
            return
        parts = spec.parts(self.target)
        counted: dict[str, tuple[int, int]] = {}
        for part in pickle.loads(pickle.dumps(parts)):
            if part.key not in counted:
                module = part.build().eval()
                macs = self.macs(module, part.example.random(1))
                counted[part.key] = (sum(p.numel() for p in module.parameters()), macs)
        for theta_EK, live_EK in self._thetas(spec.space)[-2:]:
            alpha_E = spec.argmax(theta_EK, live_EK)
            active_E = spec.space.active(alpha_E)
            mine = [p for p in parts if p.edge is None or (active_E[p.edge] and alpha_E[p.edge] == p.candidate)]
            assert sum(counted[p.key][0] for p in mine) == spec.costs["params"](self.target)(alpha_E)
            assert sum(counted[p.key][1] for p in mine) == spec.costs["macs"](self.target)(alpha_E)

    def test_effort_is_a_positive_number(self, spec: SpaceSpec) -> None:
        for alpha_E in self._alphas(spec):
            effort = spec.effort(alpha_E, self.inputs)
            assert math.isfinite(effort)
            assert effort > 0

    # --- helpers ---

    def _alphas(self, spec: SpaceSpec) -> list[IntArray]:
        """Return the first candidates, the last, some at random, and two architectures a search could end with."""
        last_E = np.array([len(edge.candidates) - 1 for edge in spec.space.edges])
        rng = rng_for(0, 2)
        random = [rng.integers(last_E + 1) for _ in range(self.random_alphas)]
        generated = [spec.argmax(theta_EK, live_EK) for theta_EK, live_EK in self._thetas(spec.space)[-2:]]
        return [np.zeros_like(last_E), last_E, *random, *generated]

    def _thetas(self, space: SearchSpace) -> list[tuple[FloatArray, BoolArray]]:
        """Return theta and live operations at the start, after some rounds and after a whole search."""
        rng = rng_for(0, 3)
        theta_EK = initial_state(space, 0).theta_EK
        found = [(theta_EK, space.exists_EK.copy()), (_random_theta(space, rng), space.exists_EK.copy())]
        for rounds in (2, 2, space.shape[1], space.shape[1]):
            live_EK = space.exists_EK.copy()
            for _ in range(rounds):
                live_EK = prune(_random_theta(space, rng), live_EK, live_EK, space, keep_per_group=1)
            found.append((_random_theta(space, rng), live_EK))
        return found

    def _others(self, space: SearchSpace, alpha_E: IntArray, live_EK: BoolArray) -> Iterator[IntArray]:
        """Yield architectures that differ from ``alpha_E`` in one block, including edges that are left out."""
        rng = rng_for(0, 4)
        for block in space.blocks:
            options = [
                [k for k, op in enumerate(space.edges[e].candidates) if live_EK[e, k] or not op.generable]
                for e in block
            ]
            if math.prod(map(len, options)) <= TRIED:
                combinations: Sequence[Sequence[int]] = list(itertools.product(*options))
            else:
                combinations = [[int(rng.choice(ks)) for ks in options] for _ in range(TRIED)]
            for combination in combinations:
                other_E = alpha_E.copy()
                other_E[list(block)] = combination
                yield space.canonical(other_E)

    def _supernet(self, spec: SpaceSpec, seed: int = 0) -> Supernet:
        with _seeded(seed):
            return spec.supernet(self.inputs)

    def _merge(self, spec: SpaceSpec, alphas: Sequence[IntArray]) -> _Merged:
        """Cut the architectures out, change them at random, merge them, and track the expected result in NumPy."""
        supernet = self._supernet(spec)
        weights = Weights(_tensors(supernet))
        rng = rng_for(0, 5)
        merged = _Merged({name: tensor.copy() for name, tensor in weights.tensors.items()})
        learned = []
        for alpha_E in alphas:
            layout = Layout.of(supernet.pieces(alpha_E))
            flat = weights.cut(layout)
            flat += rng.standard_normal(flat.shape, dtype=np.float32)
            learned.append((layout, flat))
            for piece, values in zip(layout.pieces, layout.views(flat), strict=True):
                at = ... if piece.slices is None else piece.slices
                merged.trained[piece.name][at] += 1
                merged.changes[piece.name][at] += values.astype(np.float64) - merged.before[piece.name][at]
                merged.last[piece.name][at] = values
        weights.merge(learned)
        merged.after = weights.tensors
        return merged


class _Merged:
    """Weights before and after a merge; per element the number of trainers, the sum of changes, the last value."""

    def __init__(self, before: dict[str, Float32Array]) -> None:
        self.before = before
        self.after: dict[str, Float32Array] = {}
        self.trained = {name: np.zeros(tensor.shape, dtype=np.int64) for name, tensor in before.items()}
        self.changes = {name: np.zeros(tensor.shape) for name, tensor in before.items()}
        self.last = {name: tensor.copy() for name, tensor in before.items()}


def _random_theta(space: SearchSpace, rng: np.random.Generator) -> FloatArray:
    theta_EK = np.where(space.exists_EK, rng.random(space.shape) + 1e-3, 0.0)
    return theta_EK / theta_EK.sum(axis=1, keepdims=True)


def _admissible(spec: SpaceSpec, alpha_E: IntArray) -> bool:
    """Return whether a genotype can express this architecture."""
    try:
        return bool(np.array_equal(spec.encode(spec.decode(alpha_E)), alpha_E))
    except GenotypeError:
        return False


def _described(network: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(parameter.shape)) for name, parameter in network.named_parameters()]


def _tensors(supernet: Any) -> dict[str, Float32Array]:
    tensors = {name: parameter.detach().numpy() for name, parameter in supernet.named_parameters()}
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    return tensors


def _load_slice(network: nn.Module, layout: Layout, weights: Weights) -> None:
    flat = torch.empty(layout.size)
    flat.copy_(torch.from_numpy(weights.cut(layout)))
    bind(network, layout, flat)


def _reset_batch_norm(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """Record every module that computes something itself, each time it runs."""
    ran: list[tuple[str, nn.Module]] = []
    hooks = []
    for name, module in network.named_modules():
        leaf = not list(module.children())
        if not isinstance(module, _NOT_COUNTED) and (leaf or list(module.parameters(recurse=False))):
            hooks.append(module.register_forward_hook(lambda m, x, y, name=name: ran.append((name, m))))
    try:
        yield ran
    finally:
        for hook in hooks:
            hook.remove()


def _kinds(ran: list[tuple[str, nn.Module]]) -> Counter[str]:
    return Counter(type(module).__name__ for _, module in ran)
