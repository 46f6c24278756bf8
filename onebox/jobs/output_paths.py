"""Which paths on the box are outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onebox.context import BoxContext


def asked_for(context: BoxContext) -> list[str]:
    """Return the paths on the box that onebox.toml calls outputs now."""
    fetch = context.settings.fetch
    return [*fetch.outputs, *fetch.checkpoints]


def roots(context: BoxContext) -> list[str]:
    """Return the paths on the box that are outputs: today's, and the last job's."""
    before = context.store.record.job_outputs.split("\n")
    return list(dict.fromkeys([*asked_for(context), *filter(None, before)]))
