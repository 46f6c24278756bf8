"""Choose the provider of a box, and find boxes that are at another provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes.finder import may_be_unlisted
from onebox.errors import OneboxError, UsageError
from onebox.providers.values import Box
from onebox.store.box_store import BoxStore, box_folders
from onebox.store.record import Record

if TYPE_CHECKING:
    from onebox.context import BoxContext


@dataclass(frozen=True)
class BoxAtOtherProvider:
    """
    A recorded box at another provider.

    Attributes:
        name: The `--name` of the box.

        box: The box as its provider returns it, None if the provider did not answer.

        error: The provider's error if it did not answer.
    """

    name: str
    record: Record
    box: Box | None
    error: str = ""


def choose(context: BoxContext) -> str:
    """
    Return the name of the provider to use, without loading the configured one.

    It is the first of these that exists:

    - the provider that a flag or variable names
    - the provider at which the recorded box exists or may exist
    - the provider of an interrupted action
    - the configured provider
    """
    settings, record = context.settings, context.store.record
    if settings.overrides_file("provider"):
        return settings.provider
    if record.box and record.provider == settings.provider:
        return record.provider
    if record.box and record.provider and _may_exist(context, record):
        return record.provider
    interrupted = (intent.provider for intent in context.store.open_intents())
    return next(filter(None, interrupted), settings.provider)


def refuse(context: BoxContext) -> None:
    """Raise UsageError if the box of this name exists at another provider."""
    record = context.store.record
    if not record.box or record.provider in ("", context.provider.name):
        return
    if _exists(context, record):
        raise UsageError(
            f"{context.settings.source('provider')} asks for {context.provider.name}, "
            f"but {context.title} ({record.box}) is on {record.provider}",
            next=f"inv teardown --provider={record.provider}, or another box: "
            "--name=second",
        )


def find(context: BoxContext) -> list[BoxAtOtherProvider]:
    """Return the recorded boxes of this project that may exist at other providers."""
    boxes = []
    for directory in box_folders(context.store.directory.parent):
        is_ours = directory == context.store.directory
        store = context.store if is_ours else BoxStore(directory, context.screen.warn)
        record = _record(context, store)
        if not record.box or record.provider in ("", context.provider.name):
            continue
        try:
            provider = context.load_provider(record.provider)
            box = provider.get(record.box, record.place)
        except OneboxError as error:
            boxes.append(
                BoxAtOtherProvider(directory.name, record, None, error.message)
            )
            continue
        if box is not None and box.state != "gone":
            boxes.append(BoxAtOtherProvider(directory.name, record, box))
    return boxes


def print_box(
    context: BoxContext, other: BoxAtOtherProvider, line: Callable[[str], None]
) -> None:
    """Print a box at another provider, its price, and the command that removes it."""
    record = other.record
    title = f"{context.title_of(other.name)} ({record.box})"
    verb = "is" if other.box is not None else "may be"
    price = record.hourly if other.box is None else other.box.offer.hourly
    error = f"; it does not answer: {other.error}" if other.error else ""
    line(f"{title} {verb} on {record.provider}, {formatting.rate(price)}{error}")
    command = f"inv teardown --name={other.name} --provider={record.provider}"
    line(f"    to remove it: {context.screen.hints.spell(command)}")


def _record(context: BoxContext, store: BoxStore) -> Record:
    try:
        return store.record
    except OneboxError as error:
        context.screen.warn(error.message)
        return Record()


def _exists(context: BoxContext, record: Record) -> bool:
    """
    Ask the provider of the recorded box whether the box exists.

    A new box counts as existing, because the provider's lists may not contain it yet.

    Raises:
        OneboxError: The provider did not answer.
    """
    provider = context.load_provider(record.provider)
    box = provider.get(record.box, record.place)
    if box is None:
        return may_be_unlisted(provider, record.created, time.monotonic())
    return box.state != "gone"


def _may_exist(context: BoxContext, record: Record) -> bool:
    try:
        return _exists(context, record)
    except OneboxError:
        return True
