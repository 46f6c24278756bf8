"""Boxes of this project at another provider than the one that is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from onebox import formatting
from onebox.errors import OneboxError, UsageError
from onebox.providers.base import Box
from onebox.store.box_store import BoxStore, Record

if TYPE_CHECKING:
    from onebox.context import BoxContext


class BoxAtOtherProvider(NamedTuple):
    """A box that was made at another provider; *box* is None if that is silent."""

    name: str
    record: Record
    box: Box | None
    silence: str = ""


def refuse(context: BoxContext) -> None:
    """Raise UsageError if the box of this name is at another provider."""
    record = context.store.record
    if not record.box or record.provider in ("", context.provider.name):
        return
    if context.exists(record):
        raise UsageError(
            f"{context.settings.source('provider')} asks for {context.provider.name}, "
            f"but {context.title} ({record.box}) is on {record.provider}",
            next=f"inv teardown --provider={record.provider}, or another box: "
            "--name=second",
        )


def find(context: BoxContext) -> list[BoxAtOtherProvider]:
    """Return the boxes of this project that other providers have, or may have."""
    found = []
    for folder in sorted(context.store.directory.parent.glob("*")):
        if not folder.is_dir():
            continue
        ours = folder == context.store.directory
        store = context.store if ours else BoxStore(folder, context.screen.warn)
        record = _record(context, store)
        if not record.box or record.provider in ("", context.provider.name):
            continue
        try:
            provider = context.provider_called(record.provider)
            box = provider.get(record.box, record.place)
        except OneboxError as error:
            found.append(BoxAtOtherProvider(folder.name, record, None, error.message))
            continue
        if box is not None and box.state != "gone":
            found.append(BoxAtOtherProvider(folder.name, record, box))
    return found


def tell(
    context: BoxContext, one: BoxAtOtherProvider, line: Callable[[str], None]
) -> None:
    """Say that a box is, or may be, at another provider, and what ends it."""
    record = one.record
    what = f"{context.settings.project}/{one.name} ({record.box})"
    is_there = "is" if one.box is not None else "may be"
    rate = formatting.rate(record.price if one.box is None else one.box.offer.hourly)
    silence = f"; it does not answer: {one.silence}" if one.silence else ""
    line(f"{what} {is_there} on {record.provider}, {rate}{silence}")
    line(
        "    to end it: "
        + context.screen.hints.spell(
            f"inv teardown --name={one.name} --provider={record.provider}"
        )
    )


def _record(context: BoxContext, store: BoxStore) -> Record:
    try:
        return store.record
    except OneboxError as error:
        context.screen.warn(error.message)
        return Record()
