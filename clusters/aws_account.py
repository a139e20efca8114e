"""What aws.yaml needs in an AWS account, made once with the fewest rights that do: ``python clusters/aws_account.py``.

    python clusters/aws_account.py --region us-west-2 --bucket my-runs --ssh-from 203.0.113.7/32 > my-aws.yaml

makes, where they do not exist yet,
- the bucket for runs and data: encrypted, not public;
- the role and instance profile ``ddpnas-worker``, which may use that bucket and nothing else;
- ``ddpnas-head``, which may besides start machines with that profile, and end machines of this cluster;
- the security group ``ddpnas`` in the default VPC: everything among its members, SSH from ``--ssh-from``, nothing else;
and writes aws.yaml with all of these filled in to stdout. Called again with another address it lets that one in
instead. ``--delete`` takes back all but the bucket.

Needs boto3, as `ray up` does, and credentials that may do this (IAM, EC2, S3), which are not copied anywhere.
Exit codes: 0 done; 1 AWS refused; 2 bad input, before anything is made.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

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
    p.add_argument("--bucket", help="for runs and data; made if it does not exist; needed unless --delete")
    p.add_argument("--ssh-from", metavar="CIDR", help="who may log in, such as 203.0.113.7/32; needed unless --delete")
    p.add_argument("--ami", help="machine image; default: AWS's newest with NVIDIA's driver and Docker on Ubuntu 24.04")
    p.add_argument("--delete", action="store_true", help="delete the roles and the security group; the bucket stays")
    args = p.parse_args(argv)
    ssh_from = network(args.ssh_from)
    if not args.delete and not args.bucket:
        p.exit(2, f"{p.prog}: --bucket is missing: runs and data need one; name yours, or one to be made\n")
    if not args.delete and ssh_from is None:
        allowed = "your own address is needed, such as 203.0.113.7/32 (an IPv4 network, but not everybody)"
        p.exit(2, f"{p.prog}: --ssh-from is {args.ssh_from}: {allowed}; curl https://checkip.amazonaws.com tells it\n")
    try:
        if args.delete:
            delete(args.region)
        else:
            print(prepared(args.region, args.bucket, str(ssh_from), args.ami), end="")
    except (ClientError, BotoCoreError) as error:
        print(f"{p.prog}: AWS says: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def network(text: str | None) -> str | None:
    """An IPv4 network as AWS writes it; None if it is none, or the whole internet."""
    try:
        found = ipaddress.IPv4Network(text or "")
    except ValueError:
        return None
    return str(found) if found.prefixlen else None


def prepared(region: str, bucket: str, ssh_from: str, ami: str | None) -> str:
    """aws.yaml for an account that has, from now on, what the file names."""
    ec2 = boto3.client("ec2", region)
    ami = ami or boto3.client("ssm", region).get_parameter(Name=AMI_PARAMETER)["Parameter"]["Value"]
    account = boto3.client("sts", region).get_caller_identity()["Account"]
    make_bucket(region, bucket)
    make_profile(WORKER, [bucket_statement(bucket)])
    make_profile(HEAD, [bucket_statement(bucket), *head_statements(region, account)])
    group = make_group(ec2, ssh_from)
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]]
    return filled(CLUSTER.read_text(encoding="utf-8"), region, zones, ami, group, account)


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
    """The bucket, encrypted and not public; one that is there already stays as it is."""
    s3 = boto3.client("s3", region)
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        if _tried(s3.head_bucket, Bucket=bucket):
            return
        s3.create_bucket(Bucket=bucket, **where)
    except ClientError as error:
        if _code(error) in ("403", "BucketAlreadyExists"):
            sys.exit(f"--bucket is {bucket}, which is somebody else's, or closed to your credentials: name another")
        raise
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
    """The security group's id; one that is there already gets the rules it lacks, and loses others of port 22."""
    found = find_group(ec2)
    group = found or new_group(ec2)
    among_members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": ssh_from}]}
    for rule, what in ((among_members, "everything among its members"), (ssh, f"SSH from {ssh_from}")):
        if _tried(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[rule]) and found:
            print(f"group {GROUP} is there already; it now lets in {what}", file=sys.stderr)
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    for rule in rules:
        ports = (rule.get("FromPort"), rule.get("ToPort"))
        if not rule["IsEgress"] and ports == (22, 22) and rule.get("CidrIpv4") != ssh_from:
            ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
            source = rule.get("CidrIpv4") or rule.get("CidrIpv6") or "a group or list"
            print(f"group {GROUP} no longer lets in SSH from {source}", file=sys.stderr)
    return group


def new_group(ec2: Any) -> str:
    """The id of a security group without rules, in the default VPC."""
    vpcs = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        sys.exit("there is no default VPC in this region: aws ec2 create-default-vpc")
    vpc = vpcs[0]["VpcId"]
    return str(ec2.create_security_group(GroupName=GROUP, Description="ddpnas Ray cluster", VpcId=vpc)["GroupId"])


def find_group(ec2: Any) -> str | None:
    """The id of the security group where there is one."""
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
    """All but the bucket; the group first, since it stays, and the rest with it, while a machine is in it."""
    iam, ec2 = boto3.client("iam"), boto3.client("ec2", region)
    if (group := find_group(ec2)) is not None:
        try:
            ec2.delete_security_group(GroupId=group)
        except ClientError as error:
            if _code(error) != "DependencyViolation":
                raise
            sys.exit(
                f"nothing is deleted: machines are still in the security group {GROUP}. After `ray down` they take a "
                "minute to end: try again then"
            )
    for name in (HEAD, WORKER):
        _tried(iam.remove_role_from_instance_profile, InstanceProfileName=name, RoleName=name)
        _tried(iam.delete_instance_profile, InstanceProfileName=name)
        _tried(iam.delete_role_policy, RoleName=name, PolicyName="ddpnas")
        _tried(iam.delete_role, RoleName=name)


def _tried(call: Any, **arguments: Any) -> bool:
    """Whether there was something to do: not if it exists already, or not at all."""
    try:
        call(**arguments)
    except ClientError as error:
        if _code(error) not in ("EntityAlreadyExists", "NoSuchEntity", "InvalidPermission.Duplicate", "404"):
            raise
        return False
    return True


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


if __name__ == "__main__":
    sys.exit(main())
