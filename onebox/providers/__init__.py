"""
This module holds the table of providers, and imports a provider's code when needed.

Outside a provider's own package only this table names the clouds: flags, settings,
onebox.toml.example, error messages and tests read the names from it. A few other
modules name `local` too, because that is the default provider.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onebox.errors import OneboxError, SetupError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onebox.providers.base import Provider
    from onebox.settings.fields import ProviderTable


class ProviderRow(NamedTuple):
    """
    The facts about one provider that onebox knows without importing its code.

    Attributes:
        name: The provider's name in onebox.toml, and the name of its table there.

        title: The provider's name in messages and in other sentences.

        provider: The module (below this package) and the class of the provider.

        settings: The module and the class for the provider's table in onebox.toml.

        machine_type: A regular expression for the names of its machine types, "" if it
            has none. Every match contains a digit or a dot, so that a mistyped size
            ("x-large") is not read as a machine type.

        example: Some of its machine types, written as a value in [size.NAME] of
            onebox.toml.

        library: The module of its SDK, "" if it has none. The extra with the provider's
            name installs it.

        image_id: A regular expression for the ids of images that onebox did not create,
            "" if such ids have no form by which they can be recognized.

        credentials: The files in which the cloud's own tools keep credentials, relative
            to a home folder. They are neither pushed to a box nor saved in an image.

        skypilot: The provider's name in SkyPilot, "" if that does not have it.

        has_images: Whether boxes start from images. Otherwise the packages in [image]
            are installed for each job, by what runs the jobs.
    """

    name: str
    title: str
    provider: str
    settings: str
    machine_type: str
    example: str
    library: str
    image_id: str = ""
    credentials: tuple[str, ...] = ()
    skypilot: str = ""
    has_images: bool = True

    @property
    def missing_sdk(self) -> str:
        """Return the command that installs the provider's SDK."""
        return f"pip install 'onebox[{self.name}]'"

    def settings_class(self) -> type[ProviderTable]:
        """Import and return the class for the provider's table in onebox.toml."""
        table: type[ProviderTable] = _import(self.settings)
        return table

    def has_type(self, text: str) -> bool:
        """Return whether *text* looks like a machine type of this provider."""
        return bool(self.machine_type and re.fullmatch(self.machine_type, text))

    def has_image_id(self, text: str) -> bool:
        """Return whether *text* looks like the id of an image of this provider."""
        return bool(self.image_id and re.fullmatch(self.image_id, text))


_ROWS = (
    ProviderRow(
        name="local",
        title="this machine",
        provider="local.provider:Local",
        settings="local.settings:LocalSettings",
        machine_type="",
        example="",
        library="asyncssh",
    ),
    ProviderRow(
        name="aws",
        title="AWS",
        provider="aws.provider:AWS",
        settings="aws.settings:AWSSettings",
        machine_type=r"[a-z][a-z0-9-]*\.(?:metal|[a-z0-9]*"
        r"(?:large|medium|small|micro|nano))(?:-[a-z0-9]+)*",
        example='["m7i.16xlarge", "m7a.16xlarge"]',
        image_id=r"ami-[0-9a-f]+",
        library="boto3",
        credentials=(".aws/credentials",),
        skypilot="aws",
    ),
    ProviderRow(
        name="gcp",
        title="Google Cloud",
        provider="gcp.provider:GCP",
        settings="gcp.settings:GCPSettings",
        machine_type=r"(?:[a-z]+[0-9]+[a-z]*|custom)-[a-z0-9]+(?:-[a-z0-9]+)*",
        example='"n2d-standard-64"',
        image_id=r"projects/[a-z0-9:.-]+/global/images/.+",
        library="google.cloud.compute_v1",
        credentials=(
            ".config/gcloud/credentials.db",
            ".config/gcloud/application_default_credentials.json",
        ),
        skypilot="gcp",
    ),
    ProviderRow(
        name="digitalocean",
        title="DigitalOcean",
        provider="digitalocean.provider:DigitalOcean",
        settings="digitalocean.settings:DigitalOceanSettings",
        machine_type=r"[a-z][a-z0-9_]*-(?=[a-z-]*[0-9])[a-z0-9-]+",
        example='"m-32vcpu-256gb"',
        library="digitalocean",
        credentials=(".config/doctl/config.yaml",),
        skypilot="do",
    ),
    ProviderRow(
        name="hetzner",
        title="Hetzner Cloud",
        provider="hetzner.provider:Hetzner",
        settings="hetzner.settings:HetznerSettings",
        machine_type=r"c(?:x|ax|cx|px)[0-9]+",
        example='"ccx63"',
        library="hcloud",
        credentials=(".config/hcloud/cli.toml",),
    ),
    ProviderRow(
        name="slurm",
        title="a Slurm cluster",
        provider="slurm.provider:Slurm",
        settings="slurm.settings:SlurmSettings",
        machine_type="",
        example="",
        library="",
    ),
    ProviderRow(
        name="ray",
        title="a Ray cluster",
        provider="ray.provider:Ray",
        settings="ray.settings:RaySettings",
        machine_type="",
        example="",
        library="",
        has_images=False,
    ),
)
PROVIDERS = {row.name: row for row in _ROWS}
# These providers rent machines. Only their rows have a pattern for machine types.
CLOUDS = tuple(row.name for row in _ROWS if row.machine_type)


def load(name: str, settings: ProviderTable, root: Path) -> Provider:
    """
    Return the provider of this name, with its SDK imported.

    Args:
        settings: The provider's own table of onebox.toml.

        root: The folder in which `local` keeps its boxes.

    Raises:
        UsageError: There is no such provider.

        SetupError: The SDK is not installed.

        OneboxError: The provider cannot be created.
    """
    row = row_of(name)
    try:
        with with_bytecode():
            provider_class = _import(row.provider)
    except ImportError as error:
        raise SetupError(
            f"provider {name} needs {error.name}", next=row.missing_sdk
        ) from error
    from onebox.providers.unexpected_errors import guarded, unforeseen

    try:
        provider: Provider = provider_class(settings, root)
    except (OneboxError, OSError):
        raise
    except Exception as error:
        raise unforeseen(name, "its start", error) from error
    return guarded(provider)


def row_of(name: str) -> ProviderRow:
    """Return the provider's row. Raises UsageError if no provider has this name."""
    if name not in PROVIDERS:
        # The name can come from the record of a box. A newer version of onebox, which
        # has more providers, may have written that record.
        raise UsageError(
            f"provider {name!r} is not part of this version of onebox",
            next=f"use one of {', '.join(PROVIDERS)}",
        )
    return PROVIDERS[name]


def _import(place: str) -> Any:
    """Import the module of *place* ("module:name") and return its object `name`."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(f".{module}", __name__), attribute)


@contextlib.contextmanager
def with_bytecode() -> Iterator[None]:
    """
    Write bytecode files for the modules that are imported inside the block.

    Invoke switches the writing of these files off. Without the files Python compiles an
    SDK again at each start, which takes seconds. If the user has switched the writing
    off (PYTHONDONTWRITEBYTECODE, -B), it stays off inside the block too.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
