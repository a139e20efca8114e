"""The cell space: the contract in several shapes, the counts of known networks, and genotypes.

Axes: E edges, K candidates.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch

from ddpnas_ray.core.errors import GenotypeError
from ddpnas_ray.core.schedule import planned_architecture_epochs
from ddpnas_ray.core.space import expectation
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.costs.convnet import CELL_OPS
from ddpnas_ray.spaces.cell.costs import CellNetShape, cost_table
from ddpnas_ray.spaces.cell.network import CellNetwork
from ddpnas_ray.spaces.cell.space import NONE, OPS, decode, encode, make
from ddpnas_ray.spaces.known import known_network
from ddpnas_ray.spaces.target import Inputs, Target, TargetConfig
from ddpnas_ray.testing import SpaceContract, count_macs

GENERABLE = [k for k, name in enumerate(CELL_OPS) if name != "none"]


class TestSixCellsOfFourNodes(SpaceContract):
    make = staticmethod(partial(make, cells=6, nodes=4, channels=4))
    target_config = TargetConfig(cells=3, channels=4)
    random_alphas = 2


class TestOneCellOfOneNode(SpaceContract):
    make = staticmethod(partial(make, cells=1, nodes=1, channels=2))
    inputs = Inputs(shape=(3, 32, 32), outputs=2)
    target_config = TargetConfig(cells=1, channels=2)


class TestTwoCellsOfTwoNodesOnOddImages(SpaceContract):
    make = staticmethod(partial(make, cells=2, nodes=2, channels=4))
    inputs = Inputs(shape=(1, 7, 7), outputs=3)
    target_config = TargetConfig(cells=2, channels=5)


class TestOddChannelsOnOddImages(SpaceContract):
    make = staticmethod(partial(make, cells=3, nodes=2, channels=3))
    inputs = Inputs(shape=(3, 15, 15), outputs=4)
    target_config = TargetConfig(cells=4, channels=3)


class TestImagenetStem(SpaceContract):
    make = staticmethod(partial(make, cells=2, nodes=1, channels=4))
    inputs = Inputs(shape=(3, 128, 128), outputs=5)
    target_config = TargetConfig(cells=2, channels=4)


class TestImagenetStemOnOddImages(SpaceContract):
    make = staticmethod(partial(make, cells=3, nodes=2, channels=2))
    inputs = Inputs(shape=(1, 131, 131), outputs=5)
    target_config = TargetConfig(cells=3, channels=3)
    random_alphas = 1


# --- counts of known networks ---

DARTS_V1, DARTS_V2 = (known_network(name).genotype for name in ("darts_v1", "darts_v2"))
CIFAR = Target(cells=20, channels=36, image_size=32, classes=10, stem="cifar")
IMAGENET = Target(cells=14, channels=48, image_size=224, classes=1000, stem="imagenet")
KNOWN = [
    pytest.param(DARTS_V1, CIFAR, 3_169_414, 500_987_520, id="V1-cifar"),
    pytest.param(DARTS_V1, IMAGENET, 4_510_432, 505_864_704, id="V1-imagenet"),
    pytest.param(DARTS_V2, CIFAR, 3_349_342, 528_359_040, id="V2-cifar"),
    pytest.param(DARTS_V2, IMAGENET, 4_718_752, 529_911_552, id="V2-imagenet"),
]


@pytest.mark.parametrize(("known", "target", "params", "macs"), KNOWN)
def test_tables_give_the_exact_costs_of_darts(known: dict[str, Any], target: Target, params: int, macs: int) -> None:
    spec = make()
    alpha_E = spec.encode(known)
    assert spec.costs["params"](target)(alpha_E) == params
    assert spec.costs["macs"](target)(alpha_E) == macs


@pytest.mark.parametrize(("known", "target", "params", "macs"), KNOWN)
def test_deploy_networks_of_darts_have_the_exact_costs(
    known: dict[str, Any], target: Target, params: int, macs: int
) -> None:
    spec = make()
    with torch.device("meta"):
        network = spec.deploy(spec.encode(known), target).eval()
        assert sum(p.numel() for p in network.parameters()) == params
        assert count_macs(network, torch.empty(1, 3, target.image_size, target.image_size)) == macs


@pytest.mark.parametrize(
    ("reductions", "params", "macs", "node_channels"),
    [((4, 9), 4_718_752, 529_911_552, 192), ((0, 1, 5, 9), 60_536_608, 559_637_184, 768)],
    ids=["DARTS's positions", "the paper's 1st, 2nd, 6th and 10th"],
)
def test_what_the_imagenet_network_of_cells_costs_by_where_it_reduces(
    reductions: tuple[int, ...], params: int, macs: int, node_channels: int
) -> None:
    """The arithmetic of docs/deviations.md: the positions that the paper prints cannot be meant."""
    shape = CellNetShape(
        cells=14,
        nodes=4,
        channels=48,
        image_size=224,
        input_channels=3,
        classes=1000,
        stem="imagenet",
        reductions=reductions,
        deploy=True,
    )
    alpha_E = encode(DARTS_V2)
    assert (cost_table("params", shape, CELL_OPS)(alpha_E), cost_table("macs", shape, CELL_OPS)(alpha_E)) == (
        params,
        macs,
    )
    assert shape.geometry()[-1].channels == node_channels
    with torch.device("meta"):
        network = CellNetwork(shape, [(CELL_OPS[k],) for k in alpha_E])
    assert sum(p.numel() for p in network.parameters()) == params


def test_the_figure_with_batch_norm_and_relu_is_the_published_one() -> None:
    """543.9M for DARTS_V2, cut off after the first decimal."""
    spec = make()
    assert spec.costs["macs_bn_relu"](IMAGENET)(spec.encode(DARTS_V2)) == 543_985_920


def test_n_and_h_of_darts() -> None:
    """DARTS_V2: one skip connection and three poolings or skips per reduction node pair; its paths by hand."""
    spec = make()
    costs = {name: cost(CIFAR)(spec.encode(DARTS_V2)) for name, cost in spec.costs.items()}
    assert (costs["nonparametric.normal"], costs["nonparametric.reduce"]) == (2, 8)
    assert (costs["height.normal"], costs["height.reduce"]) == (2, 2)


def test_the_auto_stem_is_that_of_imagenet_from_128_pixels_on() -> None:
    stems = [
        Target.resolve(TargetConfig(), Inputs(shape=(3, size, size), outputs=10), make().target).stem
        for size in (32, 127, 128)
    ]
    assert stems == ["cifar", "cifar", "imagenet"]


def test_the_target_is_that_of_the_data_unless_said_otherwise() -> None:
    inputs = Inputs(shape=(1, 8, 8), outputs=7)
    assert Target.resolve(TargetConfig(), inputs, make().target) == Target(
        cells=20, channels=36, image_size=8, classes=7, stem="cifar", input_channels=1
    )
    other = TargetConfig(cells=14, channels=48, image_size=224, classes=1000, stem="cifar")
    assert Target.resolve(other, inputs, make().target) == Target(
        cells=14, channels=48, image_size=224, classes=1000, stem="cifar", input_channels=1
    )
    assert str(CIFAR) == "20 cells, 36 channels, 32 px, 10 classes, cifar stem"


# --- what can be chosen ---


@pytest.mark.parametrize(("nodes", "edges"), [(1, 4), (2, 10), (3, 18), (4, 28), (8, 88)])
def test_every_node_has_an_edge_from_each_input_and_earlier_node(nodes: int, edges: int) -> None:
    space = make(nodes=nodes).space
    assert space.shape == (edges, 8)
    assert [len(block) for block in space.blocks] == 2 * [node + 2 for node in range(nodes)]


def test_groups_and_what_may_be_generated() -> None:
    groups = {op.name: op.group for op in OPS}
    assert {name for name, group in groups.items() if group == "parameter"} == {
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    }
    assert {op.name for op in OPS if not op.generable} == {"none"}
    assert all(edge.candidates == OPS for edge in make().space.edges)


def test_a_search_takes_the_99_architecture_epochs_of_the_paper() -> None:
    assert planned_architecture_epochs(make().space, keep_per_group=1, epochs_per_round=3) == 99


# --- none ---


def logits(spec_options: dict[str, int], alpha_E: np.ndarray, inputs: Inputs) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make(**spec_options).build(alpha_E, inputs).eval()
        with torch.no_grad():
            return network(torch.randn(4, inputs.channels, inputs.image_size, inputs.image_size))


@pytest.mark.parametrize("size", [7, 8, 128])
@pytest.mark.parametrize("where", ["a node", "the normal cell", "the reduction cell", "everything"])
def test_none_adds_zero(size: int, where: str) -> None:
    options, inputs = {"cells": 3, "nodes": 2, "channels": 4}, Inputs(shape=(1, size, size), outputs=3)
    alpha_E = np.full(10, CELL_OPS.index("sep_conv_3x3"))
    alpha_E[
        {"a node": slice(7, 10), "the normal cell": slice(5), "the reduction cell": slice(5, 10)}.get(where, ...)
    ] = NONE
    out = logits(options, alpha_E, inputs)
    assert out.shape == (4, 3)
    assert torch.isfinite(out).all()
    spread = (out - out[0]).abs().max()
    # The last two cells are reductions: with nothing in them all images look alike.
    assert (spread == 0) == (where in ("the reduction cell", "everything"))


def test_a_node_of_none_gives_zero_channels_of_the_right_size() -> None:
    alpha_E = np.full(10, CELL_OPS.index("skip_connect"))
    alpha_E[7:] = NONE  # the reduction cell's second node
    network = make(cells=2, nodes=2, channels=4).build(alpha_E, Inputs(shape=(1, 7, 7), outputs=3))
    seen = []
    network.cells[1].register_forward_hook(lambda module, x, y: seen.append(y))
    network(torch.randn(2, 1, 7, 7))
    assert seen[0].shape == (2, 16, 4, 4)
    assert seen[0][:, :8].abs().sum() > 0
    assert seen[0][:, 8:].abs().sum() == 0


def test_a_network_of_none_has_the_parameters_that_all_share() -> None:
    spec = make(cells=6, nodes=4, channels=4)
    inputs = Inputs(shape=(1, 8, 8), outputs=10)
    names = [name for name, _ in spec.build(np.full(28, NONE), inputs).named_parameters()]
    assert names
    assert not any(".edges." in name for name in names)


# --- the most probable architecture ---


def test_argmax_equals_brute_force_over_all_generated_architectures() -> None:
    spec, rng = make(nodes=1), np.random.default_rng(0)
    for live_probability in (1.0, 0.5):
        theta_EK = rng.dirichlet(np.ones(8), size=4)
        live_EK = rng.random((4, 8)) < live_probability
        live_EK[:, 1] = True
        generated = [
            np.array(ks) for ks in product(GENERABLE, repeat=4) if all(live_EK[e, k] for e, k in enumerate(ks))
        ]
        best = max(expectation(alpha_E, theta_EK, spec.space, live_EK) for alpha_E in generated)
        assert expectation(spec.argmax(theta_EK, live_EK), theta_EK, spec.space, live_EK) == best


def test_every_node_of_the_most_probable_architecture_has_its_two_best_edges() -> None:
    spec, rng = make(nodes=3), np.random.default_rng(1)
    theta_EK = rng.dirichlet(np.ones(8), size=18)
    alpha_E = spec.argmax(theta_EK, spec.space.exists_EK)
    for block in spec.space.blocks:
        chosen = math.fsum(theta_EK[e, alpha_E[e]] for e in block if alpha_E[e] != NONE)
        pairs = [theta_EK[a, 1:].max() + theta_EK[b, 1:].max() for a, b in combinations(block, 2)]
        assert sum(alpha_E[e] != NONE for e in block) == 2
        assert chosen == pytest.approx(max(pairs), abs=1e-15)


def test_of_equally_probable_architectures_the_lexicographically_smallest_is_taken() -> None:
    spec = make(nodes=2)
    state = initial_state(spec.space, 0)
    cell = [1, 1, 0, 1, 1]  # `none` first, and the first operation where there must be one
    assert spec.argmax(state.theta_EK, state.live_EK).tolist() == cell + cell


# --- genotypes ---


@pytest.mark.parametrize("known", [DARTS_V1, DARTS_V2], ids=["V1", "V2"])
def test_a_known_genotype_comes_back_sorted_by_input(known: dict[str, Any]) -> None:
    back = decode(encode(known), nodes=4)
    for kind in ("normal", "reduce"):
        for node in range(4):
            pairs = known[kind][2 * node : 2 * node + 2]
            assert back[kind][2 * node : 2 * node + 2] == sorted(pairs, key=lambda pair: pair[1])
        assert back[f"{kind}_concat"] == [2, 3, 4, 5]
    np.testing.assert_array_equal(encode(back), encode(known))


def test_every_generated_cell_of_two_nodes_survives_the_round_trip() -> None:
    ops = (NONE, 3, 4)
    nodes = [
        (*first, *second)
        for first in product(ops[1:], repeat=2)
        for second in product(ops, repeat=3)
        if sum(k != NONE for k in second) == 2
    ]
    assert len(nodes) == 4 * 3 * 4
    for normal, reduce in zip(nodes, reversed(nodes), strict=True):
        alpha_E = np.array([*normal, *reduce])
        np.testing.assert_array_equal(encode(decode(alpha_E, nodes=2), nodes=2), alpha_E)


def test_the_number_of_nodes_may_come_from_the_genotype() -> None:
    assert encode(DARTS_V1).shape == (28,)
    two = {"normal": DARTS_V1["normal"][:4], "reduce": DARTS_V1["reduce"][:4]}
    assert encode(two).shape == (10,)


def test_tuples_are_as_good_as_lists_and_the_concatenation_may_be_left_out() -> None:
    as_tuples = {kind: tuple((name, source) for name, source in DARTS_V2[kind]) for kind in ("normal", "reduce")}
    np.testing.assert_array_equal(encode(as_tuples), encode(DARTS_V2))


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in DARTS_V1.items() if k != key}


def changed(kind: str, at: int, pair: object) -> dict[str, Any]:
    pairs = list(DARTS_V1[kind])
    pairs[at] = pair
    return DARTS_V1 | {kind: pairs}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (without("normal"), "the key 'normal' with a list of [operation, input] pairs is missing"),
        (without("reduce"), "the key 'reduce' with a list of [operation, input] pairs is missing"),
        (DARTS_V1 | {"reduce": "sep_conv_3x3"}, "the key 'reduce' with a list of [operation, input] pairs is missing"),
        ([], "the key 'normal' with a list of [operation, input] pairs is missing"),
        (DARTS_V1 | {"normal": DARTS_V1["normal"][:-1]}, "normal has 7 pairs, 4 nodes need 8, two each"),
        (DARTS_V1 | {"reduce": []}, "reduce has 0 pairs, 4 nodes need 8, two each"),
        (
            DARTS_V1 | {"normal_concat": [2, 3, 4]},
            "normal_concat is [2, 3, 4]; cells of this space concatenate all nodes",
        ),
        (
            changed("normal", 0, ["sep_conv_3x4", 1]),
            "normal[0]: 'sep_conv_3x4' is not an operation of a network; did you mean sep_conv_3x3?",
        ),
        (changed("normal", 2, ["skip_connect", 3]), "normal[2]: input 3; node 1 has inputs 0..2"),
        (changed("reduce", 7, ["skip_connect", -1]), "reduce[7]: input -1; node 3 has inputs 0..4"),
        (changed("reduce", 7, ["skip_connect", "0"]), "reduce[7]: input '0'; node 3 has inputs 0..4"),
        (changed("normal", 1, ["sep_conv_5x5", 1]), "normal[1]: node 0 takes input 1 twice"),
        (changed("normal", 1, ["sep_conv_5x5"]), "normal[1] is ['sep_conv_5x5']; a pair [operation, input] is needed"),
        (changed("normal", 1, 3), "normal[1] is 3; a pair [operation, input] is needed"),
        (changed("normal", 1, [3, 0]), "normal[1]: 3 is not an operation"),
        (DARTS_V1 | {"normal_concat": None}, "normal_concat is None"),
        (changed("normal", 1, ["none", 0]), "normal[1]: 'none' is not an operation"),
        (changed("normal", 1, ["sep_conv_5x5", True]), "normal[1]: input True"),
    ],
)
def test_what_is_wrong_with_a_genotype_is_said(wrong: Any, message: str) -> None:
    with pytest.raises(GenotypeError) as error:
        encode(wrong, nodes=4)
    assert message in str(error.value)
