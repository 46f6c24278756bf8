"""The values that a plan consists of; `plan` finds them, `plan_print` prints them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from onebox import formatting
from onebox.boxes.priced_offer import PricedOffer

Action = Literal["run", "up to date", "no", "later", "refuse", "unknown"]


@dataclass(frozen=True)
class Refusal:
    """
    A reason for which a stage would not start.

    Attributes:
        step: The step in whose line the reason is printed.

        message, next: Those of the error that the stage would raise.

        exit: The exit code of that error.
    """

    step: str
    message: str
    next: str
    exit: int


@dataclass(frozen=True)
class PlannedStep:
    """
    What would happen in one step, and why.

    Attributes:
        name: The name of its stage, such as "push".

        action: "run", "up to date", "no", "unknown", "refuse" with a `Refusal`, or
            "later" for an image that is out of date while the live box can be updated.

        reason: Why, in words.
    """

    name: str
    action: Action
    reason: str


@dataclass(frozen=True)
class PlannedBox:
    """
    The box that is used or created.

    Attributes:
        headline: What the box is and costs, as `inv plan` prints it.

        offer: The machine type, its place and its price.

        exists: Whether the box is up already.

        deadline: When the box powers itself off (epoch seconds).

        at_most_usd: The highest cost until the deadline, None if it is unknown.

        cost_lines: Sentences about the deadline, and what the cost consists of.

        other_types: The cheapest offers of other machine types for the same size.

        other_sizes: The best offers for the next smaller and the next larger size.

        max_hours, max_cost_usd, max_hourly_usd: The limits max_hours, max_cost and
            max_price of onebox.toml, None if there is none.

        identity: What the job may act as in the cloud, None for nothing.
    """

    headline: tuple[str, ...]
    offer: PricedOffer
    exists: bool
    deadline: float
    at_most_usd: float | None
    cost_lines: tuple[str, ...]
    other_types: tuple[PricedOffer, ...]
    other_sizes: tuple[PricedOffer, ...]
    max_hours: float
    max_cost_usd: float | None
    max_hourly_usd: float | None
    identity: str | None


@dataclass(frozen=True)
class PlannedDownload:
    """
    The data that the box downloads itself.

    Attributes:
        sources: The addresses, without their queries.

        files, bytes: The number of all objects, and their size.

        missing, missing_bytes: Those of them that the box does not have.

        deleted: How many files of earlier downloads are deleted on the box.

        bytes_per_second: The rate of the last download, None if it is unknown.
    """

    sources: tuple[str, ...]
    files: int
    bytes: int
    missing: int
    missing_bytes: int
    deleted: int
    bytes_per_second: float | None


@dataclass(frozen=True)
class PlannedPush:
    """
    The files that are pushed.

    Attributes:
        files, bytes: The number of all files, and their size.

        changed: The names of the files that differ on the box, None if that is unknown
            because the box does not run.

        deleted: The names of the files that are deleted on the box.

        sent_bytes: The size of the files whose contents are sent.

        folders: The size in bytes of the folders of these files, and of big files of
            the project folder itself, by name, the biggest first.

        bytes_per_second: The rate of the last push, None if it is unknown.

        downloads: What the box downloads itself; None if that is nothing.
    """

    files: int
    bytes: int
    changed: tuple[str, ...] | None
    deleted: tuple[str, ...]
    sent_bytes: int
    folders: Mapping[str, int]
    bytes_per_second: float | None
    downloads: PlannedDownload | None = None


@dataclass(frozen=True)
class PlannedUnits:
    """
    The units of `map`.

    Attributes:
        count: The number of units that run, 0 if it is not known yet; *total* is the
            number of all.

        at_once: How many run at once, None if the box is unknown.

        commands: The number of each unit that runs, and its command.

        boxes: The name of each box and the numbers of its units, if there are several.
    """

    count: int
    total: int
    at_once: int | None
    commands: tuple[tuple[int, str], ...]
    boxes: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, repr=False)
class Plan:
    """
    What a command line would do; every part has been found without changing anything.

    Attributes:
        title: The project and the name of the box.

        provider: The name of the provider.

        size: The name of the size.

        command: The job's command, None if there is none.

        box: The box, None if it is unknown or not needed.

        steps: The stages in their order, and "packages", the update of a live box.

        push: What is pushed, None if that is unknown or if nothing is pushed.

        outputs: The paths that are fetched after the job, *checkpoints* those that are
            fetched during the job too.

        questions: What is asked at a terminal before something happens.

        notes: What may go wrong without being refused, or may not be expected.

        refusals: Why it would not start, the first reason first.

        warnings: What may be wrong with the words of the command.

        units: The units of `map`, None for another plan.
    """

    title: str
    provider: str
    size: str
    command: str | None
    box: PlannedBox | None
    steps: tuple[PlannedStep, ...]
    push: PlannedPush | None
    outputs: tuple[str, ...]
    checkpoints: tuple[str, ...]
    questions: tuple[str, ...]
    notes: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    warnings: tuple[str, ...] = ()
    units: PlannedUnits | None = None

    def __repr__(self) -> str:
        cost = None if self.box is None else self.box.at_most_usd
        text = "cost unknown" if cost is None else f"at most {formatting.money(cost)}"
        if self.refusals:
            text = f"would not start: {self.refusals[0].message}"
        return f"<Plan for {self.title}: {self.size} on {self.provider}, {text}>"

    @property
    def exit_code(self) -> int:
        """Return 0 if the command would start, else the exit code of its error."""
        return self.refusals[0].exit if self.refusals else 0

    def spelled(self, spell: Callable[[str], str]) -> Plan:
        """Return the plan with all texts that may name a command changed by *spell*."""
        steps = [replace(step, reason=spell(step.reason)) for step in self.steps]
        refusals = [
            replace(one, message=spell(one.message), next=spell(one.next))
            for one in self.refusals
        ]
        return replace(
            self,
            steps=tuple(steps),
            questions=tuple(map(spell, self.questions)),
            refusals=tuple(refusals),
        )
