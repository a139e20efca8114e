"""Run directories and sweeps over the S3 protocol, on a local in-memory server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ddpnas_ray import report, search
from ddpnas_ray.runs.lock import lock_holder
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder
from tests.commands import ENVIRONMENT, SEARCH, options, run
from tests.conftest import TINY

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
KEYS = [*TINY, "execution.workers=2", "data.train_limit=256", "data.val_limit=128", "pruning.epochs_per_round=3"]
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
CLUSTER = """
import os, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=2, env_vars={"HOME": sys.argv[1]})
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[Mapping[str, str]]:
    """An empty bucket named ``bucket``; yields the environment variables for processes that use it."""
    pytest.importorskip("moto", reason="moto is not installed; pip install -e '.[dev]' has it")
    import boto3

    with pytest.MonkeyPatch.context() as patch, process(SERVER) as port:
        access = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        access |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
        for name, value in access.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield {**ENVIRONMENT, **access}


class process:
    """Run a Python process for the duration of the block; it prints a line when ready."""

    def __init__(self, code: str, *words: str, environment: Mapping[str, str] = ENVIRONMENT) -> None:
        self._command, self._environment = [sys.executable, "-c", code, *words], environment

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=60)


def test_a_search_in_a_bucket_is_killed_resumed_and_checked(s3: Mapping[str, str], tmp_path: Path) -> None:
    uri = "s3://bucket/run"
    first = subprocess.Popen([*SEARCH, *options(*KEYS), "--out", uri], env=s3, start_new_session=True)
    folder, deadline = Folder.open(uri), time.monotonic() + 120
    while newest_epoch(folder / "checkpoints") < 2:
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert folder.has("LOCK") and not folder.has("result.json")
    assert lock_holder(folder) is None, "it names an ended process of this machine"
    subprocess.run([*SEARCH, "--out", uri, "--resume"], env=s3, check=True, timeout=300)
    assert not folder.has("LOCK")
    said = run(report.main, uri, "--verify-fingerprint")
    assert said.code == 0, said.err
    local = run(search.main, "--out", tmp_path / "local", *options(*KEYS, "execution.backend=local"))
    assert local.code == 0
    assert said.out.split()[0] == json.loads((tmp_path / "local" / "result.json").read_bytes())["fingerprint"]


def test_trials_of_a_sweep_get_their_images_from_the_node_of_the_command(s3: Mapping[str, str], tmp_path: Path) -> None:
    # The command's node has the images but no CPU; ~ is another folder on the node where trials run.
    home, other = tmp_path / "home", tmp_path / "other"
    other.mkdir()
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:200], digits.target[:200], strict=True)):
        (home / "photos" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(home / "photos" / str(label) / f"{number}.png")
    images = ["data.name=folder", "data.path=~/photos"]
    words = [*options(*TINY, *images), "--grid", "pruning.gamma=0.5,0.9", "--seeds", "2", "--log", "none"]
    here = {**s3, "HOME": str(home)}
    with process(CLUSTER, str(other), environment=here) as address:
        sweep = [sys.executable, "-m", "ddpnas_ray.sweep", *words, "--out", "s3://bucket/sweep", "--address", address]
        done = subprocess.run(sweep, env=here, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = Folder.open("s3://bucket/sweep/trials")
    names = [f"gamma={gamma},seed={seed}" for gamma in (0.5, 0.9) for seed in (0, 1)]
    assert trials.names() == names
    assert all((trials / name).has("result.json") and not (trials / name).has("LOCK") for name in names)
