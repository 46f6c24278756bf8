"""
Define the errors of onebox and their exit codes, which follow sysexits.h.

Each kind of fault has one code. What is missing before a run can begin (a library, a
program, a region, credentials) has 78, like a wrong setting; what the provider refuses
to valid credentials has 77.

* OneboxError                70  an internal step failed
  x UsageError               64  the command line contradicts itself or the box
    + Unsuitable             64  this offer cannot be used; another one may be
  x InputError               66  a local file is missing or unreadable
  x ConfigError              78  onebox.toml or an ONEBOX_* variable is wrong
  x SetupError               78  a library, program or required setting is missing
  x StateError               78  the state directory is unusable
  x Busy                     75  another onebox command or a job uses the box
  x Preempted                75  the cloud took the spot box back
  x OutputsHeld              73  some outputs were not fetched, so the box is kept
  x NotWritten               74  stdout cannot be written, such as on a full disk
  x Lost                     74  the outcome of the job or the box is unknown
    + ConnectionLost         74  the connection broke; the job keeps running
    + ProtocolError          76  the box sent a message that is not valid
  x HostKeyMismatch          76  another machine answers at the box's address
  x BoxFailed                70  the box did not boot, or a set-up step failed
  x ProviderError            70  the provider refused a call
    + NoCapacity             75  the provider has no capacity for this offer
    + QuotaExceeded          69  a quota of the account is exceeded
    + NotAllowed             77  credentials are expired or insufficient
      + NoCredentials        78  there are no credentials
    + Throttled              75  the provider limits the rate of calls
    + Gone                   70  the object does not exist
    + Unclear                74  the call may or may not have taken effect
  x JobFailed                 ?  the job failed; the exit code is the job's
"""

from __future__ import annotations

from typing import Any


class OneboxError(Exception):
    """
    A failure that is reported to the user.

    Args:
        message: What happened, and to which box, in one sentence.

        next: The command to type next, or two commands.

        running: What is still running and what it costs, "" if nothing is.

        cause: A short form of the message without machine type, place or id, so that
            equal causes of several offers can be shown once.
    """

    code = 70

    def __init__(
        self, message: str, *, next: str = "", running: str = "", cause: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next = next
        self.running = running
        self.cause = cause

    def in_full(self) -> OneboxError:
        """Add what still runs and what to do next to the text; return the error."""
        next = self.next.replace("\n", "\n        ")
        more = [self.running, next and f"next: {next}"]
        self.args = ("\n  ".join([self.message, *filter(None, more)]),)
        return self


class UsageError(OneboxError):
    """The command line contradicts itself or the existing box."""

    code = 64


class Unsuitable(UsageError):
    """One offer cannot be used or exceeds a limit; another offer may be used."""


class InputError(OneboxError):
    """A file of the user is missing, unreadable or invalid."""

    code = 66


class ConfigError(OneboxError):
    """
    onebox.toml, an ONEBOX_* variable or a flag has an invalid value.

    Attributes:
        source: The variable or flag, or the line of a file such as "onebox.toml:3".

        meant: The value that was probably meant, "" if that is not known.
    """

    code = 78
    source = meant = ""


class SetupError(OneboxError):
    """
    A library, a program or a required setting is missing.

    `inv doctor` raises it too, if a check fails.
    """

    code = 78


class StateError(OneboxError):
    """The state directory was written by a newer version, or is unusable."""

    code = 78


class Busy(OneboxError):
    """Another onebox command holds the lock of this box, or a job runs on it."""

    code = 75


class Preempted(OneboxError):
    """The cloud took a spot box back before the job ended."""

    code = 75


class OutputsHeld(OneboxError):
    """Some outputs were not fetched and verified, so the box is kept."""

    code = 73


class NotWritten(OneboxError):
    """Stdout, such as a file that `>` names, could not be written to its end."""

    code = 74


class Lost(OneboxError):
    """The outcome of the job or the box is unknown."""

    code = 74


class ConnectionLost(Lost):
    """The connection to the box broke; the job keeps running."""


class ProtocolError(Lost):
    """The box sent a message that is not valid; it was discarded."""

    code = 76


class HostKeyMismatch(OneboxError):
    """The machine at the box's address has another host key; nothing was sent to it."""

    code = 76


class BoxFailed(OneboxError):
    """The box did not boot, or a step of its set-up failed."""


class ProviderError(OneboxError):
    """The provider refused a call for a reason without an error class of its own."""


class NoCapacity(ProviderError):
    """The provider has no capacity for this offer at the moment."""

    code = 75


class QuotaExceeded(ProviderError):
    """
    A quota of the account is exceeded.

    Args:
        limit: The provider's name of the quota.
    """

    code = 69

    def __init__(
        self,
        message: str,
        *,
        next: str = "",
        running: str = "",
        cause: str = "",
        limit: str = "",
    ) -> None:
        super().__init__(message, next=next, running=running, cause=cause)
        self.limit = limit


class NotAllowed(ProviderError):
    """Credentials are expired or insufficient for the call."""

    code = 77


class NoCredentials(NotAllowed):
    """There are no credentials that can be used."""

    code = 78


class Throttled(ProviderError):
    """The provider limits the rate of calls."""

    code = 75


class Gone(ProviderError):
    """The object does not exist, or no longer exists."""


class Unclear(ProviderError):
    """The answer was lost: the call may or may not have taken effect."""

    code = 74


class JobFailed(OneboxError):
    """
    The job ended with an exit code other than 0, which becomes ours.

    Attributes:
        code: The job's exit code.

        job: The id of the job.

        receipt: The job's `onebox.api.Receipt`, None if it has none. *text* is the end
            of the job's output. `onebox.api` sets both.
    """

    def __init__(self, code: int, job: str = "") -> None:
        super().__init__(f"the job ended with exit {code}")
        self.code = code
        self.job = job
        self.receipt: Any = None
        self.text = ""
