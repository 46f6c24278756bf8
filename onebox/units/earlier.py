"""Find the files of units that have run on another box before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox.agent.file_names import raw
from onebox.settings.map_table import MOST_BOXES
from onebox.store.box_store import BoxStore
from onebox.transfer.ledger import Replaced
from onebox.units import job as unit_job

if TYPE_CHECKING:
    from onebox.context import BoxContext


def replaced(context: BoxContext) -> Replaced | None:
    """
    Return the files that the units of the latest job replace; None if it had no units.

    They are those of boxes that are gone, or that are new in the same call of `map`.
    Files of any other box stay, because they are missed when that box is removed.
    """
    units = unit_job.load(context, context.store.record.job)
    if units is None:
        return None
    call = unit_job.load(context, units.part_of)
    name, new = units.box, set()
    if call is not None:
        name, new = call.box, {box for box, _ in call.boxes}
    stores = context.store.directory.parent
    memories = []
    for other in (name, *(f"{name}-{number}" for number in range(1, MOST_BOXES + 1))):
        memory = context.fetch_memory.with_name(other)
        if other == context.settings.name or not memory.is_dir():
            continue
        if other in new or not BoxStore(stores / other).record.box:
            memories.append(memory)
    folders = frozenset(raw(unit.outputs.rstrip("/")) for unit in units.units)
    return Replaced(memories, folders)
