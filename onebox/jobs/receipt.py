"""The receipt of a job, what it took and cost, as a value and as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from onebox import formatting
from onebox.context import BoxContext
from onebox.jobs import receipt_copy, run_record
from onebox.jobs.memory_advice import memory_advice
from onebox.jobs.run_record import EarlierBox, RunTotals
from onebox.jobs.stored_values import check_types, cleaned
from onebox.providers.costs import MACHINE, total
from onebox.providers.values import Box
from onebox.remote.job_answers import ExitRecord
from onebox.settings.units import GB
from onebox.store.atomic_files import (
    clear_drafts,
    open_folder,
    private_dir,
    read_regular,
    write_atomically,
    write_in,
)
from onebox.ui.json_document import SCHEMA_VERSION
from onebox.units.results import UnitCounts

# What the JSON document of a receipt begins with.
HEAD = {"schema_version": SCHEMA_VERSION, "kind": "receipt"}
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
    price. *identity* is what the job could act as in the cloud, None for nothing.
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
    identity: str | None = None


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
        job, command: The id and the command of the job.

        exit: The job's exit code; *cause* and *signal* are those of its exit record.

        started, ended: When the job started and ended (epoch seconds).

        seconds: How long the job ran.

        box: The box that it ran on.

        peak: The most that it used.

        log_bytes: The size of the log; *log_gone* is how many bytes of output were
            dropped.

        attempts: The totals of all attempts of the run. None if no client waited for
            the job.

        key: A hash or an id of everything that the result depends on, by its name. The
            key is set only if [run] command has succeeded. A later run with the same
            key can be skipped.

        outputs: The fetched outputs, None if they were not fetched.

        units: How many of the job's units are done, None if it was no job of `map`.

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
    units: UnitCounts | None = None
    costs: Mapping[str, float | None] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    advice: str | None = None

    def __repr__(self) -> str:
        least = "" if self.costs else "at least "
        known = self.cost if self.costs else self.own_cost
        cost = "cost unknown" if known is None else formatting.money(known)
        if known:
            cost = least + cost
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

    @property
    def own_cost(self) -> float | None:
        """Return the cost in USD of the box while the job ran, None if unknown."""
        rates = [self.box.machine_per_hour, *self.box.extras_per_hour.values()]
        return run_record.cost(total(rates), max(self.seconds, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """
        Return the receipt as the JSON document of `onebox-receipt.json`.

        Fields that are not set are left out, except *signal*.
        """
        values = {name: v for name, v in asdict(self).items() if v not in (None, {})}
        return {**HEAD, "signal": None, **values}

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
        if "units" in values:
            values["units"] = UnitCounts(**document["units"])
        receipt = cls(**values)
        totals = receipt.attempts
        parts: list[Any] = [receipt.box, receipt.peak, receipt.outputs, receipt.units]
        if totals is not None:
            parts += [totals, *totals.earlier]
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
            identity=box.identity or None,
        ),
        peak=Peak(record.memory_peak, record.cpu_seconds),
        log_bytes=record.log_bytes,
        log_gone=record.log_gone,
        attempts=attempts,
        key=key,
        advice=memory_advice(context, box, record) or None,
        units=None if record.units is None else UnitCounts.of(record.units),
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
    receipt_copy.write(context, folder, data)
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
        receipt_copy.write(context, folder, (folder / FILE).read_bytes())


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
    earlier = earlier_boxes(receipt)
    if earlier:
        costs[EARLIER] = total(
            run_record.cost(each.hourly, each.seconds) for each in earlier
        )
    count = receipt.outputs.bytes if receipt.outputs is not None else 0
    rate = box.egress_per_gb
    costs["outputs"] = None if rate is None and count else (rate or 0) * count / GB
    return costs


def earlier_boxes(receipt: Receipt) -> tuple[EarlierBox, ...]:
    """Return the boxes of the earlier attempts of a run."""
    return receipt.attempts.earlier if receipt.attempts is not None else ()
