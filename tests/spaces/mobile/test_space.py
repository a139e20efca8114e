"""The mobile space: the contract in several shapes, the counts of known networks, and genotypes.

Axes: E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from ddpnas_ray.core.errors import ConfigError, GenotypeError
from ddpnas_ray.core.schedule import planned_architecture_epochs
from ddpnas_ray.experiment.config import check, dump
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.known import KnownNetwork, known_network
from ddpnas_ray.spaces.mobile.space import make
from ddpnas_ray.spaces.target import Inputs, Target, TargetConfig
from ddpnas_ray.testing import SpaceContract, count_bn_relu, count_macs
from ddpnas_ray.training.epoch import fixed_threads

TINY = {"widths": (4, 4, 6, 6, 8, 8, 10, 12, 16)}
SMALL_IMAGES = {"stem_stride": 1, "strides": (1, 2, 2, 1, 2, 1)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: for these small layers synchronisation costs more than it saves."""
    with fixed_threads(1):
        yield


class TestDefaultDepthsOnSmallImages(SpaceContract):
    make = staticmethod(partial(make, **TINY, **SMALL_IMAGES))
    inputs = Inputs(shape=(3, 32, 32), outputs=10)
    random_alphas = 1


class TestImagenetStrides(SpaceContract):
    make = staticmethod(partial(make, **TINY))
    inputs = Inputs(shape=(3, 64, 64), outputs=7)
    random_alphas = 1


class TestOddSizes(SpaceContract):
    make = staticmethod(
        partial(make, widths=(3, 5, 5, 7, 9), depths=(2, 3), strides=(2, 2), first_kernel=7, stem_stride=1)
    )
    inputs = Inputs(shape=(1, 15, 15), outputs=3)


class TestLastStageFixed(SpaceContract):
    make = staticmethod(
        partial(make, widths=(4, 4, 6, 8, 8), depths=(2, 2), strides=(1, 2), search_last=False, last="mbconv_k5_e3")
    )
    target_config = TargetConfig(image_size=13, classes=4)


class TestStagesOfOneBlock(SpaceContract):
    make = staticmethod(
        partial(make, widths=(4, 6, 6, 6, 8, 8), depths=(1, 1, 1), strides=(1, 2, 1), first_kernel=5, stem_stride=1)
    )


# --- counts of known networks ---

IMAGENET = Target(image_size=224, classes=1000)
PROXYLESS_GPU, PROXYLESS_CPU, MOBILENET_V2 = (
    known_network(name) for name in ("proxylessnas_gpu", "proxylessnas_cpu", "mobilenet_v2")
)
KNOWN = [
    pytest.param(PROXYLESS_GPU, {}, 7_119_848, 465_260_160, id="proxyless-gpu"),
    pytest.param(PROXYLESS_CPU, {}, 4_361_648, 439_243_864, id="proxyless-cpu"),
    pytest.param(MOBILENET_V2, {}, 3_504_872, 300_774_272, id="mobilenet-v2"),
    pytest.param(MOBILENET_V2, {"search_last": False}, 3_504_872, 300_774_272, id="mobilenet-v2, last stage fixed"),
]


@pytest.mark.parametrize(("known", "options", "params", "macs"), KNOWN)
def test_tables_give_the_exact_costs(known: KnownNetwork, options: dict[str, Any], params: int, macs: int) -> None:
    spec = make(**known.options, **options)
    alpha_E = spec.encode(known.genotype)
    assert spec.costs["params"](IMAGENET)(alpha_E) == params
    assert spec.costs["macs"](IMAGENET)(alpha_E) == macs
    assert spec.decode(alpha_E) == known.genotype


@pytest.mark.parametrize(("known", "options", "params", "macs"), KNOWN)
def test_deploy_networks_have_the_exact_costs(
    known: KnownNetwork, options: dict[str, Any], params: int, macs: int
) -> None:
    spec = make(**known.options, **options)
    with torch.device("meta"):
        network = spec.deploy(spec.encode(known.genotype), IMAGENET).eval()
        assert sum(p.numel() for p in network.parameters()) == params
        assert count_macs(network, torch.empty(1, 3, 224, 224)) == macs


def test_the_figure_with_batch_norm_and_relu_is_that_of_the_network() -> None:
    spec = make(**MOBILENET_V2.options)
    alpha_E = spec.encode(MOBILENET_V2.genotype)
    network = spec.deploy(alpha_E, IMAGENET).eval()
    x = torch.zeros(1, 3, 224, 224)
    assert spec.costs["macs_bn_relu"](IMAGENET)(alpha_E) == count_macs(network, x) + count_bn_relu(network, x)


@pytest.mark.parametrize(("search_last", "height"), [(True, 13), (False, 12)])
def test_n_is_the_blocks_left_out_and_h_those_that_remain(search_last: bool, height: int) -> None:
    """Of the searched blocks: a fixed last one is in neither."""
    spec = make(search_last=search_last, last="mbconv_k7_e6")
    alpha_E = spec.encode(PROXYLESS_GPU.genotype)
    assert spec.costs["nonparametric"](IMAGENET)(alpha_E) == 8
    assert spec.costs["height"](IMAGENET)(alpha_E) == height
    assert len(alpha_E) == 8 + height


def test_equal_parts_have_equal_keys_and_are_timed_once() -> None:
    parts = make().parts(IMAGENET)  # type: ignore[misc]
    assert len(parts) == 2 + 21 * 6 + 2
    keys = {part.key for part in parts}
    # in each of the first five stages the first block is one of a kind and the other three are alike
    assert len(keys) == 2 + 11 * 6 + 2
    assert "mbconv_k7_e6 stride 2 to 24 from 16x112x112" in keys
    for part in parts:
        same = {other.example for other in parts if other.key == part.key}
        assert same == {part.example}


def test_a_target_has_an_image_size_and_classes_only() -> None:
    inputs = Inputs(shape=(3, 32, 32), outputs=10)
    assert str(Target.resolve(TargetConfig(image_size=224), inputs, make().target)) == "224 px, 10 classes"
    for config in (TargetConfig(cells=20), TargetConfig(channels=36), TargetConfig(stem="cifar")):
        with pytest.raises(ConfigError, match="networks of this space have"):
            Target.resolve(config, inputs, make().target)


# --- what can be chosen ---


def test_it_is_found_by_its_name() -> None:
    assert find_space("mobile") is make


def test_21_edges_of_which_15_may_be_left_out() -> None:
    space = make().space
    assert space.shape == (21, 7)
    names = [[op.name for op in edge.candidates] for edge in space.edges]
    first_of_stage = [0, 4, 8, 12, 16, 20]
    for e, candidates in enumerate(names):
        assert candidates[:6] == [f"mbconv_k{kernel}_e{expand}" for kernel in (3, 5, 7) for expand in (3, 6)]
        assert candidates[6:] == ([] if e in first_of_stage else ["zero"])
    assert [edge.name for edge in space.edges][:5] == ["stage0.0", "stage0.1", "stage0.2", "stage0.3", "stage1.0"]
    assert space.blocks == tuple((e,) for e in range(21))


def test_groups_and_what_may_be_generated() -> None:
    for edge in make().space.edges:
        for op in edge.candidates:
            assert op.generable
            assert op.group == ("non_parameter" if op.name == "zero" else "parameter")


def test_the_first_block_of_a_stage_may_be_left_out_where_it_changes_nothing() -> None:
    space = make(widths=(8, 8, 8, 8, 12, 16), depths=(1, 2, 1), strides=(1, 2, 1)).space
    assert [len(edge.candidates) for edge in space.edges] == [7, 6, 7, 6]


def test_without_its_last_stage_the_space_has_the_20_layers_of_the_paper() -> None:
    spec = make(search_last=False)
    assert spec.space.shape == (20, 7)
    genotype = spec.decode(np.zeros(20, dtype=np.int64))
    assert [len(stage) for stage in genotype["stages"]] == [4, 4, 4, 4, 4, 1]
    assert genotype["stages"][-1] == ["mbconv_k3_e6"]


@pytest.mark.parametrize("options", [{}, {"search_last": False}, SMALL_IMAGES])
def test_a_search_takes_75_architecture_epochs(options: dict[str, Any]) -> None:
    assert planned_architecture_epochs(make(**options).space, keep_per_group=1, epochs_per_round=3) == 75


def test_a_block_that_is_left_out_passes_its_input_on() -> None:
    spec = make(widths=(4, 4, 6, 8), depths=(3,), strides=(1,), stem_stride=1)
    network = spec.build(np.array([0, 6, 6]), Inputs(shape=(1, 8, 8), outputs=3)).eval()
    seen: dict[str, torch.Tensor] = {}
    network.blocks[0]["mbconv_k3_e3"].register_forward_hook(lambda module, x, y: seen.update(after=y.clone()))
    network.last.register_forward_hook(lambda module, x, y: seen.update(before=x[0]))
    network(torch.randn(2, 1, 8, 8))
    assert torch.equal(seen["after"], seen["before"])
    assert not any(name.startswith(("blocks.1.", "blocks.2.")) for name, _ in network.named_parameters())


def test_a_block_that_keeps_the_shape_adds_its_input() -> None:
    spec = make(widths=(4, 4, 6, 8), depths=(2,), strides=(1,), stem_stride=1)
    network = spec.build(np.array([0, 0]), Inputs(shape=(1, 8, 8), outputs=3)).eval()
    changes, keeps = network.blocks[0]["mbconv_k3_e3"], network.blocks[1]["mbconv_k3_e3"]
    for block in (changes, keeps):
        torch.nn.init.zeros_(block.project[0].weight)
    x = torch.randn(2, 6, 8, 8)
    with torch.no_grad():
        assert torch.equal(keeps(x), x)
        assert not changes(torch.randn(2, 4, 8, 8)).any()


# --- options ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"depths": [4, 4]},
            "space.strides has 6 numbers and space.depths 2; give one per stage in both",
        ),
        (
            {"depths": [4, 4], "strides": [2, 2]},
            "space.widths has 9 numbers; 2 stages (space.depths) need 5: "
            "stem, first block, one per stage, last convolution",
        ),
        (
            {"widths": [], "strides": [2, 2, 2, 1, 2, 1]},
            "space.widths has 0 numbers; 6 stages (space.depths) need 9",
        ),
        (
            {"widths": [4, 4, 4, 4], "depths": [2], "strides": [1], "search_last": False},
            "space.search_last is false and space.depths has one stage, so no block is left to search; "
            "set it to true, or add a stage",
        ),
    ],
)
def test_numbers_that_do_not_fit_together(options: dict[str, Any], message: str) -> None:
    config = check({"space": {"name": "mobile", **options}}, "a.yaml")
    with pytest.raises(ConfigError) as error:
        make(**config.space.options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": [4]}, "a.yaml: space.width is not an option of space 'mobile'; did you mean widths?"),
        ({"widths": [4, 0, 4]}, "a.yaml: space.widths is [4, 0, 4]; input should be greater than or equal to 1"),
        ({"widths": [4, 1.5]}, "a.yaml: space.widths is [4, 1.5]; input should be a valid integer"),
        ({"widths": 4}, "a.yaml: space.widths is 4; input should be a valid tuple"),
        ({"depths": []}, "a.yaml: space.depths is []; tuple should have at least 1 item after validation, not 0"),
        ({"depths": [4, 0]}, "a.yaml: space.depths is [4, 0]; input should be greater than or equal to 1"),
        ({"strides": [1, 3]}, "a.yaml: space.strides is [1, 3]; input should be 1 or 2"),
        ({"stem_stride": 4}, "a.yaml: space.stem_stride is 4; input should be 1 or 2"),
        ({"first_kernel": 4}, "a.yaml: space.first_kernel is 4; input should be 3, 5 or 7"),
        ({"search_last": 0}, "a.yaml: space.search_last is 0; input should be a valid boolean"),
        ({"last": "zero"}, "a.yaml: space.last is 'zero'; input should be 'mbconv_k3_e3', 'mbconv_k3_e6', "),
    ],
)
def test_values_that_are_not_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check({"space": {"name": "mobile", **options}}, "a.yaml")
    assert str(error.value).startswith(message)


def test_lists_of_a_configuration_file_are_as_good_as_tuples() -> None:
    written = {"name": "mobile", "widths": [4, 4, 6, 8], "depths": [2], "strides": [1], "last": "mbconv_k7_e3"}
    config = check({"space": written}, "a.yaml")
    assert check(parse(dump(config), "b.yaml"), "b.yaml") == config
    assert make(**config.space.options).space.shape == (2, 7)


# --- genotypes ---


def changed(stage: int, block: int, name: object) -> dict[str, Any]:
    copy: list[list[Any]] = [list(names) for names in MOBILENET_V2.genotype["stages"]]
    copy[stage][block] = name
    return {"stages": copy}


def test_every_single_choice_survives_the_round_trip() -> None:
    spec = make(search_last=False)
    for e, edge in enumerate(spec.space.edges):
        for k in range(len(edge.candidates)):
            alpha_E = np.zeros(20, dtype=np.int64)
            alpha_E[e] = k
            np.testing.assert_array_equal(spec.encode(spec.decode(alpha_E)), alpha_E)


def test_tuples_are_as_good_as_lists() -> None:
    spec = make()
    as_tuples = {"stages": tuple(tuple(stage) for stage in MOBILENET_V2.genotype["stages"])}
    np.testing.assert_array_equal(spec.encode(as_tuples), spec.encode(MOBILENET_V2.genotype))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "the key 'stages' with a list of operations for each stage is missing"),
        ([], "the key 'stages' with a list"),
        ({"stages": "mbconv_k3_e3"}, "the key 'stages' with a list"),
        ({"normal": [], "reduce": []}, "the key 'stages' with a list"),
        ({"stages": MOBILENET_V2.genotype["stages"][:-1]}, "stages has 5 stages, this space has 6"),
        (
            {"stages": [*MOBILENET_V2.genotype["stages"][:-1], "zero"]},
            "stages[5] is 'zero'; a list of 1 operations is needed",
        ),
        (
            {"stages": [["zero"], *MOBILENET_V2.genotype["stages"][1:]]},
            "stages[0] has 1 operations; this stage has 4 blocks",
        ),
        (
            changed(2, 1, "mbconv_k3_e5"),
            "stages[2][1]: 'mbconv_k3_e5' is not an operation of this block; did you mean mbconv_k3_e",
        ),
        (changed(2, 1, "Zero"), "stages[2][1]: 'Zero' is not an operation of this block; did you mean zero?"),
        (changed(2, 1, 3), "stages[2][1]: 3 is not an operation of this block; allowed: mbconv_k3_e3, "),
        (changed(2, 1, ["zero"]), "stages[2][1]: ['zero'] is not an operation of this block"),
        (changed(2, 1, None), "stages[2][1]: None is not an operation of this block"),
        (
            changed(1, 0, "zero"),
            "stages[1][0]: 'zero' would leave out a block that changes width or size; allowed: mbconv_k3_e3, ",
        ),
    ],
)
def test_what_is_wrong_with_a_genotype_is_said(wrong: Any, message: str) -> None:
    with pytest.raises(GenotypeError) as error:
        make().encode(wrong)
    assert str(error.value).startswith(f"genotype: {message}")


def test_a_fixed_last_stage_must_be_in_the_genotype_as_it_is() -> None:
    spec = make(search_last=False, last="mbconv_k5_e3")
    assert spec.encode(changed(5, 0, "mbconv_k5_e3")).shape == (20,)
    with pytest.raises(GenotypeError) as error:
        spec.encode(MOBILENET_V2.genotype)
    assert str(error.value) == (
        "genotype: stages[5][0]: 'mbconv_k3_e6'; the blocks of the last stage are fixed to mbconv_k5_e3 "
        "(space.search_last, space.last)"
    )
