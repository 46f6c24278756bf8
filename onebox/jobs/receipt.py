"""What a job took and cost: a few lines on the screen, and JSON beside its outputs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox import formatting
from onebox.agent.files.manifest import Entry
from onebox.jobs import run_history
from onebox.providers.base import Box
from onebox.providers.costs import MACHINE, total
from onebox.remote.answers import ExitRecord
from onebox.store.atomic_files import (
    clear_drafts,
    open_folder,
    private_dir,
    write_atomically,
    write_in,
)
from onebox.transfer.select import RECEIPT

if TYPE_CHECKING:
    from onebox.context import BoxContext

NAME = RECEIPT
GB = 1 << 30
# Its name in the folder of the job, below .onebox.
NAME_HERE = "receipt.json"
# The receipt of the latest job whose outputs this box name has brought here.
LAST = "last.json"


def make(
    context: BoxContext,
    box: Box,
    job_id: str,
    command: str,
    record: ExitRecord,
) -> dict[str, Any]:
    """Return the receipt of a job that has ended. Times in seconds, cost in USD."""
    size = box.offer
    return {
        "format": 1,
        "job": job_id,
        "command": command,
        "exit": record.code,
        "cause": record.cause,
        "signal": record.signal,
        "started": record.started,
        "ended": record.ended,
        "seconds": round(record.seconds, 3),
        "box": {
            "id": box.id,
            "name": box.tags.name,
            "provider": context.provider.name,
            "place": box.place,
            "size": size.name,
            "type": size.type,
            "cpus": size.cpus,
            "memory": size.memory,
            "spot": size.spot,
            "price_per_hour": size.price,
            "on_demand_per_hour": size.on_demand,
            "extras_per_hour": {one.label: one.hourly for one in size.extras},
            "egress_per_gb": context.provider.egress_rate(box.place),
            "image": box.image,
        },
        "peak": {
            "memory": record.memory_peak,
            "cpu_seconds": record.cpu_seconds,
        },
        "log_bytes": record.log_bytes,
        "log_gone": record.log_gone,
    }


def copy_beside(context: BoxContext, job_id: str) -> None:
    """Put the receipt of a job beside its outputs, which have been fetched."""
    folder = context.local_dir / "jobs" / job_id
    with suppress(FileNotFoundError):
        _write_beside(context, folder, (folder / NAME_HERE).read_bytes())


def write(context: BoxContext, job_id: str, paper: dict[str, Any]) -> None:
    """Write the receipt to .onebox/jobs/<job>/, and beside the outputs."""
    if "attempts" in paper:
        now = context.now()
        lived = now - (context.store.record.created or now)
        costs = costs_of(paper, lived)
        paper["costs"] = {k: c if c is None else round(c, 6) for k, c in costs.items()}
    paper["stages"] = {k: round(v, 3) for k, v in context.spent.items()}
    data = (json.dumps(paper, indent=1) + "\n").encode()
    folder = context.local_dir / "jobs" / job_id
    with open_folder(folder) as opened:
        write_in(opened, NAME_HERE, data, mode=0o644)
    _write_beside(context, folder, data)
    # With its outputs here, and only then, it need not run again.
    if "key" in paper and "outputs" in paper:
        private_dir(context.memory)
        write_atomically(context.memory / LAST, data, mode=0o644)
    for place in (context.memory, folder.parent, *folder.parent.iterdir()):
        clear_drafts(place, ".*.json-*")


def outdate(context: BoxContext, job: str) -> None:
    """Forget the last good job, unless it is this one: its outputs will be others."""
    paper = last_good(context)
    if paper is not None and paper.get("job") != job:
        (context.memory / LAST).unlink(missing_ok=True)


def keep(context: BoxContext, box: Box, job_id: str, record: ExitRecord) -> None:
    """Write the receipt of a job that had nobody attached, unless there is one."""
    folder = context.local_dir / "jobs" / job_id
    if (folder / NAME_HERE).exists():
        return
    known = context.store.record
    command = known.job_command if known.job == job_id else ""
    data = json.dumps(make(context, box, job_id, command, record), indent=1) + "\n"
    with open_folder(folder) as opened:
        write_in(opened, NAME_HERE, data.encode(), mode=0o644)


def last_good(context: BoxContext) -> dict[str, Any] | None:
    """Return the receipt of the latest job of [run] command that ended well."""
    with suppress(FileNotFoundError, ValueError):
        paper = json.loads((context.memory / LAST).read_bytes())
        if isinstance(paper, dict) and isinstance(paper.get("key"), dict):
            return paper
    return None


def show(context: BoxContext, paper: Mapping[str, Any], created: float) -> None:
    """Say at the end of a chain what it all took and cost."""
    size = paper["box"]
    text = bill(paper, context.now() - created)
    limit = context.settings.limits.max_cost
    spent = total(costs_of(paper, context.now() - created).values())
    if limit is not None and spent is not None and spent > limit:
        context.screen.warn(
            f"{formatting.money(spent)} is more than [limits] max_cost = "
            f"{formatting.money(limit)}: what outputs cost is known once they are here"
        )
    peak = paper["peak"]
    used = []
    if peak.get("cpu_seconds") and paper["seconds"] > 0:
        cores = peak["cpu_seconds"] / paper["seconds"]
        used.append(f"{cores:.1f} of {size['cpus']} cores on average")
    if peak.get("memory"):
        used.append(
            f"peak {formatting.byte_count(peak['memory'])} of "
            f"{formatting.byte_count(size['memory'])}"
        )
    context.screen.say()
    context.screen.say(text)
    if used:
        context.screen.say("used " + ", ".join(used))


def costs_of(paper: Mapping[str, Any], lived: float) -> dict[str, float | None]:
    """
    Return what a run has cost, part by part, in USD.

    Outputs are counted at the list price, without what an account has free.

    Args:
        lived: For how many seconds the last box has been there.
    """
    box = paper["box"]
    rates = {MACHINE: box["price_per_hour"], **box["extras_per_hour"]}
    found = {name: run_history.cost(rate, lived) for name, rate in rates.items()}
    earlier = paper["attempts"]["earlier"]
    if earlier:
        found["earlier boxes"] = total(
            run_history.cost(rate, seconds) for rate, _, seconds in earlier
        )
    count = paper.get("outputs", {}).get("bytes", 0)
    rate = box["egress_per_gb"]
    found["outputs"] = None if rate is None and count else (rate or 0) * count / GB
    return found


def bill(paper: Mapping[str, Any], lived: float) -> str:
    """Return in one line what a run has cost; *lived* as in `costs_of`."""
    size, earlier = paper["box"], paper["attempts"]["earlier"]
    spent = lived + sum(seconds for _, _, seconds in earlier)
    costs = costs_of(paper, lived)
    if size["price_per_hour"] == 0 and not earlier:
        return f"no charge, {formatting.seconds(spent)} on the box"
    text = f"{formatting.money(total(costs.values()))} in {formatting.seconds(spent)}"
    would = total(
        run_history.cost(rate, seconds)
        for rate, seconds in (
            (
                total([size["on_demand_per_hour"], *size["extras_per_hour"].values()]),
                lived,
            ),
            *((dear, seconds) for _, dear, seconds in earlier),
        )
    )
    if size["spot"] and would:
        text += f" · on demand it would have been {formatting.money(would)}"
    if earlier:
        text += f", in {len(earlier) + 1} boxes"
    parts = [
        f"{name} {formatting.money(cost)}" for name, cost in costs.items() if cost != 0
    ]
    return f"{text}  ({', '.join(parts)})" if len(parts) > 1 else text


def _write_beside(context: BoxContext, folder: Path, data: bytes) -> None:
    """Write the receipt that *folder* has beside the outputs, if there are any."""
    beside = _beside(context)
    if beside is None:
        return
    try:
        write_atomically(beside / NAME, data, mode=0o644)
    except PermissionError:
        # The folder is read-only on the box, so it is here.
        kept = formatting.path(str(folder.relative_to(context.root)))
        context.screen.warn(
            f"{formatting.path(beside.name)} is read-only: the receipt is in {kept}"
        )
    clear_drafts(beside, f".{NAME}-*")


def _beside(context: BoxContext) -> Path | None:
    came = context.fetched.entries if context.fetched is not None else []
    for path in context.settings.fetch.outputs:
        folder, top = context.into / path, os.fsencode(path.rstrip("/") + "/")
        filled = any(entry.path.startswith(top) for entry in came)
        if filled and folder.is_dir() and not folder.is_symlink():
            return folder if _is_free(context, top, came) else None
    return None


def _is_free(context: BoxContext, top: bytes, came: list[Entry]) -> bool:
    """Tell whether no output has the name of the receipt; warn if one has."""
    name = top + os.fsencode(NAME)
    if any(entry.path == name for entry in came):
        context.screen.warn(
            f"{formatting.path(name)} is an output of the job: its receipt is only in "
            f"{context.local_dir.name}/jobs"
        )
        return False
    return True
