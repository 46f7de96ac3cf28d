"""AWS's APIs on loopback for tests: moto as a server of its own process, with a group of machines.

Rules:
- A free port, ended by its number; each test gets an account of its own where it asks for one.
- Credentials are made up, and nothing asks for others: AWS's own configuration is not read.
- Without moto tests are skipped with a line that says so; with `HANDRAIL_REQUIRE=all` they fail.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
import pytest

START_S = 60.0
REGION = "eu-west-1"
GROUP = "routers-asg"
IMAGE = "ami-12c6146b"  # one of those that moto has
SECRET = "moto-secret-never-shown"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAMOTO",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "NO_PROXY": "127.0.0.1",
}


@dataclass(frozen=True)
class AwsServer:
    """A running server."""

    url: str

    def client(self, service: str) -> Any:
        """Return a client of the team's own, beside the one under test."""
        return _client(service, self.url)

    def make_group(self, count: int, least: int = 0, most: int = 10, name: str = GROUP) -> Any:
        """Make a group of so many instances over two zones, and return their ids."""
        groups = self.client("autoscaling")
        groups.create_launch_configuration(
            LaunchConfigurationName=name, ImageId=IMAGE, InstanceType="t2.micro"
        )
        groups.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchConfigurationName=name,
            MinSize=least,
            MaxSize=most,
            DesiredCapacity=count,
            AvailabilityZones=[f"{REGION}a", f"{REGION}b"],
        )
        return self.members(name)

    def members(self, name: str = GROUP) -> list[str]:
        """Return the ids of a group's instances."""
        told = self.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        return sorted(one["InstanceId"] for one in told["AutoScalingGroups"][0]["Instances"])

    def states(self, name: str = GROUP) -> dict[str, str]:
        """Return each instance of a group with the state of its lifecycle."""
        told = self.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        found = told["AutoScalingGroups"][0]["Instances"]
        return {one["InstanceId"]: one["LifecycleState"] for one in found}

    def state(self, machine: str) -> str:
        """Return what EC2 says of an instance."""
        told = self.client("ec2").describe_instances(InstanceIds=[machine])
        return str(told["Reservations"][0]["Instances"][0]["State"]["Name"])

    def name(self, machine: str, name: str) -> None:
        """Give an instance a name."""
        self.client("ec2").create_tags(Resources=[machine], Tags=[{"Key": "Name", "Value": name}])

    def reset(self) -> None:
        """Forget everything."""
        import urllib.request

        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200


@cache
def _client(service: str, url: str) -> Any:
    session = boto3.session.Session("AKIAMOTO", SECRET, region_name=REGION)
    return session.client(service, endpoint_url=url)


@contextmanager
def serving() -> Iterator[AwsServer]:
    """Serve while it is held."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        said = "needs moto: pip install 'moto[server]'"
        if os.environ.get("HANDRAIL_REQUIRE") == "all":
            pytest.fail(said)
        pytest.skip(said)
    port = _free_port()
    environment = {**os.environ, **ENVIRONMENT}
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(process, port)
        yield AwsServer(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert process.poll() is None, "moto's server has ended"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("moto's server does not listen")
