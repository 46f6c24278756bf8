"""Packer builds images against the fake EC2, and onebox adopts them."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import pytest

from onebox.errors import Gone, NotAllowed
from onebox.providers.aws.provider import AWS
from onebox.providers.values import Image, Tags
from tests.fakes.aws.account import Account

from ...conftest import Project
from ...conftest import project as project

TOML = """\
provider = "aws"
vm = "m7i.large"
[aws]
region = "us-east-1"
ssh_cidr = "198.51.100.7/32"
[image]
size = "m7i.large"
packer = "image.pkr.hcl"
vars = {{ endpoint = "{endpoint}", subnet = "{subnet}" }}
[run]
command = "true"
[tags]
cost-center = "42"
"""
HCL = """\
variable "region" { type = string }
variable "source_image" { type = string }
variable "image_name" { type = string }
variable "tags" { type = map(string) }
variable "endpoint" { type = string }
variable "subnet" { type = string }
source "amazon-ebs" "it" {
  region                      = var.region
  source_ami                  = var.source_image
  ami_name                    = var.image_name
  tags                        = var.tags
  custom_endpoint_ec2         = var.endpoint
  subnet_id                   = var.subnet
  associate_public_ip_address = true
  instance_type               = "m7i.large"
  communicator                = "none"
  skip_region_validation      = true
  skip_metadata_api_check     = true
}
build { sources = ["source.amazon-ebs.it"] }
"""


@pytest.fixture
def packed(account: Account, aws_environment: str, project: Project) -> Project:
    """A project whose Packer template builds an AMI."""
    if shutil.which("packer") is None:
        pytest.skip("Packer is not installed (apt install packer)")
    zones = account.backend("us-east-1").subnets.values()
    (subnet, *_) = [
        one.id
        for zone in zones
        for one in zone.values()
        if one.availability_zone == "us-east-1a"
    ]
    project.write("onebox.toml", TOML.format(endpoint=aws_environment, subnet=subnet))
    project.write("image.pkr.hcl", HCL)
    variables = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    project.environ.update(variables, AWS_POLL_DELAY_SECONDS="1")
    return project


def actions(account: Account, *names: str) -> list[str]:
    """Return the calls of these actions, in order."""
    return [call.action for call in account.calls if call.action in names]


def image_of(owner: str, id: str) -> Image:
    """Return the image that the stage requests."""
    tags = Tags(owner, "project", "main", 0.0, "0", "image")
    return Image(id, "project", "0123456789abcdef", time.time(), 0, "x86_64", tags)


def test_an_image_that_packer_builds_is_found_by_its_tags(
    packed: Project, account: Account
) -> None:
    """It is built only once; its deletion includes the snapshot."""
    done = packed.inv("image")
    assert 0 == done.code, done.err
    assert "built by Packer" in done.err
    (listed,) = packed.inv("image", "--list").out.splitlines()[1:]
    name, id, _, size, _, price, made, _ = listed.split("\t")
    assert ("census", "3 GB", "$0.15", "recipe") == (name, size, price, made)
    (ami,) = [
        one
        for one in account.backend("us-east-1").amis.values()
        if one.get_tags() and {"onebox:image": id}.items() <= _tags(one).items()
    ]
    assert (id, "1") == (ami.name, _tags(ami)["onebox:managed"])
    assert "42" == _tags(ami)["cost-center"]
    assert [] == account.alive()

    account.calls.clear()
    again = packed.inv("image")
    assert "image.pkr.hcl unchanged" in again.err
    assert [] == actions(account, "RunInstances", "CreateImage", "CreateTags")

    packed.write("onebox.toml", 'provider = "aws"\n[aws]\nregion = "us-east-1"\n')
    assert 0 == packed.inv("image", "--prune", "--yes").code
    assert ami.id not in account.backend("us-east-1").amis
    assert "no images yet\n" == packed.inv("image", "--list").out


def test_a_build_goes_on_after_a_kill_of_the_client(
    packed: Project, account: Account
) -> None:
    """The next command waits for Packer and adopts the image."""
    account.calls.clear()
    process = packed.start("image")
    packed.until("Waiting for instance")
    process.kill()
    process.wait()
    done = packed.inv("image")

    assert 0 == done.code, done.err
    assert "Packer still runs" in done.err
    assert "image.pkr.hcl unchanged" in done.err
    assert ["RunInstances", "CreateImage"] == actions(
        account, "RunInstances", "CreateImage"
    )
    assert 1 == len(packed.inv("image", "--list").out.splitlines()[1:])


def test_a_missing_or_foreign_image_is_not_adopted(
    provider: AWS, account: Account
) -> None:
    """Neither is another image of the same owner."""
    backend = account.backend("us-east-1")
    ours = image_of("owner-adopting", "oi-aaaaaaaaaa")
    with pytest.raises(Gone):
        provider.adopt_image("ami-0123456789abcdef0", ours)
    made = backend.copy_image(_some(backend), "us-east-1", "built", "")

    adopted = provider.adopt_image(f"us-east-1:{made.id}", ours)
    assert adopted == provider.adopt_image(made.id, ours)
    assert ("us-east-1",) == adopted.places
    with pytest.raises(NotAllowed):
        provider.adopt_image(made.id, image_of("owner-adopting", "oi-bbbbbbbbbb"))
    with pytest.raises(NotAllowed):
        provider.adopt_image(made.id, image_of("another", "oi-aaaaaaaaaa"))
    provider.delete_image(adopted)
    assert made.id not in backend.amis


def _tags(resource: Any) -> dict[str, str]:
    return {one["key"]: one["value"] for one in resource.get_tags()}


def _some(backend: Any) -> str:
    return next(str(a.id) for a in backend.amis.values() if "noble" in (a.name or ""))
