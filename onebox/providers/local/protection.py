"""What a job in a box on this machine can and cannot reach, in words."""

from __future__ import annotations

from dataclasses import dataclass

from . import mounts, sandbox

# The first Landlock that keeps signals and abstract sockets in the box.
_SCOPES_ABI = 6
_SHARED = "/tmp, /var/tmp and /dev/shm"  # noqa: S108 - words, no path that is used
_OWN = "/tmp, /var/tmp, /dev/shm and /run"  # noqa: S108 - likewise


@dataclass(frozen=True)
class Protection:
    """
    What confines a box: the ABI of Landlock (0: none), and a view of its own.

    *no_view* is why it has no view of the file system of its own, "" if it has.
    """

    landlock: int
    no_view: str

    @property
    def complete(self) -> bool:
        """Whether everything is out of reach that can be."""
        return self.landlock >= _SCOPES_ABI and not self.no_view

    @property
    def note(self) -> str:
        """A short sentence for a new box; "" if its confinement is complete."""
        if self.complete:
            return ""
        return "a job is confined only in part here: inv doctor lists what it reaches"

    @property
    def out_of_reach(self) -> tuple[str, ...]:
        """What a job cannot read, change or signal."""
        view, files = not self.no_view, self.landlock >= sandbox.OLDEST_ABI
        phrases = (
            ("your home folder", view or files),
            ("the content of files outside the box", files and not view),
            ("files outside the box, their modes and times", view),
            (f"{_OWN}, as it has its own", view),
            ("your terminals", view),
            ("your processes", self.landlock >= _SCOPES_ABI),
        )
        return tuple(phrase for phrase, holds in phrases if holds)

    @property
    def in_reach(self) -> tuple[str, ...]:
        """What a job can still read, change, signal or connect to."""
        view, files = not self.no_view, self.landlock >= sandbox.OLDEST_ABI
        phrases = (
            ("all your files", not view and not files),
            (f"files in {_SHARED}", not view and files),
            ("modes and times of your files", not view and files),
            ("your terminals", not view),
            ("your processes", self.landlock < _SCOPES_ABI),
            ("Unix sockets such as Docker's", not view),
            (f"Unix sockets outside your home folder and {_OWN}", view),
            ("the network", True),
        )
        return tuple(phrase for phrase, holds in phrases if holds)

    def describe(self) -> str:
        """Return one line for `inv doctor`."""
        kept, reached = "; ".join(self.out_of_reach), "; ".join(self.in_reach)
        parts = [f"a job cannot reach: {kept}"] if kept else []
        parts.append(f"it can reach: {reached}")
        if self.landlock < sandbox.OLDEST_ABI:
            parts.append("no Landlock here (Linux 5.19 or later)")
        elif self.landlock < _SCOPES_ABI:
            parts.append(f"Landlock's ABI is {self.landlock} (6: Linux 6.12)")
        if self.no_view:
            parts.append(f"no mount namespace: {self.no_view}")
        return ". ".join(part[0].upper() + part[1:] for part in parts)


def here() -> Protection:
    """Return what a box made on this machine now is confined by."""
    return Protection(sandbox.landlock_abi(), mounts.why_not())
