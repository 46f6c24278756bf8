"""Hold what a command line asks for; decide if the box is torn down at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# The stages that run a job.
JOB_STAGES = ("run", "map")
# The stages after which the command line names a box that is up.
USE_BOX = ("provision", "push", *JOB_STAGES, "fetch", "cancel")


@dataclass(frozen=True)
class UnitFlags:
    """
    What a call of `map` asks for.

    Attributes:
        words: The command as words, empty if there is none.

        line: The command as a line for a shell, "" if there is none.

        over: The parameters of `--over`, each as "NAME=VALUES".

        failed: Whether only the units run that are not done.

        again: Whether all units run, also those that are done.

        limit: At most how many units run, "" for all.

        boxes: On how many boxes they run, "" for the number that [map] has.
    """

    words: tuple[str, ...] = ()
    line: str = ""
    over: tuple[str, ...] = ()
    failed: bool = False
    again: bool = False
    limit: str = ""
    boxes: str = ""

    @classmethod
    def of(cls, words: Sequence[str], arguments: Mapping[str, Any]) -> UnitFlags:
        """Return what a call with these *arguments* asks for; *words* follow `--`."""
        return cls(
            tuple(words),
            arguments["command"],
            tuple(_over_texts(arguments["over"] or ())),
            arguments["failed"],
            arguments["again"],
            str(arguments["limit"] or ""),
            "" if arguments["boxes"] is None else str(arguments["boxes"]),
        )


def _over_texts(over: Sequence[str] | Mapping[str, object]) -> Iterator[str]:
    """Yield the parameters as `--over` has them; Python code may pass a dict."""
    if not isinstance(over, Mapping):
        yield from over
        return
    for name, values in over.items():
        if isinstance(values, Iterable) and not isinstance(values, (str, bytes)):
            texts = [_value_text(value).replace('"', '""') for value in values]
            listed = ",".join([f'"{text}"' for text in texts])
            yield f"{name}={listed}"
        else:
            yield f"{name}={values}"


def _value_text(value: object) -> str:
    """Return a value as onebox.toml writes it: `True` is "true"."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class PythonCall:
    """
    A call of a function of `onebox.api`, which is like a command line of its own.

    Attributes:
        text: The call as messages show it.

        flags: The values of settings by their full names, None for those not given.

        output: Called with each part of the job's output; None means stdout.

        project: The parameter `project` of the call, None if it was not given.
    """

    text: str
    flags: Mapping[str, object]
    output: Callable[[bytes], None] | None = None
    project: str | None = None


@dataclass
class Invocation:
    """
    The command line under way.

    A box is temporary if the chain created it only to run a job. The chain then tears
    it down at its end.

    Attributes:
        command: The command line as typed.

        stages: The onebox stages on the command line, in order.

        has_other_files: Whether stages with another file of settings are on the command
            line.

        keep: Whether to keep the box at the end (`--keep`).

        keep_builder: Whether to keep a builder whose set-up fails (`image --keep`).

        only: Whether the current stage runs without the stages it needs (`--only`).

        queue: Whether the stage that began last waits for a busy box (`--queue`).

        own_command: The command that the stage that began last was given, after `--` or
            by `--command`, as a line of shell; "" if it was given none.

        units: What the stage `map` that the user has called last asks for; None if
            another stage was called last.

        warnings: What may be wrong with the words of the command.

        task: The stage of onebox that the user has called last, "" for a stage of the
            user's own.

        box_requested: Whether the user asked for the box itself (`provision`), not
            only for a job on it.

        job_requested: Whether the chain runs a job, so that the chain must tear down a
            temporary box at its end.

        created_box: Whether this command line created the box.

        dry: Whether this is the copy that a plan uses. A plan owes no teardown.

        leaves_box: Whether a box is still up after the last chain of the command line.

        box_used: Whether a stage of the command line has used the box.

        detached: Whether a job was left running and instructions for it were printed.

        from_python: Whether Python code has called `onebox.api`. Its process must not
            end with the call.

        project: The parameter `project` of that code, None if it was not given.
    """

    command: str
    stages: tuple[str, ...] = ()
    has_other_files: bool = False
    keep: bool = False
    keep_builder: bool = False
    only: bool = False
    queue: bool = False
    own_command: str = ""
    units: UnitFlags | None = None
    warnings: tuple[str, ...] = ()
    task: str = ""
    box_requested: bool = False
    job_requested: bool = False
    created_box: bool = False
    dry: bool = False
    leaves_box: bool = False
    box_used: bool = False
    detached: bool = False
    from_python: bool = False
    project: str | None = None
    # How many bodies of `as_need` are nested at the moment. It is 0 while a stage runs
    # that the user has called.
    _need_depth: int = field(default=0, repr=False)

    def begin(
        self,
        stage: str,
        *,
        only: bool,
        keep: bool,
        own_command: str,
        queue: bool = False,
        units: UnitFlags | None = None,
    ) -> None:
        """Record that a stage begins; *stage* is "" for a stage of the user's own."""
        self.queue = queue
        self.own_command = own_command
        self.keep = self.keep or keep
        self.box_used = self.box_used or stage in USE_BOX
        if stage in JOB_STAGES and not only:
            self.job_requested = True
        if self._need_depth:
            return
        self.units = units
        self.task = stage
        self.only = only
        if stage in ("provision", "notebook"):
            self.box_requested = True

    @contextmanager
    def as_need(self) -> Iterator[None]:
        """Mark the stages that the body calls as needed, not called by the user."""
        self._need_depth += 1
        try:
            yield
        finally:
            self._need_depth -= 1

    @property
    def plans_map(self) -> bool:
        """Return whether the line is `inv plan map`, which is the plan of `map`."""
        return "plan" in self.stages and "map" in self.stages

    @property
    def is_need(self) -> bool:
        """Return whether another stage, not the user, has called the current stage."""
        return bool(self._need_depth)

    def box_replaced(self, earlier_temporary: bool) -> None:
        """
        Record that a new box replaces the present box.

        If the chain does not have to tear down the present box, it keeps the new box.

        Args:
            earlier_temporary: See `owes_teardown`.
        """
        if not self.owes_teardown(earlier_temporary):
            self.box_requested = True

    def box_ended(self) -> None:
        """
        Record that the box is gone.

        A request to keep this box does not apply to the next box.
        """
        self.keep = self.box_requested = self.created_box = self.leaves_box = False

    @property
    def creates_temporary_box(self) -> bool:
        """Return whether a box created now is temporary."""
        return not (self.keep or self.box_requested or "provision" in self.stages)

    def owes_teardown(self, earlier_temporary: bool) -> bool:
        """
        Return whether the chain must tear down the box at its end.

        Args:
            earlier_temporary: Whether an earlier chain created the box as temporary
                and was interrupted before it could tear it down.
        """
        if self.keep or not self.job_requested:
            return False
        if "teardown" in self.stages:
            return True
        return self.creates_temporary_box and (self.created_box or earlier_temporary)

    def removes_box(self, earlier_temporary: bool) -> bool:
        """Return whether the chain removes the box later; see `owes_teardown`."""
        return "teardown" in self.stages or self.owes_teardown(earlier_temporary)
