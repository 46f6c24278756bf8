"""Which providers there are, and where each one's code is."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox.errors import OneboxError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onebox.providers.base import Provider

# name -> (module:class, what to say when its SDK is missing)
PROVIDERS = {
    "local": ("local.provider:Local", "pip install 'onebox[local]'"),
    "aws": ("aws.provider:AWS", "pip install 'onebox[aws]'"),
    "gcp": ("gcp.provider:GCP", "pip install 'onebox[gcp]'"),
    "digitalocean": (
        "digitalocean.provider:DigitalOcean",
        "pip install 'onebox[digitalocean]'",
    ),
}


def load(name: str, settings: Mapping[str, Any], root: Path) -> Provider:
    """
    Return the provider of this name, its SDK imported.

    Args:
        settings: The provider's own table of onebox.toml.

        root: The folder under which `local` keeps its boxes.

    Raises:
        UsageError: There is no such provider.

        OneboxError: Its SDK is not installed, or it could not be made.
    """
    if name not in PROVIDERS:
        raise UsageError(
            f"provider {name!r} is not part of this version of onebox",
            next=f"there is: {', '.join(PROVIDERS)}",
        )
    where, hint = PROVIDERS[name]
    module, _, attribute = where.partition(":")
    try:
        with with_bytecode():
            found = importlib.import_module(f".{module}", __name__)
    except ImportError as error:
        raise OneboxError(f"provider {name} needs {error.name}", next=hint) from error
    from onebox.providers.unexpected_errors import guarded, unforeseen

    try:
        provider: Provider = getattr(found, attribute)(settings, root)
    except (OneboxError, OSError):
        raise
    except Exception as error:
        raise unforeseen(name, "its start", error) from error
    return guarded(provider)


@contextlib.contextmanager
def with_bytecode() -> Iterator[None]:
    """
    Have what is imported meanwhile compiled once and for all.

    Invoke switches bytecode off; an SDK compiled anew at each start costs seconds.
    Where the user has switched it off (PYTHONDONTWRITEBYTECODE, -B) it stays off.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
