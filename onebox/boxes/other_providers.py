"""Boxes of this project at another provider than the one that is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from onebox import formatting
from onebox.errors import OneboxError, UsageError
from onebox.providers.base import Box
from onebox.store.box_store import Notebook, Record

if TYPE_CHECKING:
    from onebox.context import Session


class Elsewhere(NamedTuple):
    """A box that was made at another provider; *box* is None if that is silent."""

    name: str
    record: Record
    box: Box | None
    silence: str = ""


def refuse(session: Session) -> None:
    """Raise UsageError if the box of this name is at another provider."""
    record = session.notebook.record
    if not record.box or record.provider in ("", session.provider.name):
        return
    if session.exists(record):
        raise UsageError(
            f"{session.settings.source('provider')} asks for {session.provider.name}, "
            f"but {session.title} ({record.box}) is on {record.provider}",
            next=f"inv teardown --provider={record.provider}, or another box: "
            "--name=second",
        )


def find(session: Session) -> list[Elsewhere]:
    """Return the boxes of this project that other providers have, or may have."""
    found = []
    for folder in sorted(session.notebook.directory.parent.glob("*")):
        if not folder.is_dir():
            continue
        ours = folder == session.notebook.directory
        notebook = session.notebook if ours else Notebook(folder, session.screen.warn)
        record = _record(session, notebook)
        if not record.box or record.provider in ("", session.provider.name):
            continue
        try:
            provider = session.provider_called(record.provider)
            box = provider.get(record.box, record.place)
        except OneboxError as error:
            found.append(Elsewhere(folder.name, record, None, error.message))
            continue
        if box is not None and box.state != "gone":
            found.append(Elsewhere(folder.name, record, box))
    return found


def tell(session: Session, one: Elsewhere, line: Callable[[str], None]) -> None:
    """Say that a box is, or may be, at another provider, and what ends it."""
    record = one.record
    what = f"{session.settings.project}/{one.name} ({record.box})"
    is_there = "is" if one.box is not None else "may be"
    rate = formatting.rate(record.price if one.box is None else one.box.size.hourly)
    silence = f"; it does not answer: {one.silence}" if one.silence else ""
    line(f"{what} {is_there} on {record.provider}, {rate}{silence}")
    line(
        "    to end it: "
        + session.screen.hints.spell(
            f"inv teardown --name={one.name} --provider={record.provider}"
        )
    )


def _record(session: Session, notebook: Notebook) -> Record:
    try:
        return notebook.record
    except OneboxError as error:
        session.screen.warn(error.message)
        return Record()
