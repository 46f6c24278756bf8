"""What one command line asks for, beside its options: the rules of who stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace


@dataclass
class Invocation:
    """
    What is known so far of the command line under way.

    Attributes:
        command: The line as it was typed.

        named: Every stage of onebox's own on it, in order.

        keep: `--keep` was said: whatever is there stays.

        keep_builder: `image --keep` was said: a builder whose set-up fails stays.

        only: The stage under way works alone, on what is there.

        own_command: The line brings its own command to run.

        box_wanted: The user asked for the box itself, not only for what is
            done on it.

        job_wanted: A job is to run: the chain that brings it up owes the end.

        made_box: The box was made by this line.

        dry: It is a copy that a plan works on: nothing is owed at its end.

        stays: A box is left up, so far: to be said when nothing comes after.

        box_used: A stage on the line has worked with the box, not only looked at it.

        detached: A job was left running, and the user was told how to come back.
    """

    command: str
    named: tuple[str, ...] = ()
    keep: bool = False
    keep_builder: bool = False
    only: bool = False
    own_command: bool = False
    box_wanted: bool = False
    job_wanted: bool = False
    made_box: bool = False
    dry: bool = False
    stays: bool = False
    box_used: bool = False
    detached: bool = False
    _needs: int = field(default=0, repr=False)

    def supposed(self) -> Invocation:
        """Return a copy, for a plan: what it assumes is not asked for by the line."""
        return replace(self, dry=True)

    def begin(self, stage: str, *, only: bool, keep: bool, own_command: bool) -> None:
        """Take note of a stage that begins."""
        self.own_command = own_command
        self.keep = self.keep or keep
        self.box_used = self.box_used or stage in ("provision", "push", "run", "fetch")
        if self._needs:
            return
        self.only = only
        if stage == "provision":
            self.box_wanted = True
        if stage == "run" and not only:
            self.job_wanted = True

    @contextmanager
    def as_need(self) -> Iterator[None]:
        """Mark the stages called in here as wanted by another stage."""
        self._needs += 1
        try:
            yield
        finally:
            self._needs -= 1

    def box_ended(self) -> None:
        """Take note that the box is gone: what was said of it holds for no other."""
        self.keep = self.box_wanted = self.made_box = self.stays = False

    @property
    def makes_for_itself(self) -> bool:
        """Tell whether a box made now is the chain's own, not the user's wish."""
        return not (self.keep or self.box_wanted or "provision" in self.named)

    def owes_teardown(self, ours_to_end: bool) -> bool:
        """
        Tell whether the box goes when the chain is through.

        *ours_to_end* says that an earlier chain made the box for itself, and
        was interrupted before it could end it.
        """
        if self.keep or not self.job_wanted:
            return False
        if "teardown" in self.named:
            return True
        return self.makes_for_itself and (self.made_box or ours_to_end)
