"""The values that a plan consists of; `plan` finds them, `plan_print` prints them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onebox.providers.values import Offer

Action = Literal["run", "up to date", "no", "later", "unknown"]


@dataclass(frozen=True)
class Refusal:
    """
    A reason for which a stage would not start.

    *step* is the stage in whose line the reason is printed. *message* and *next* are
    those of the error that the stage would raise, *code* is its exit code.
    """

    step: str
    message: str
    next: str
    code: int


@dataclass(frozen=True)
class Step:
    """
    What would happen to a stage, and why.

    An image that is out of date is built "later" if the live box can be updated.
    """

    name: str
    action: Action
    reason: str


@dataclass(frozen=True)
class Machine:
    """
    The box that is used or created.

    Attributes:
        offer: The machine type, its place and its price.

        exists: Whether the box is up already.

        priced: When the price was valid, such as "now".

        deadline: When the box powers itself off (epoch seconds).

        ceiling: The highest cost in USD until the deadline, None if it is unknown.

        costs: Sentences about the deadline, and what the cost consists of.

        other_types: The cheapest offers of other machine types for the same size.

        other_sizes: The best offers for the next smaller and the next larger size.

        max_hours, max_cost, max_price: The limits that onebox.toml sets.
    """

    offer: Offer
    exists: bool
    priced: str
    deadline: float
    ceiling: float | None
    costs: tuple[str, ...]
    other_types: tuple[Offer, ...]
    other_sizes: tuple[Offer, ...]
    max_hours: float
    max_cost: float | None
    max_price: float | None


@dataclass(frozen=True)
class Push:
    """
    The files that are pushed.

    Attributes:
        files, bytes: The number of all files, and their size.

        changed: The names of the files that differ on the box, None if that is unknown
            because the box does not run.

        deleted: The names of the files that are deleted on the box.

        sent_bytes: The size of the files whose contents are sent.

        folders: The folders of these files, and big files of the project folder itself,
            with their sizes, the biggest first.

        rate: The rate of the last push in bytes a second, None if it is unknown.
    """

    files: int
    bytes: int
    changed: tuple[str, ...] | None
    deleted: tuple[str, ...]
    sent_bytes: int
    folders: tuple[tuple[str, int], ...]
    rate: float | None


@dataclass(frozen=True)
class Plan:
    """
    What a command line would do; every part has been found without changing anything.

    Attributes:
        title: The project and the name of the box.

        provider: The name of the provider.

        size: The name of the size.

        command: The job's command, "" if there is none.

        machine: The box, None if it is unknown or not needed.

        steps: The stages in their order.

        push: What is pushed, None if that is unknown or if nothing is pushed.

        outputs: The paths that are fetched after the job, *checkpoints* those that are
            fetched during the job too.

        questions: What is asked at a terminal before something happens.

        refusals: Why it would not start, the first reason first.
    """

    title: str
    provider: str
    size: str
    command: str
    machine: Machine | None
    steps: tuple[Step, ...]
    push: Push | None
    outputs: tuple[str, ...]
    checkpoints: tuple[str, ...]
    questions: tuple[str, ...]
    refusals: tuple[Refusal, ...]

    @property
    def exit_code(self) -> int:
        """Return 0 if the command would start, else the exit code of its error."""
        return self.refusals[0].code if self.refusals else 0
