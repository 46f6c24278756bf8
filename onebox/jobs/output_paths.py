"""Which paths on the box are outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onebox.context import Session


def asked_for(session: Session) -> list[str]:
    """Return the paths on the box that onebox.toml calls outputs now."""
    fetch = session.settings.fetch
    return [*fetch.outputs, *fetch.checkpoints]


def roots(session: Session) -> list[str]:
    """Return the paths on the box that are outputs: today's, and the last job's."""
    before = session.notebook.record.job_outputs.split("\n")
    return list(dict.fromkeys([*asked_for(session), *filter(None, before)]))
