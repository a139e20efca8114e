"""Kubernetes files: KubeRay's own schema with unknown keys refused, and the rules that all of them keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clusters.files import PODS, RAY, documents, pods, ray_cluster, text

CLOSED = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}


def closed(schema: Any) -> Any:
    """The same schema, without keys that it does not name."""
    if isinstance(schema, list):
        return [closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(inner) for key, inner in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
    return schema


@pytest.fixture(scope="module")
def schemas(test_data: Path) -> dict[str, Any]:
    found = {}
    for kind, name in CLOSED.items():
        definition = yaml.load(
            (test_data / "kuberay" / name).read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
        (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
        found[kind] = closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("kuberay.yaml", "RayCluster"), ("kuberay-search.yaml", "RayJob")])
def test_the_operator_knows_every_key(name: str, kind: str, schemas: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    spec = documents(name)[kind]["spec"]
    validator = Draft202012Validator(schemas[kind])
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(spec)] == []
    typo = json.loads(json.dumps(spec))  # no longer sharing what the file shares by an alias
    pods(typo.get("rayClusterSpec", typo))[1]["containers"][0]["resource"] = {}
    assert [error.validator for error in validator.iter_errors(typo)] == ["additionalProperties"]


@pytest.mark.parametrize("name", PODS)
def test_ray_is_of_the_pinned_version_everywhere(name: str) -> None:
    spec = ray_cluster(name)
    assert spec["rayVersion"] == RAY
    head, *workers = [pod["containers"][0]["image"] for pod in pods(spec)]
    assert head == f"registry.example.com/ddpnas:{RAY}-py311-cpu"
    assert set(workers) == {f"registry.example.com/ddpnas:{RAY}-py311-gpu"}


def test_the_image_is_rays_own_with_what_was_tested_together() -> None:
    lines = text("Dockerfile").splitlines()
    assert f"FROM rayproject/ray:{RAY}-py311-${{FLAVOUR}}" in lines
    assert "RUN cd /home/ray/ddpnas && pip install --no-cache-dir -c constraints.txt ." in lines


@pytest.mark.parametrize("name", PODS)
def test_every_call_needs_the_token(name: str) -> None:
    assert ray_cluster(name)["authOptions"] == {"mode": "token", "secretName": "ddpnas-token"}


@pytest.mark.parametrize("name", PODS)
def test_nobody_else_reaches_the_pods(name: str) -> None:
    spec, policy = ray_cluster(name), documents(name)["NetworkPolicy"]["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    labels = policy["podSelector"]["matchLabels"]
    assert all(labels.items() <= group["template"]["metadata"]["labels"].items() for group in groups)
    assert policy["policyTypes"] == ["Ingress"]
    own, *others = policy["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    host = spec["headGroupSpec"]["rayStartParams"]["dashboard-host"]
    if name == "kuberay.yaml":
        assert host == "127.0.0.1" and not others
    else:  # the job is submitted, and asked for by the operator, by the head's service; nobody else may use it
        assert host == "0.0.0.0"
        assert [port["port"] for port in others[0]["ports"]] == [8265] and len(others) == 1
        assert all("podSelector" in source and "namespaceSelector" in source for source in others[0]["from"])


@pytest.mark.parametrize("name", PODS)
def test_gpu_pods_come_on_demand_spot_first_and_go_when_idle(name: str) -> None:
    spec = ray_cluster(name)
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2" and spec["autoscalerOptions"]["idleTimeoutSeconds"] <= 300
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    spot, on_demand = spec["workerGroupSpecs"]
    assert spot["priority"] > on_demand["priority"]
    assert [group["minReplicas"] for group in (spot, on_demand)] == [0, 0]
    assert spot["template"]["spec"]["nodeSelector"].items() > on_demand["template"]["spec"]["nodeSelector"].items()


@pytest.mark.parametrize("name", PODS)
def test_pods_have_no_more_rights_than_they_need(name: str) -> None:
    volume = documents("kuberay-volume.yaml")
    head, *workers = pods(ray_cluster(name))
    assert head["serviceAccountName"] == "ddpnas-head"
    for pod in (head, *workers):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["restartPolicy"] == "Never", "autoscaler v2"
        assert pod["volumes"] == [{"name": "runs", "persistentVolumeClaim": {"claimName": "ddpnas-runs"}}]
        assert "ephemeral-storage" in pod["containers"][0]["resources"]["limits"]
    for pod in workers:
        assert volume[f"ServiceAccount/{pod['serviceAccountName']}"]["automountServiceAccountToken"] is False
    assert "PersistentVolumeClaim/ddpnas-runs" in volume


def test_a_search_by_job_goes_on_with_the_run_that_is_there_and_ends_its_cluster() -> None:
    job = documents("kuberay-search.yaml")["RayJob"]["spec"]
    elastic = "--set execution.elastic=true --set execution.gpus_per_worker=1"
    assert elastic in " ".join(job["entrypoint"].split()), "what a node must have for it to be started"
    assert "--resume" in job["entrypoint"] and "--address" not in job["entrypoint"], "RAY_ADDRESS tells a job"
    assert job["shutdownAfterJobFinishes"] is True and job["backoffLimit"] > 0


@pytest.mark.parametrize("name", [*PODS, "kuberay-volume.yaml"])
def test_what_a_user_must_change_is_marked(name: str) -> None:
    examples = ("registry.example.com", "gke-spot", "nvidia-l4", "standard-rwx", "kubernetes.io/metadata.name")
    lines = [line for line in text(name).splitlines() if any(e in line for e in examples) and line.lstrip()[0] != "#"]
    assert lines and [line for line in lines if "CHANGE" not in line] == []
