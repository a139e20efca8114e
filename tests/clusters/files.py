"""The files of ``clusters/``, and what they have in common."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.conftest import ROOT

CLUSTERS = ROOT / "clusters"
MACHINES = ("aws.yaml", "gcp.yaml", "local.yaml")  # by `ray up`
PODS = ("kuberay.yaml", "kuberay-search.yaml")
RAY = next(
    line.split("==")[1].split()[0]
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line.startswith("ray==")
)


def text(name: str) -> str:
    return (CLUSTERS / name).read_text(encoding="utf-8")


def machines(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(text(name))
    return config


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The Kubernetes objects of a file, by kind; several of one kind by kind and name too."""
    found = [document for document in yaml.safe_load_all(text(name)) if document]
    return {key: d for d in found for key in (d["kind"], f"{d['kind']}/{d['metadata']['name']}")}


def ray_cluster(name: str) -> dict[str, Any]:
    """The specification of the Ray cluster in a file."""
    found = documents(name)
    spec: dict[str, Any] = (
        found["RayCluster"]["spec"] if "RayCluster" in found else found["RayJob"]["spec"]["rayClusterSpec"]
    )
    return spec


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod specifications of a Ray cluster: the head's, then the workers'."""
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def without_comments(name: str) -> str:
    return re.sub(r"(^|\s)#.*", "", text(name))
