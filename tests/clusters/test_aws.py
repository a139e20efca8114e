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
    moto = pytest.importorskip("moto", reason="moto is not installed; pip install -e '.[dev]' has it")
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
    assert account.main(["--region", REGION, "--delete"]) == 0
    assert aws.client("iam").list_roles()["Roles"] == []
    names = [group["GroupName"] for group in aws.client("ec2").describe_security_groups()["SecurityGroups"]]
    assert set(names) == {"default"}
    assert [bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]] == ["ddpnas-test"]


@pytest.mark.parametrize("ssh_from", ["0.0.0.0/0", "/32", "203.0.113.7/33", "203.0.113.7/24", "2001:db8::1/128", ""])
def test_who_may_log_in_is_checked_before_anything_is_made(
    aws: Any, account: ModuleType, capsys: pytest.CaptureFixture[str], ssh_from: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        account.main([*SETUP[:-1], ssh_from])
    assert refused.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--ssh-from is {ssh_from}: your own address is needed" in line
    assert aws.client("s3").list_buckets()["Buckets"] == [] and aws.client("iam").list_roles()["Roles"] == []


def test_the_bucket_is_needed_to_make_the_account(account: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        account.main(["--region", REGION, "--ssh-from", "203.0.113.7/32"])
    assert refused.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--bucket is missing" in line


def let_in(aws: Any) -> set[tuple[str, Any]]:
    """(protocol, whence) of the rules of our group."""
    ec2 = aws.client("ec2")
    (group,) = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["ddpnas"]}])["SecurityGroups"]
    return {
        (rule["IpProtocol"], source.get("CidrIp") or source.get("CidrIpv6") or "members")
        for rule in group["IpPermissions"]
        for source in [*rule["IpRanges"], *rule.get("Ipv6Ranges", []), *rule["UserIdGroupPairs"]]
    }


def test_another_address_takes_the_place_of_the_old_one(
    aws: Any, account: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert account.main([*SETUP, "--ami", "ami-1"]) == 0
    capsys.readouterr()
    assert account.main([*SETUP[:-1], "198.51.100.1", "--ami", "ami-1"]) == 0
    told = capsys.readouterr().err
    assert "now lets in SSH from 198.51.100.1/32" in told and "no longer lets in SSH from 203.0.113.7/32" in told
    assert let_in(aws) == {("-1", "members"), ("tcp", "198.51.100.1/32")}


def test_a_group_without_rules_gets_them(aws: Any, account: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    ec2 = aws.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    ec2.create_security_group(GroupName="ddpnas", Description="of a run that was cut off", VpcId=vpc)
    assert account.main([*SETUP, "--ami", "ami-1"]) == 0
    assert let_in(aws) == {("-1", "members"), ("tcp", "203.0.113.7/32")}
    assert "now lets in everything among its members" in capsys.readouterr().err


def refuse(monkeypatch: pytest.MonkeyPatch, operation: str, error: Exception) -> None:
    """AWS answers one operation with an error: the simulated one has none of these."""
    from botocore.client import BaseClient

    answer = BaseClient._make_api_call

    def call(self: Any, name: str, arguments: Any) -> Any:
        if name == operation:
            raise error
        return answer(self, name, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)


def refusal(operation: str, code: str) -> Exception:
    from botocore.exceptions import ClientError

    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


def test_delete_while_machines_are_ending_is_to_be_tried_again(
    aws: Any, account: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert account.main([*SETUP, "--ami", "ami-1"]) == 0
    with monkeypatch.context() as patch:
        refuse(patch, "DeleteSecurityGroup", refusal("DeleteSecurityGroup", "DependencyViolation"))
        with pytest.raises(SystemExit, match=r"machines are still in the security group ddpnas.*try again"):
            account.main(["--region", REGION, "--delete"])
    assert len(aws.client("iam").list_roles()["Roles"]) == 2, "machines that go on working keep their rights"
    assert account.main(["--region", REGION, "--delete"]) == 0
    assert aws.client("iam").list_roles()["Roles"] == []
    assert account.main(["--region", REGION, "--delete"]) == 0, "nothing left to do"


@pytest.mark.parametrize(("operation", "code"), [("HeadBucket", "403"), ("CreateBucket", "BucketAlreadyExists")])
def test_a_bucket_of_somebody_else_is_named(
    aws: Any, account: ModuleType, monkeypatch: pytest.MonkeyPatch, operation: str, code: str
) -> None:
    refuse(monkeypatch, operation, refusal(operation, code))
    with pytest.raises(SystemExit, match="--bucket is ddpnas-test, which is somebody else's"):
        account.main([*SETUP, "--ami", "ami-1"])
    assert aws.client("iam").list_roles()["Roles"] == []


@pytest.mark.parametrize("what", ["denied", "no credentials"])
def test_what_aws_refuses_takes_one_line(
    aws: Any, account: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    from botocore.exceptions import NoCredentialsError

    error = refusal("CreateRole", "AccessDenied") if what == "denied" else NoCredentialsError()
    refuse(monkeypatch, "CreateRole", error)
    assert account.main([*SETUP, "--ami", "ami-1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"AWS says: {error}")


def test_only_the_examples_are_filled_in(account: ModuleType) -> None:
    text = (CLUSTERS / "aws.yaml").read_text(encoding="utf-8")
    filled = yaml.safe_load(account.filled(text, "eu-central-1", ["eu-central-1a"], "ami-7", "sg-7", "123456789012"))
    provider = {"region": "eu-central-1", "availability_zone": "eu-central-1a"}
    assert filled["provider"] == {**machines("aws.yaml")["provider"], **provider}
    assert "us-west-2" not in str(filled) and "00000000" not in str(filled)
