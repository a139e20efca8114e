"""What aws.yaml needs in an AWS account, made once with the fewest rights that do: ``python clusters/aws_account.py``.

    python clusters/aws_account.py --region us-west-2 --bucket my-runs --ssh-from 203.0.113.7/32 > my-aws.yaml

makes, where they do not exist yet,
- the bucket for runs and data: encrypted, not public;
- the role and instance profile ``ddpnas-worker``, which may use that bucket and nothing else;
- ``ddpnas-head``, which may besides start machines with that profile, and end machines of this cluster;
- the security group ``ddpnas`` in the default VPC: everything among its members, SSH from ``--ssh-from``, nothing else;
and writes aws.yaml with all of these filled in to stdout. ``--delete`` takes back all but the bucket.

Needs boto3, as `ray up` does, and credentials that may do this (IAM, EC2, S3), which are not copied anywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

CLUSTER = Path(__file__).with_name("aws.yaml")
GROUP, HEAD, WORKER = "ddpnas", "ddpnas-head", "ddpnas-worker"
AMI_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
EC2_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--region", required=True, help="such as us-west-2")
    p.add_argument("--bucket", required=True, help="for runs and data; made if it does not exist")
    p.add_argument("--ssh-from", metavar="CIDR", help="who may log in, such as 203.0.113.7/32; needed unless --delete")
    p.add_argument("--ami", help="machine image; default: AWS's newest with NVIDIA's driver and Docker on Ubuntu 24.04")
    p.add_argument("--delete", action="store_true", help="delete the roles and the security group; the bucket stays")
    args = p.parse_args(argv)
    if args.delete:
        delete(args.region)
        return 0
    if not args.ssh_from or args.ssh_from.endswith("/0"):
        p.error(f"--ssh-from is {args.ssh_from}: your own address is needed, such as 203.0.113.7/32")
    ami = args.ami or boto3.client("ssm", args.region).get_parameter(Name=AMI_PARAMETER)["Parameter"]["Value"]
    account = boto3.client("sts", args.region).get_caller_identity()["Account"]
    ec2 = boto3.client("ec2", args.region)
    make_bucket(args.region, args.bucket)
    make_profile(WORKER, [bucket_statement(args.bucket)])
    make_profile(HEAD, [bucket_statement(args.bucket), *head_statements(args.region, account)])
    group = make_group(ec2, args.ssh_from)
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]]
    print(filled(CLUSTER.read_text(encoding="utf-8"), args.region, zones, ami, group, account), end="")
    return 0


def bucket_statement(bucket: str) -> dict[str, Any]:
    """What every node may do: use one bucket."""
    actions = ["ListBucket", "GetBucketLocation", "GetObject", "PutObject", "DeleteObject"]
    return {
        "Effect": "Allow",
        "Action": [f"s3:{action}" for action in (*actions, "AbortMultipartUpload", "ListMultipartUploadParts")],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }


def head_statements(region: str, account: str) -> list[dict[str, Any]]:
    """What the autoscaler on the head may do besides."""
    own = {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "ddpnas"}}
    return [
        {"Effect": "Allow", "Action": ["ec2:DescribeInstances", "ec2:DescribeInstanceStatus"], "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": "ec2:RunInstances",
            "Resource": [f"arn:aws:ec2:{region}:{account}:*/*", f"arn:aws:ec2:{region}::image/*"],
        },
        {
            "Effect": "Allow",
            "Action": "ec2:CreateTags",
            "Resource": f"arn:aws:ec2:{region}:{account}:*/*",
            "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        },
        {
            "Effect": "Allow",
            "Action": ["ec2:CreateTags", "ec2:TerminateInstances"],
            "Resource": f"arn:aws:ec2:{region}:{account}:instance/*",
            "Condition": own,
        },
        {
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": f"arn:aws:iam::{account}:role/{WORKER}",
            "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        },
    ]


def make_bucket(region: str, bucket: str) -> None:
    s3 = boto3.client("s3", region)
    try:
        s3.head_bucket(Bucket=bucket)
        return
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    s3.create_bucket(Bucket=bucket, **where)
    blocked = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(blocked, True))
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def make_profile(name: str, statements: list[dict[str, Any]]) -> None:
    """A role with exactly these rights, and the instance profile by which a machine takes it."""
    iam = boto3.client("iam")
    if not _tried(iam.create_role, RoleName=name, AssumeRolePolicyDocument=json.dumps(EC2_TRUST)):
        print(f"role {name} is there already; its rights are set anew", file=sys.stderr)
    policy = {"Version": "2012-10-17", "Statement": statements}
    iam.put_role_policy(RoleName=name, PolicyName="ddpnas", PolicyDocument=json.dumps(policy))
    _tried(iam.create_instance_profile, InstanceProfileName=name)
    if not iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def make_group(ec2: Any, ssh_from: str) -> str:
    """The security group's id."""
    if (found := find_group(ec2)) is not None:
        return found
    vpcs = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        sys.exit("there is no default VPC in this region: aws ec2 create-default-vpc")
    group = str(
        ec2.create_security_group(GroupName=GROUP, Description="ddpnas Ray cluster", VpcId=vpcs[0]["VpcId"])["GroupId"]
    )
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": ssh_from}]}
    among_members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[among_members, ssh])
    return group


def find_group(ec2: Any) -> str | None:
    groups = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": [GROUP]}])["SecurityGroups"]
    return groups[0]["GroupId"] if groups else None


def filled(text: str, region: str, zones: Sequence[str], ami: str, group: str, account: str) -> str:
    """aws.yaml with the values in place of its examples; its first example goes first, the region is part of a zone."""
    for example, value in (
        ("us-west-2a,us-west-2b", ",".join(zones)),
        ("us-west-2", region),
        ("ami-00000000000000000", ami),
        ("sg-00000000000000000", group),
        ("000000000000", account),
    ):
        text = text.replace(example, value)
    return text


def delete(region: str) -> None:
    """All but the bucket."""
    iam, ec2 = boto3.client("iam"), boto3.client("ec2", region)
    for name in (HEAD, WORKER):
        _tried(iam.remove_role_from_instance_profile, InstanceProfileName=name, RoleName=name)
        _tried(iam.delete_instance_profile, InstanceProfileName=name)
        _tried(iam.delete_role_policy, RoleName=name, PolicyName="ddpnas")
        _tried(iam.delete_role, RoleName=name)
    if (group := find_group(ec2)) is not None:
        ec2.delete_security_group(GroupId=group)


def _tried(call: Any, **arguments: Any) -> bool:
    """Whether there was something to do: not if it exists already, or no longer."""
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("EntityAlreadyExists", "NoSuchEntity"):
            raise
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
