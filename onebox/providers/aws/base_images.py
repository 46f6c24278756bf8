"""Which machine image a name means: in this region, for this architecture, now."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onebox.errors import (
    Gone,
    NoCapacity,
    NotAllowed,
    ProviderError,
    Unsuitable,
    UsageError,
)
from onebox.providers.aws import errors, metadata
from onebox.providers.aws.client import Answer, Cloud
from onebox.providers.kernel.ranking import DEFAULT_ARCH as DEFAULT_ARCH
from onebox.providers.kernel.ranking import uname

DEFAULT = "ubuntu-24.04"

# Who may publish what: a stranger's image may carry any name.
_CANONICAL = "099720109477"
_DEBIAN = "136693071363"
_CODE_NAMES = {
    "20.04": "focal",
    "22.04": "jammy",
    "24.04": "noble",
    "26.04": "resolute",
}
# What `uname -m` says, and what AWS says for it.
_AWS_ARCH = {"x86_64": "x86_64", "aarch64": "arm64"}
_VENDOR_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}

_AMI = re.compile(r"ami-[0-9a-f]{8,17}")


@dataclass(frozen=True)
class Base:
    """
    A machine image to start from.

    *arch* is as `uname -m` says it, *size* of its disk in bytes.
    """

    ami: str
    name: str
    arch: str
    root: str
    size: int


def aws_arch(arch: str) -> str:
    """Return AWS's word for an architecture."""
    return _AWS_ARCH.get(arch, arch)


class Bases:
    """The machine images that boxes start from; each one is asked for once."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._found: dict[tuple[str, str, str], Base] = {}

    def find(self, region: str, name: str, arch: str) -> Base:
        """
        Return what a name means: a distribution's, or an image's own id.

        Args:
            name: Such as "ubuntu-24.04", "debian-12" or "ami-…"; also what `text`
                has made of it, which in its own region means the same image.

        Raises:
            UsageError: There is no such image here.
        """
        word, _, rest = (name or DEFAULT).partition(" ")
        own = _AMI.fullmatch(word)
        fixed = own or (_AMI.search(rest) if region == self._cloud.region else None)
        if not own:
            arch = arch or DEFAULT_ARCH
        key = region, fixed.group() if fixed else word, arch
        if key not in self._found:
            self._found[key] = (
                self._one(region, word, fixed.group(), arch)
                if fixed
                else self._named(region, word, arch)
            )
        return self._found[key]

    def _named(self, region: str, name: str, arch: str) -> Base:
        if arch not in _VENDOR_ARCH:
            raise UsageError(f"there is no {name} for {arch} on AWS")
        parameters, owner, pattern = _source(name, _VENDOR_ARCH[arch])
        ami = self._parameter(region, parameters)
        if ami:
            return self._one(region, name, ami, arch)
        found = [
            image
            for image in self._cloud.pages(
                "describe_images",
                "Images",
                region,
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
            # Another region may have it.
            raise Unsuitable(
                f"there is no image {name} for {arch} in {region}",
                next="another [image] base, such as ubuntu-24.04 or debian-12",
            )
        newest = max(found, key=lambda image: str(image.get("CreationDate", "")))
        return of_image(newest, name)

    def _parameter(self, region: str, names: list[str]) -> str:
        """Return the newest one that is published, "" if that is not known."""
        try:
            answer = self._cloud.call("ssm", "get_parameters", region, Names=names)
        except (NotAllowed, ProviderError):
            # Not everybody may ask; DescribeImages knows as much.
            return ""
        values = {one["Name"]: one["Value"] for one in answer.get("Parameters", ())}
        return next((str(values[name]) for name in names if name in values), "")

    def _one(self, region: str, name: str, ami: str, arch: str) -> Base:
        missing = f"there is no image {ami} in {region}"
        try:
            found = self._cloud.pages(
                "describe_images", "Images", region, ImageIds=[ami]
            )
        except Gone as error:
            raise self._missing(region, missing) from error
        except ProviderError as error:
            if errors.code(error) == "InvalidAMIID.Malformed":
                raise self._missing(region, missing) from error
            raise
        if not found:
            raise self._missing(region, missing)
        base = of_image(found[0], name)
        if arch and base.arch != arch:
            raise Unsuitable(
                f"{ami} is for {base.arch}, and the machine is {arch}",
                next="another --vm, or another [image]",
            )
        return base

    def _missing(self, region: str, text: str) -> UsageError | NoCapacity:
        if region != self._cloud.region:
            # A candidate of another region than the image's: not this one, then.
            return NoCapacity(text)
        return UsageError(text, next="see [image] in onebox.toml; ids differ by region")


def text(base: Base) -> str:
    """Return what a base is, exactly, in words."""
    arch = _VENDOR_ARCH.get(base.arch, base.arch)
    return (
        f"{base.name} {arch} {base.ami}"
        if base.name != base.ami
        else (f"{base.ami} {arch}")
    )


def of_image(image: Answer, name: str) -> Base:
    """Return an image that EC2 has described as a base."""
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
    """Return where a distribution publishes: parameters, account, name pattern."""
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
