"""What clusters/README.md tells to type exists, and its numbers are those of ``check``."""

from __future__ import annotations

import importlib.util
import re
import shlex
from dataclasses import fields

import pytest

from ddpnas_ray.core.scaling import Constants, Workload
from ddpnas_ray.experiment.config import load, make_strategy
from ddpnas_ray.launch.dry_run import Estimate
from ddpnas_ray.spaces.base import find_space
from tests.clusters.files import CLUSTERS, MACHINES, PODS, text
from tests.conftest import ROOT

README = text("README.md")
COPIES = {"my-aws.yaml", "my-gcp.yaml", "my-local.yaml"}
CONFIGS = {"cell": "cifar10_cell", "mobile": "imagenet_mobile", "NAS-Bench-201": "cifar10_nasbench201"}
ONE_SECOND = {"architecture_s": 1.0, "allreduce_bytes_per_s": 1.0, "transfer_bytes_per_s": 1.0}


def code() -> list[str]:
    """Everything set as code: blocks, and words in a line."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [block.replace("\\\n", " ") for block in blocks] + re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", README)


def test_every_file_that_is_named_exists() -> None:
    named = {word for piece in code() for word in re.findall(r"\b(?:clusters|configs|tests)/[\w./-]+", piece)}
    assert {f"clusters/{name}" for name in ("aws_account.py", "Dockerfile", *PODS)} <= named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    links = set(re.findall(r"\]\(([^)#]+)\)", README))
    assert [link for link in sorted(links) if not (CLUSTERS / link).exists()] == []
    assert {path.name for path in CLUSTERS.iterdir() if path.is_file()} - {"README.md"} == {
        link for link in links if not link.startswith("..")
    }
    copies = {word for piece in code() for word in re.findall(r"\b[\w-]+\.yaml\b(?<!kuberay.yaml)", piece)}
    assert {name for name in copies if name.startswith("my-")} == COPIES == {f"my-{name}" for name in MACHINES}


def test_every_command_and_option_of_ours_exists() -> None:
    calls = [call for piece in code() for call in re.findall(r"python -m (ddpnas_ray\.\w+)([^;&|\'`]*)", piece)]
    assert {module for module, _ in calls} == {
        f"ddpnas_ray.{name}" for name in ("search", "attach", "check", "generate")
    }
    for module, rest in calls:
        assert importlib.util.find_spec(module) is not None
        parser = importlib.import_module(module).parser()
        given = {word for word in shlex.split(rest.split("\n")[0]) if word.startswith("--")}
        assert given <= set(parser._option_string_actions), (module, given)
        overrides = re.findall(r"--set (\S+=\S+)", rest)
        load(None, [f"{key}" for key in overrides if not key.startswith("data.")])


def test_every_command_and_option_of_ray_exists() -> None:
    from ray.scripts.scripts import cli

    calls = {call for piece in code() for call in re.findall(r"(?<![\w./-])ray ([a-z-]+)((?: [^`;&|\n\']*)?)", piece)}
    used = {
        "up",
        "down",
        "exec",
        "attach",
        "dashboard",
        "rsync-up",
        "monitor",
        "status",
        "get-auth-token",
        "drain-node",
        "job",
    }
    assert used == {command for command, _ in calls}
    for command, rest in calls:
        asked, words = cli.commands[command], rest.partition(" -- ")[0]  # after that come our own
        if command == "rsync-up":  # by plain rsync: without a slash a folder would go into the one that it shall become
            assert all(path.endswith("/") for path in words.split()[1:]), words
        if command == "job":
            asked = asked.commands[words.split()[0]]
        known = {option for parameter in asked.params for option in parameter.opts}
        assert set(re.findall(r" (--[a-z-]+)", words)) <= known, (command, rest)


@pytest.mark.parametrize("space", CONFIGS)
def test_times_are_those_of_check(space: str) -> None:
    config = load(str(ROOT / "configs" / f"{CONFIGS[space]}.yaml"), [])
    spec = find_space(config.space.name)(**config.space.options)
    architectures = make_strategy(config, spec.space).epochs(spec.space)
    work = Workload(architectures=architectures, steps=0, validation_batches=0, shared_bytes=0, own_bytes=0)
    constants = Constants(**dict.fromkeys((field.name for field in fields(Constants)), 0.0) | ONE_SECOND)
    estimate = Estimate(work=work, constants=constants, worker_bytes=0, disk_bytes=0)
    times = [round(estimate.seconds(workers)) for workers in (1, 2, 4, 8)]
    row = f"| {space} | {len(architectures)} | " + " | ".join(f"{time} t" for time in times) + " |"
    assert row in README
    if space == "cell":
        paid = [workers * time for workers, time in zip((1, 2, 4, 8), times, strict=True)]
        assert f"{paid[0]}, {paid[1]}, {paid[2]} and {paid[3]} for 1, 2, 4 and 8" in README
