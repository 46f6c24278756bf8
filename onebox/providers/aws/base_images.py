"""Find the AMI that a base name such as "ubuntu-24.04" now stands for in a region."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from onebox.errors import Gone, NoCapacity, ProviderError, Unsuitable, UsageError
from onebox.providers.aws import errors, metadata
from onebox.providers.aws.client import EC2, Answer
from onebox.providers.kernel.ranking import DEFAULT_ARCH, uname

DEFAULT = "ubuntu-24.04"

# Images are searched only in these accounts of their publishers, because anyone may
# publish an image under any name.
_CANONICAL = "099720109477"
_DEBIAN = "136693071363"
_CODE_NAMES = {
    "20.04": "focal",
    "22.04": "jammy",
    "24.04": "noble",
    "26.04": "resolute",
}
# Each key is an architecture as `uname -m` prints it. The first table holds AWS's names
# for the architectures, the second one the names that the publishers of images use.
_AWS_ARCH = {"x86_64": "x86_64", "aarch64": "arm64"}
_VENDOR_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}

_AMI = re.compile(r"ami-[0-9a-f]{8,17}")


@dataclass(frozen=True)
class Base:
    """
    An AMI from which a box can boot.

    *arch* is the AMI's architecture, as `uname -m` prints it. *root* is the name of the
    AMI's root device. *size* is the size of the AMI's root disk in bytes.
    """

    ami: str
    name: str
    arch: str
    root: str
    size: int


def aws_arch(arch: str) -> str:
    """Return the name that AWS uses for an architecture."""
    return _AWS_ARCH.get(arch, arch)


class Bases:
    """Looks up the AMIs from which boxes boot, each of them only once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Base] = {}

    def find(self, ec2: EC2, name: str, arch: str) -> Base:
        """
        Return the AMI that a name stands for in a region.

        Args:
            name: A base name such as "ubuntu-24.04" or "debian-12", the id of an AMI,
                or a text that the function `text` has returned. Such a text contains
                the id of an AMI. In the first region of the settings, this AMI is used.
                In any other region, the name with which the text begins is looked up.

        Raises:
            UsageError: The region has no such image.

            NoCapacity: The region has no AMI with this id, and is not the first region.
        """
        word, _, rest = (name or DEFAULT).partition(" ")
        own = _AMI.fullmatch(word)
        fixed = own or (_AMI.search(rest) if ec2.region == ec2.cloud.region else None)
        if not own:
            arch = arch or DEFAULT_ARCH
        key = ec2.region, fixed.group() if fixed else word, arch
        if key not in self._found:
            self._found[key] = (
                self._one(ec2, word, fixed.group(), arch)
                if fixed
                else self._named(ec2, word, arch)
            )
        return self._found[key]

    def _named(self, ec2: EC2, name: str, arch: str) -> Base:
        if arch not in _VENDOR_ARCH:
            raise UsageError(f"there is no {name} for {arch} on AWS")
        parameters, owner, pattern = _source(name, _VENDOR_ARCH[arch])
        ami = self._parameter(ec2, parameters)
        if ami:
            return self._one(ec2, name, ami, arch)
        found = [
            image
            for image in ec2.pages(
                "describe_images",
                "Images",
                Owners=[owner],
                Filters=metadata.filters(
                    {
                        "name": [pattern],
                        "architecture": [aws_arch(arch)],
                        "state": ["available"],
                    }
                ),
            )
            if image.get("OwnerId") == owner
        ]
        if not found:
            # The error is Unsuitable instead of a plain UsageError, because another
            # region may have the image.
            raise Unsuitable(
                f"there is no image {name} for {arch} in {ec2.region}",
                next="another [image] base, such as ubuntu-24.04 or debian-12",
            )
        newest = max(found, key=lambda image: str(image.get("CreationDate", "")))
        return of_image(newest, name)

    def _parameter(self, ec2: EC2, names: list[str]) -> str:
        """
        Return the AMI id that the first existing ssm parameter of *names* holds.

        Return "" if none of them exists, or if the call fails.
        """
        try:
            answer = ec2.call("get_parameters", service="ssm", Names=names)
        except ProviderError:
            # The credentials may lack the permission for ssm. The caller then finds the
            # same images with DescribeImages.
            return ""
        values = {one["Name"]: one["Value"] for one in answer.get("Parameters", ())}
        return next((str(values[name]) for name in names if name in values), "")

    def _one(self, ec2: EC2, name: str, ami: str, arch: str) -> Base:
        missing = f"there is no image {ami} in {ec2.region}"
        try:
            found = ec2.pages("describe_images", "Images", ImageIds=[ami])
        except Gone as error:
            raise self._missing(ec2, missing) from error
        except ProviderError as error:
            if errors.code(error) == "InvalidAMIID.Malformed":
                raise self._missing(ec2, missing) from error
            raise
        if not found:
            raise self._missing(ec2, missing)
        base = of_image(found[0], name)
        if arch and base.arch != arch:
            raise Unsuitable(
                f"{ami} is for {base.arch}, and the machine is {arch}",
                next="another --vm, or another [image]",
            )
        return base

    def _missing(self, ec2: EC2, text: str) -> UsageError | NoCapacity:
        if ec2.region != ec2.cloud.region:
            # An AMI exists in only one region. NoCapacity makes onebox try the next
            # offer, whose region may have the AMI.
            return NoCapacity(text)
        return UsageError(text, next="see [image] in onebox.toml; ids differ by region")


def text(base: Base) -> str:
    """Return a text that identifies *base*, such as "ubuntu-24.04 amd64 ami-…"."""
    arch = _VENDOR_ARCH.get(base.arch, base.arch)
    if base.name == base.ami:
        return f"{base.ami} {arch}"
    return f"{base.name} {arch} {base.ami}"


def of_image(image: Answer, name: str) -> Base:
    """
    Return the `Base` for an AMI that EC2 has described.

    *name* is the base name or the image id by which the AMI was found.
    """
    root = str(image.get("RootDeviceName") or "/dev/sda1")
    sizes = [
        int(mapping.get("Ebs", {}).get("VolumeSize") or 0)
        for mapping in image.get("BlockDeviceMappings", ())
        if mapping.get("DeviceName") == root
    ]
    return Base(
        ami=str(image["ImageId"]),
        name=name,
        arch=uname(str(image.get("Architecture", ""))),
        root=root,
        size=max(sizes, default=0) << 30,
    )


def _source(name: str, arch: str) -> tuple[list[str], str, str]:
    """
    Return where to look for the AMIs of a distribution.

    The result has the names of ssm parameters that hold AMI ids, the account of the
    publisher, and a pattern for the names of its AMIs.
    """
    kind, _, version = name.partition("-")
    if kind == "ubuntu" and version in _CODE_NAMES:
        stem = f"/aws/service/canonical/ubuntu/server/{version}/stable/current/{arch}"
        return (
            [f"{stem}/hvm/ebs-gp3/ami-id", f"{stem}/hvm/ebs-gp2/ami-id"],
            _CANONICAL,
            f"ubuntu/images/hvm-ssd*/ubuntu-{_CODE_NAMES[version]}-{version}-{arch}-server-*",
        )
    if kind == "debian" and version.isdigit():
        return (
            [f"/aws/service/debian/release/{version}/latest/{arch}"],
            _DEBIAN,
            f"debian-{version}-{arch}-*",
        )
    raise UsageError(
        f"there is no base {name!r} on AWS",
        next="ubuntu-24.04, ubuntu-22.04, debian-12, debian-13, or an image's id",
    )


def packer_source(base: str) -> dict[str, Any]:
    """
    Return the variable of a Packer template for a base image that `text` describes.

    >>> packer_source("ubuntu-24.04 amd64 ami-0123456789abcdef0")
    {'source_image': 'ami-0123456789abcdef0'}
    """
    match = re.search(r"ami-[0-9a-f]{8,}", base)
    return {"source_image": match[0] if match else base}
