"""List what the addresses in [push] data hold, once for a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox.providers.object_stores import ObjectStores
from onebox.transfer import data_listing
from onebox.transfer.data_listing import DataListing

if TYPE_CHECKING:
    from onebox.context import BoxContext


def find(context: BoxContext, *, again: bool = False) -> DataListing:
    """
    Return the objects that the box downloads.

    Args:
        again: List them again.

    Raises:
        OneboxError: The data cannot be listed.
    """
    if context.chain.data is None or again:
        sources = context.settings.push.sources
        if not sources:
            context.chain.data = DataListing(())
        else:
            with context.screen.stage("data", kept=False) as line:
                line.doing(f"listing {sources[0].shown}")
                context.chain.data = data_listing.find(
                    sources, stores(context), line.doing
                )
    return context.chain.data


def stores(context: BoxContext) -> ObjectStores:
    """Return the object stores of this command line."""
    if context.chain.stores is None:
        context.chain.stores = ObjectStores(
            context.settings.providers, context.provider_name
        )
    return context.chain.stores
