"""What a job in a local box can and cannot reach, in words."""

from __future__ import annotations

from dataclasses import dataclass

from . import mounts, sandbox

# The first Landlock version that confines signals and abstract sockets.
_SCOPES_ABI = 6
_SHARED = "/tmp, /var/tmp and /dev/shm"  # noqa: S108 - words, not a path that is used
_OWN = "/tmp, /var/tmp, /dev/shm and /run"  # noqa: S108 - likewise


@dataclass(frozen=True)
class Protection:
    """
    What confines a box.

    *landlock* is Landlock's ABI version, 0 without Landlock. *no_view* is why the box
    has
    no mount namespace, "" if it has one.
    """

    landlock: int
    no_view: str

    @property
    def complete(self) -> bool:
        """Whether the box is confined as much as onebox can."""
        return self.landlock >= _SCOPES_ABI and not self.no_view

    @property
    def note(self) -> str:
        """A note for a new box, "" if its confinement is complete."""
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
        blocked, reached = "; ".join(self.out_of_reach), "; ".join(self.in_reach)
        parts = [f"a job cannot reach: {blocked}"] if blocked else []
        parts.append(f"it can reach: {reached}")
        if self.landlock < sandbox.OLDEST_ABI:
            parts.append("no Landlock here (Linux 5.19 or later)")
        elif self.landlock < _SCOPES_ABI:
            parts.append(f"Landlock's ABI is {self.landlock} (6: Linux 6.12)")
        if self.no_view:
            parts.append(f"no mount namespace: {self.no_view}")
        return ". ".join(part[0].upper() + part[1:] for part in parts)


def here() -> Protection:
    """Return the confinement of a box that is created on this machine now."""
    return Protection(sandbox.landlock_abi(), mounts.why_not())
