"""The receipt of a job: what it took and cost, on the screen and as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from onebox import formatting
from onebox.agent.files.manifest import Entry
from onebox.context import BoxContext
from onebox.jobs import run_record
from onebox.jobs.memory_advice import memory_advice
from onebox.jobs.run_record import EarlierBox, RunTotals
from onebox.jobs.stored_values import check_types, cleaned
from onebox.providers.costs import MACHINE, total
from onebox.providers.values import Box
from onebox.remote.answers import ExitRecord
from onebox.settings.units import GB
from onebox.store.atomic_files import (
    clear_drafts,
    open_folder,
    private_dir,
    read_regular,
    write_atomically,
    write_in,
)
from onebox.transfer.select import RECEIPT

FORMAT = 1
# The file name of the receipt in its job's folder. The copy beside the outputs has the
# name RECEIPT.
FILE = "receipt.json"
# The name of the cost of the boxes of earlier attempts.
EARLIER = "earlier boxes"
# This file holds the receipt of the latest job of this box name that succeeded and
# whose outputs were fetched.
LAST = "last.json"


@dataclass(frozen=True)
class ReceiptBox:
    """
    The box that a job ran on; prices in USD.

    *name* is the `--name` of the box. *machine_per_hour* is the price of the machine
    alone. *extras_per_hour* maps the label of each other billed part to its hourly
    price.
    """

    id: str
    name: str
    provider: str
    place: str
    size: str
    type: str
    cpus: int
    memory: int
    spot: bool
    machine_per_hour: float | None
    machine_on_demand_per_hour: float | None
    extras_per_hour: Mapping[str, float | None]
    egress_per_gb: float | None
    image: str


@dataclass(frozen=True)
class OutputCount:
    """The number of files and bytes that were fetched."""

    files: int
    bytes: int


@dataclass(frozen=True)
class Peak:
    """The most memory that a job used, in bytes, and its CPU time in seconds."""

    memory: int | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True, repr=False)
class Receipt:
    """
    What one job took and cost; times in seconds, costs in USD.

    Attributes:
        exit: The job's exit code; *cause* and *signal* are those of its exit record.

        attempts: The totals of all attempts of the run. None if no client waited for
            the job.

        key: A hash or an id of everything that the result depends on, by its name. The
            key is set only if [run] command has succeeded. A later run with the same
            key can be skipped.

        outputs: The fetched outputs, None if they were not fetched.

        costs: The cost of each billed part, by the part's name.

        stages: How long each stage took, by the stage's name.

        advice: A sentence on why the job failed and what to change, None if there is
            none.
    """

    job: str
    command: str
    exit: int
    cause: str
    signal: int | None
    started: float
    ended: float
    seconds: float
    box: ReceiptBox
    peak: Peak
    log_bytes: int
    log_gone: int
    attempts: RunTotals | None = None
    key: Mapping[str, str] | None = None
    outputs: OutputCount | None = None
    costs: Mapping[str, float | None] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    advice: str | None = None

    def __repr__(self) -> str:
        cost = "cost unknown" if self.cost is None else formatting.money(self.cost)
        spent = formatting.seconds(self.seconds)
        return f"<Receipt of job {self.job}: exit {self.exit}, {spent}, {cost}>"

    @property
    def exit_code(self) -> int:
        """Return the job's exit code."""
        return self.exit

    @property
    def cost(self) -> float | None:
        """Return the cost of the run in USD, None if a part of it is unknown."""
        return total(self.costs.values()) if self.costs else None

    def to_dict(self) -> dict[str, Any]:
        """
        Return the receipt as the JSON document of `onebox-receipt.json`.

        Fields that are not set are left out, except *signal*.
        """
        values = {name: v for name, v in asdict(self).items() if v not in (None, {})}
        return {"format": FORMAT, "signal": None, **values}

    def encode(self) -> bytes:
        """Return the receipt as JSON; see `to_dict`."""
        return (json.dumps(self.to_dict(), indent=1) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Receipt:
        """
        Return the receipt that *data*, the contents of a receipt file, describes.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: The file is damaged.
        """
        document: dict[str, Any] = cleaned(json.loads(data))
        values = {f.name: document[f.name] for f in fields(cls) if f.name in document}
        values["box"] = ReceiptBox(**document["box"])
        values["peak"] = Peak(**document["peak"])
        if "attempts" in values:
            account = dict(document["attempts"])
            earlier = tuple(EarlierBox(**box) for box in account.pop("earlier"))
            jobs = tuple(map(str, account.pop("jobs")))
            values["attempts"] = RunTotals(**account, jobs=jobs, earlier=earlier)
        if "outputs" in values:
            values["outputs"] = OutputCount(**document["outputs"])
        receipt = cls(**values)
        totals = receipt.attempts
        parts: list[Any] = [receipt.box, receipt.peak, receipt.outputs, totals]
        parts += totals.earlier if totals is not None else ()
        for part in (receipt, *filter(None, parts)):
            check_types(part)
        return receipt


def make(
    context: BoxContext,
    box: Box,
    job_id: str,
    command: str,
    record: ExitRecord,
    *,
    attempts: RunTotals | None = None,
    key: Mapping[str, str] | None = None,
) -> Receipt:
    """Return the receipt of a job that has ended."""
    offer = box.offer
    return Receipt(
        job=job_id,
        command=command,
        exit=record.code,
        cause=record.cause,
        signal=record.signal,
        started=record.started,
        ended=record.ended,
        seconds=round(record.seconds, 3),
        box=ReceiptBox(
            id=box.id,
            name=box.tags.name,
            provider=context.provider.name,
            place=box.place,
            size=offer.name,
            type=offer.type,
            cpus=offer.cpus,
            memory=offer.memory,
            spot=offer.spot,
            machine_per_hour=offer.machine_price,
            machine_on_demand_per_hour=offer.machine_on_demand,
            extras_per_hour={extra.label: extra.hourly for extra in offer.extras},
            egress_per_gb=context.provider.egress_rate(box.place),
            image=box.image,
        ),
        peak=Peak(record.memory_peak, record.cpu_seconds),
        log_bytes=record.log_bytes,
        log_gone=record.log_gone,
        attempts=attempts,
        key=key,
        advice=memory_advice(context, box, record) or None,
    )


def write(context: BoxContext, receipt: Receipt) -> Receipt:
    """
    Write a receipt to .onebox/jobs/<job>/ and beside the outputs.

    Returns:
        The receipt with the time of each stage up to now. If its `attempts` are set, it
        also has the costs up to now.
    """
    if receipt.attempts is not None:
        now = context.now()
        lifetime = now - (context.store.record.created or now)
        costs = costs_of(receipt, lifetime)
        rounded = {k: c if c is None else round(c, 6) for k, c in costs.items()}
        receipt = replace(receipt, costs=rounded)
    stages = {name: round(s, 3) for name, s in context.chain.stage_seconds.items()}
    receipt = replace(receipt, stages=stages)
    data = receipt.encode()
    folder = context.job_dir(receipt.job)
    with open_folder(folder) as opened:
        write_in(opened, FILE, data, mode=0o644)
    _write_beside(context, folder, data)
    # The receipt is stored in the file LAST only if the outputs were fetched. Without
    # the outputs, a later run could not be skipped.
    if receipt.key is not None and receipt.outputs is not None:
        private_dir(context.fetch_memory)
        write_atomically(context.fetch_memory / LAST, data, mode=0o644)
    for place in (context.fetch_memory, folder.parent, *folder.parent.iterdir()):
        clear_drafts(place, ".*.json-*")
    return receipt


def copy_beside(context: BoxContext, job_id: str) -> None:
    """Copy a job's receipt into the output folder after a fetch of its outputs."""
    folder = context.job_dir(job_id)
    with suppress(FileNotFoundError):
        _write_beside(context, folder, (folder / FILE).read_bytes())


def outdate(context: BoxContext, job_id: str) -> None:
    """
    Delete the stored receipt of the last good job, unless that job is *job_id*.

    A fetch of the outputs of *job_id* overwrites those of the last good job.
    """
    receipt = last_good(context)
    if receipt is not None and receipt.job != job_id:
        (context.fetch_memory / LAST).unlink(missing_ok=True)


def keep(context: BoxContext, box: Box, job_id: str, record: ExitRecord) -> None:
    """Write the receipt of a job that no client waited for, unless the job has one."""
    folder = context.job_dir(job_id)
    if (folder / FILE).exists():
        return
    state = context.store.record
    command = state.job_command if state.job == job_id else ""
    receipt = make(context, box, job_id, command, record)
    with open_folder(folder) as opened:
        write_in(opened, FILE, receipt.encode(), mode=0o644)


def read(path: Path) -> Receipt | None:
    """Return the receipt in a file, None if the file is missing or damaged."""
    # A project that was cloned may bring any file.
    with suppress(
        OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError
    ):
        return Receipt.decode(read_regular(path))
    return None


def last_good(context: BoxContext) -> Receipt | None:
    """
    Return the receipt of the last good job, None if there is none.

    This is the latest job of [run] command that succeeded and whose outputs were
    fetched.
    """
    receipt = read(context.fetch_memory / LAST)
    return receipt if receipt is not None and receipt.key is not None else None


def show(
    context: BoxContext, receipt: Receipt, created: float, *, shared: bool = False
) -> None:
    """
    Print the time and cost of a run, and how much CPU and memory its job used.

    Args:
        created: The time (epoch seconds) from which on this run had its last box.

        shared: Whether other runs had the box before.
    """
    lifetime = context.now() - created
    limit = context.settings.limits.max_cost
    spent = total(costs_of(receipt, lifetime).values())
    if limit is not None and spent is not None and spent > limit:
        context.screen.warn(
            f"{formatting.money(spent)} is more than [limits] max_cost = "
            f"{formatting.money(limit)}: the egress cost of outputs is known only "
            "after the fetch"
        )
    usage = []
    if receipt.peak.cpu_seconds and receipt.seconds > 0:
        cores = receipt.peak.cpu_seconds / receipt.seconds
        usage.append(f"{cores:.1f} of {receipt.box.cpus} cores on average")
    if receipt.peak.memory:
        peak = formatting.bytes_of(receipt.peak.memory, receipt.box.memory)
        usage.append(f"peak memory {peak}")
    context.screen.say()
    context.screen.say(bill(receipt, lifetime, shared=shared))
    if usage:
        context.screen.say(f"the job used {', '.join(usage)}")


def costs_of(receipt: Receipt, lifetime: float) -> dict[str, float | None]:
    """
    Return the cost of each part of a run in USD.

    The download of the outputs is counted at the list price, because it is unknown how
    much of its free allowance the account has left.

    Args:
        lifetime: The age of the run's last box in seconds.
    """
    box = receipt.box
    rates = {MACHINE: box.machine_per_hour, **box.extras_per_hour}
    costs = {name: run_record.cost(rate, lifetime) for name, rate in rates.items()}
    earlier = _earlier_boxes(receipt)
    if earlier:
        costs[EARLIER] = total(
            run_record.cost(each.hourly, each.seconds) for each in earlier
        )
    count = receipt.outputs.bytes if receipt.outputs is not None else 0
    rate = box.egress_per_gb
    costs["outputs"] = None if rate is None and count else (rate or 0) * count / GB
    return costs


def bill(receipt: Receipt, lifetime: float, *, shared: bool = False) -> str:
    """
    Return one line of text with the cost of a run; see `costs_of` and `show`.
    """
    box, earlier = receipt.box, _earlier_boxes(receipt)
    seconds = lifetime + sum(each.seconds for each in earlier)
    costs = costs_of(receipt, lifetime)
    if box.machine_per_hour == 0 and not earlier:
        used = "this run used the box" if shared else "the box was up"
        return f"no charge; {used} for {formatting.seconds(seconds)}"
    text = f"{formatting.money(total(costs.values()))} in {formatting.seconds(seconds)}"
    hourly = total([box.machine_on_demand_per_hour, *box.extras_per_hour.values()])
    boxes = [
        (hourly, lifetime),
        *((each.hourly_on_demand, each.seconds) for each in earlier),
    ]
    on_demand = total(run_record.cost(rate, lived) for rate, lived in boxes)
    if box.spot and on_demand:
        text += f" · on demand it would have been {formatting.money(on_demand)}"
    if earlier:
        text += f", in {len(earlier) + 1} boxes"
    parts = [
        f"{name} {formatting.money(cost)}" for name, cost in costs.items() if cost != 0
    ]
    return f"{text}  ({', '.join(parts)})" if len(parts) > 1 else text


def _earlier_boxes(receipt: Receipt) -> tuple[EarlierBox, ...]:
    return receipt.attempts.earlier if receipt.attempts is not None else ()


def _write_beside(context: BoxContext, folder: Path, data: bytes) -> None:
    """Write a receipt into the output folder, if the fetch has put files there."""
    beside = _output_folder(context)
    if beside is None:
        return
    try:
        write_atomically(beside / RECEIPT, data, mode=0o644)
    except PermissionError:
        # The output folder has the same mode here as on the box, so it may be
        # read-only.
        kept = formatting.path(str(folder.relative_to(context.root)))
        context.screen.warn(
            f"{formatting.path(beside.name)} is read-only: the receipt is in {kept}"
        )
    clear_drafts(beside, f".{RECEIPT}-*")


def _output_folder(context: BoxContext) -> Path | None:
    """
    Return the first output folder with fetched files.

    Return None if there is no such folder. Also return None if another file in this
    folder has the receipt's name: an output of the job, or a file of the user.
    """
    fetched = context.chain.fetched
    entries = fetched.entries if fetched is not None else []
    for path in context.settings.fetch.outputs:
        folder, top = context.outputs_folder / path, os.fsencode(path.rstrip("/") + "/")
        has_files = any(entry.path.startswith(top) for entry in entries)
        if has_files and folder.is_dir() and not folder.is_symlink():
            return folder if _is_free(context, folder, top, entries) else None
    return None


def _is_free(
    context: BoxContext, folder: Path, top: bytes, entries: list[Entry]
) -> bool:
    """
    Return whether a receipt can be written into *folder*.

    If another file there has the receipt's name, print a warning and return False.
    """
    name = top + os.fsencode(RECEIPT)
    if any(entry.path == name for entry in entries):
        owner = "an output of the job"
    elif os.path.lexists(folder / RECEIPT) and not _is_receipt(folder / RECEIPT):
        owner = "a file of yours"
    else:
        return True
    context.screen.warn(
        f"{formatting.path(name)} is {owner}: the job's receipt is only in "
        f"{context.local_dir.name}/jobs"
    )
    return False


def _is_receipt(path: Path) -> bool:
    """Return whether onebox wrote a file, also if an earlier version did."""
    with suppress(OSError, ValueError, RecursionError):
        document = json.loads(read_regular(path))
        return isinstance(document, dict) and {"job", "box"} <= document.keys()
    return False
