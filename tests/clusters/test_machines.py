"""Cluster files for `ray up`: what Ray's own loader and schema say, and the rules that all of them keep."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clusters.files import MACHINES, RAY, machines, text, without_comments

PROVIDER_KEYS = {  # Ray's schema lets any pass
    "aws": {"type", "region", "availability_zone", "cache_stopped_nodes"},
    "gcp": {"type", "project_id", "region", "availability_zone", "cache_stopped_nodes"},
    "local": {"type", "head_ip", "worker_ips"},
}
EXAMPLES = {  # what a user must change
    "aws.yaml": r"us-west-2|ami-0|sg-0|000000000000|InstanceType: g",
    "gcp.yaml": r"my-project|us-central1|machineType: g|deeplearning-platform",
    "local.yaml": r"192\.168|/nfs/|ssh_private_key|ssh_user",
}


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` loads it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", MACHINES)
def test_ray_accepts_the_file_and_would_refuse_a_typo(name: str) -> None:
    from jsonschema import ValidationError

    config = machines(name)
    prepared = checked(config)
    assert prepared["max_workers"] == config["max_workers"]
    assert set(config["provider"]) == PROVIDER_KEYS[config["provider"]["type"]]
    with pytest.raises(ValidationError):
        checked({**config, "idle_timeout_minute": 5})


@pytest.mark.parametrize("name", MACHINES)
def test_images_are_official_and_of_the_pinned_version(name: str) -> None:
    docker = machines(name)["docker"]
    assert docker["head_image"] == f"rayproject/ray:{RAY}-py311-cpu"
    assert docker["worker_image"] == f"rayproject/ray:{RAY}-py311-gpu"


@pytest.mark.parametrize("name", MACHINES)
def test_every_node_installs_the_repository_and_what_was_tested_together(name: str) -> None:
    config = checked(machines(name))
    assert config["file_mounts"]["/home/ray/ddpnas"] == "."
    for kind in ("head", "worker"):
        commands = config[f"{kind}_setup_commands"]
        package, *more = [command for command in commands if "pip" in command]
        assert package == "cd ~/ddpnas && pip install -q -c constraints.txt -e ."
        assert all(command.startswith("cd ~/ddpnas && pip install -q -c constraints.txt ") for command in more), more
        assert not any("ray-wheels" in command or "pip install -U" in command for command in commands), "Ray's defaults"


@pytest.mark.parametrize("name", MACHINES)
def test_every_process_of_every_node_needs_the_token(name: str) -> None:
    config = machines(name)
    path = "/home/ray/ddpnas-token/auth_token"
    assert config["file_mounts"]["/home/ray/ddpnas-token"] == "~/.ddpnas-token"
    assert f"-e RAY_AUTH_TOKEN_PATH={path}" in config["docker"]["run_options"]
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    for kind in ("head", "worker"):
        start = [command for command in config[f"{kind}_start_ray_commands"] if "ray start" in command]
        assert len(start) == 1
        assert f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={path.replace('/home/ray', '$HOME')};" in start[0]
    assert not re.search(r"\b[0-9a-f]{32,}\b", text(name)), "a token never lies in a file"


@pytest.mark.parametrize("name", MACHINES)
def test_the_dashboard_answers_on_the_head_alone(name: str) -> None:
    start = machines(name)["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
    assert "0.0.0.0" not in without_comments(name)


@pytest.mark.parametrize("name", MACHINES)
def test_what_a_user_must_change_is_marked(name: str) -> None:
    assert "CHANGE THESE" in text(name).split("cluster_name")[0]
    examples = [line for line in text(name).splitlines() if re.search(EXAMPLES[name], line) and line.lstrip()[0] != "#"]
    assert examples
    assert [line for line in examples if "CHANGE" not in line] == []


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_gpu_workers_come_on_demand_spot_first_and_go_when_idle(name: str) -> None:
    config = checked(machines(name))
    types = config["available_node_types"]
    head, spot, on_demand = types[config["head_node_type"]], types["gpu-spot"], types["gpu-on-demand"]
    assert head["resources"] == {"CPU": 0}, "no worker of a search lands on the head"
    assert spot["resources"] == on_demand["resources"] and spot["resources"]["GPU"] == 1
    assert spot["min_workers"] == on_demand["min_workers"] == 0
    assert spot["max_workers"] == on_demand["max_workers"] == config["max_workers"] == 8
    assert spot["priority"] > on_demand["priority"]
    assert 0 < config["idle_timeout_minutes"] <= 5
    assert config["provider"]["cache_stopped_nodes"] is False
    assert str(spot["node_config"]).lower().count("spot") > str(on_demand["node_config"]).lower().count("spot") == 0


def test_an_own_machine_stays_in_the_cluster() -> None:
    config = checked(machines("local.yaml"))
    (only,) = config["available_node_types"].values()
    assert only["min_workers"] == only["max_workers"] == len(config["provider"]["worker_ips"])
    assert "-v /nfs/ddpnas:/nfs/ddpnas" in config["docker"]["run_options"]


def test_google_cloud_machines_are_what_its_api_describes() -> None:
    documents = pytest.importorskip(
        "googleapiclient.discovery_cache",
        reason="google-api-python-client is not installed; pip install -e '.[dev]' has it",
    )
    import json
    from pathlib import Path

    schemas = json.loads(Path(documents.__file__).with_name("documents").joinpath("compute.v1.json").read_bytes())[
        "schemas"
    ]
    types = machines("gcp.yaml")["available_node_types"]
    for name, node_type in types.items():
        assert list(strangers(node_type["node_config"], schemas["Instance"], schemas)) == [], name
        (disk,) = node_type["node_config"]["disks"]
        assert disk["initializeParams"]["diskSizeGb"] >= (60 if name == "head" else 150)
        (account,) = node_type["node_config"]["serviceAccounts"]
        assert account["email"].startswith("ddpnas-"), "never the project's default account, nor Ray's"
    assert "cloud-platform" not in str([t for n, t in types.items() if n != "head"])
    typo = {**types["head"]["node_config"], "scheduling": {"provisionModel": "SPOT", "onHostMaintenance": "STOP"}}
    found = ["scheduling.provisionModel", "scheduling.onHostMaintenance"]
    assert list(strangers(typo, schemas["Instance"], schemas)) == found


def strangers(value: Any, schema: dict[str, Any], schemas: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths in a value that a discovery document does not know, of another type or beyond an enumeration."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}".lstrip(".")
            if key not in schema.get("properties", {}):
                yield where
            else:
                yield from strangers(inner, schema["properties"][key], schemas, where)
    elif isinstance(value, list):
        if schema["type"] != "array":
            yield path
        else:
            for inner in value:
                yield from strangers(inner, schema["items"], schemas, path)
    elif schema["type"] == "string" and isinstance(value, int):  # an int64 is a string there, and may be either here
        return
    elif value not in schema.get("enum", [value]) or type(value).__name__[:3] != schema["type"][:3]:
        yield path
