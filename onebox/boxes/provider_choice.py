"""Choose the provider of a box, load it, and cache its answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from onebox import providers
from onebox.boxes.finder import may_be_unlisted
from onebox.errors import OneboxError
from onebox.providers.base import Provider
from onebox.providers.values import Image, Offer
from onebox.settings import Settings
from onebox.store.box_store import BoxStore
from onebox.store.paths import local_root
from onebox.store.record import Record


@dataclass
class ProviderCache:
    """
    What the provider has answered to this command.

    Attributes:
        offers: The offers for the box's size, by the id of the image it boots.

        images: The owner's images, None until they are listed.
    """

    offers: dict[str, list[Offer]] = field(default_factory=dict)
    images: list[Image] | None = None


def load(name: str, settings: Settings, environ: Mapping[str, str]) -> Provider:
    """
    Return a provider, configured by its own table of onebox.toml.

    Raises:
        UsageError: There is none: a newer version of onebox has recorded its name.
    """
    table = settings.providers[providers.row_of(name).name]
    return providers.load(name, table, local_root(environ))


def choose(settings: Settings, environ: Mapping[str, str], store: BoxStore) -> str:
    """
    Return the name of the provider to use; the configured one is not loaded for it.

    It is the configured provider, unless the recorded box exists at another one, or
    an action there was interrupted.
    """
    configured, record = settings.provider, store.record
    if settings.source("provider").startswith(("--", "ONEBOX_")):
        return configured
    recorded = record.provider if record.box else ""
    if recorded and (recorded == configured or _may_exist(record, settings, environ)):
        return recorded
    interrupted = (intent.provider for intent in store.open_intents())
    return next(filter(None, interrupted), configured)


def box_exists(record: Record, settings: Settings, environ: Mapping[str, str]) -> bool:
    """
    Ask the provider of the recorded box whether the box exists.

    A box that may be missing from the provider's lists counts as existing.

    Raises:
        OneboxError: The provider did not answer.
    """
    provider = load(record.provider, settings, environ)
    box = provider.get(record.box, record.place)
    if box is None:
        return may_be_unlisted(provider, record.created, time.monotonic())
    return box.state != "gone"


def _may_exist(record: Record, settings: Settings, environ: Mapping[str, str]) -> bool:
    try:
        return box_exists(record, settings, environ)
    except OneboxError:
        return True
