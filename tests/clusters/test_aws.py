"""aws_account.py and aws.yaml against a simulated AWS: from an empty account to machines, by Ray's own code."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.clusters.files import CLUSTERS, machines

REGION = "us-west-2"
SETUP = ["--region", REGION, "--bucket", "ddpnas-test", "--ssh-from", "203.0.113.7/32"]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An account of nobody: no request leaves this process."""
    moto = pytest.importorskip("moto", reason="comes with the extra 'dev'")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a key to ~/.ssh
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        import boto3

        yield boto3


@pytest.fixture
def account() -> ModuleType:
    spec = importlib.util.spec_from_file_location("aws_account", CLUSTERS / "aws_account.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bootstrapped(
    aws: Any, account: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """aws.yaml as `ray up` would use it, in an account that aws_account.py has prepared."""
    from ray.autoscaler._private.aws import config as ray_aws
    from ray.autoscaler._private.commands import _bootstrap_config

    ami = aws.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    assert account.main([*SETUP, "--ami", ami]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    sleeps: list[float] = []
    monkeypatch.setattr(ray_aws.time, "sleep", sleeps.append)
    done = _bootstrap_config(config, no_config_cache=True)
    assert sleeps == [], "Ray waits after it has made a role: it made none"
    return done


def test_the_account_gets_what_aws_yaml_names_and_nothing_is_open(bootstrapped: Any, aws: Any) -> None:
    iam, ec2 = aws.client("iam"), aws.client("ec2")
    assert {role["RoleName"] for role in iam.list_roles()["Roles"]} == {"ddpnas-head", "ddpnas-worker"}
    groups = {group["GroupName"]: group for group in ec2.describe_security_groups()["SecurityGroups"]}
    assert set(groups) <= {"default", "ddpnas"}, "Ray made no group of its own"
    sources = {
        rule.get("FromPort", "all"): [r["CidrIp"] for r in rule["IpRanges"]]
        + [g["GroupId"] for g in rule["UserIdGroupPairs"]]
        for rule in groups["ddpnas"]["IpPermissions"]
    }
    assert sources == {22: ["203.0.113.7/32"], "all": [groups["ddpnas"]["GroupId"]]}
    blocked = aws.client("s3").get_public_access_block(Bucket="ddpnas-test")["PublicAccessBlockConfiguration"]
    assert all(blocked.values())
    for name, node_type in bootstrapped["available_node_types"].items():
        node = node_type["node_config"]
        assert node["SecurityGroupIds"] == [groups["ddpnas"]["GroupId"]], name
        assert node["SubnetIds"] and node["KeyName"], name


def test_rights_are_the_least(bootstrapped: Any, aws: Any) -> None:
    iam = aws.client("iam")
    allowed = {}
    for role in ("ddpnas-head", "ddpnas-worker"):
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
        document = iam.get_role_policy(RoleName=role, PolicyName="ddpnas")["PolicyDocument"]
        allowed[role] = document["Statement"]
    worker = allowed["ddpnas-worker"]
    assert [statement["Resource"] for statement in worker] == [
        ["arn:aws:s3:::ddpnas-test", "arn:aws:s3:::ddpnas-test/*"]
    ]
    everything = json.dumps(allowed)
    assert ':*"' not in everything.replace(':instance/*"', ""), "no action is a wildcard"
    for statement in allowed["ddpnas-head"]:
        if statement["Resource"] == "*":
            assert all(action.startswith("ec2:Describe") for action in statement["Action"])
    (passed,) = [s for s in allowed["ddpnas-head"] if s["Action"] == "iam:PassRole"]
    assert passed["Resource"].endswith(":role/ddpnas-worker")


def test_ray_starts_the_machines_that_the_file_describes(bootstrapped: Any, aws: Any) -> None:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    provider = AWSNodeProvider(bootstrapped["provider"], bootstrapped["cluster_name"])
    ec2 = aws.resource("ec2")
    for name, node_type in bootstrapped["available_node_types"].items():
        tags = {"ray-node-type": "head" if name == "head" else "worker", "ray-user-node-type": name}
        created = provider.create_node({**node_type["node_config"]}, tags, 1)
        (instance,) = [ec2.Instance(node_id) for node_id in created]
        assert instance.instance_type == node_type["node_config"]["InstanceType"]
        assert (instance.instance_lifecycle == "spot") is (name == "gpu-spot")
        role = "ddpnas-head" if name == "head" else "ddpnas-worker"
        assert instance.iam_instance_profile["Arn"].endswith(f"instance-profile/{role}")
        assert {"Key": "ray-cluster-name", "Value": "ddpnas"} in instance.tags, "the head may end what carries this tag"
        sizes = [volume.size for volume in instance.volumes.all()]
        assert sizes == [150]
    assert len(provider.non_terminated_nodes({})) == 3


def test_running_it_twice_changes_nothing_and_delete_takes_it_back(
    aws: Any, account: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for _ in range(2):
        assert account.main([*SETUP, "--ami", "ami-1"]) == 0
        files.append(capsys.readouterr().out)
    assert files[0] == files[1]
    assert account.main(["--region", REGION, "--bucket", "ddpnas-test", "--delete"]) == 0
    assert aws.client("iam").list_roles()["Roles"] == []
    names = [group["GroupName"] for group in aws.client("ec2").describe_security_groups()["SecurityGroups"]]
    assert set(names) == {"default"}
    assert [bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]] == ["ddpnas-test"]


def test_a_cluster_that_everybody_may_log_in_to_is_refused(
    account: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        account.main([*SETUP[:-1], "0.0.0.0/0"])
    assert refused.value.code == 2
    assert "--ssh-from is 0.0.0.0/0: your own address is needed" in capsys.readouterr().err


def test_only_the_examples_are_filled_in(account: ModuleType) -> None:
    text = (CLUSTERS / "aws.yaml").read_text(encoding="utf-8")
    filled = yaml.safe_load(account.filled(text, "eu-central-1", ["eu-central-1a"], "ami-7", "sg-7", "123456789012"))
    provider = {"region": "eu-central-1", "availability_zone": "eu-central-1a"}
    assert filled["provider"] == {**machines("aws.yaml")["provider"], **provider}
    assert "us-west-2" not in str(filled) and "00000000" not in str(filled)
