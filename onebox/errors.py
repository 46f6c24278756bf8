"""
What can go wrong, and the exit code that says so.

* OneboxError                70  something of ours failed
  x UsageError               64  the command line contradicts itself or the box
    + Unsuitable             64  this candidate will not do; another may
  x InputError               66  a local file is missing or cannot be read
  x ConfigError              78  onebox.toml or an ONEBOX_* variable is wrong
  x StateError               78  our own state cannot be used as it is
  x Busy                     75  another onebox command holds this box
  x Preempted                75  the cloud took the box back
  x OutputsHeld              73  outputs are not all here, so the box is kept
  x Lost                     74  the fate of the job or of the box is not known
    + ConnectionLost         74  the connection broke; what runs, runs on
    + ProtocolError          76  the box sent what no agent of ours sends
  x HostKeyMismatch          76  somebody else answers under the box's address
  x BoxFailed                70  the box did not come up or a set-up step failed
  x ProviderError            70  the provider refused a call
    + NoCapacity             75  none of this size to be had now
    + QuotaExceeded          69  the account may not have this much
    + NotAllowed             77  credentials missing, expired or too weak
    + Throttled              75  too many calls; later
    + Gone                   70  the thing asked for does not exist (any more)
    + Unclear                74  the call may or may not have taken effect
  x JobFailed                 ?  the job's own code, passed on as it is

Codes are those of sysexits.h.
"""

from __future__ import annotations


class OneboxError(Exception):
    """
    Something failed that the user has to know about.

    Args:
        message: What happened, to which box: one plain sentence.

        next: The command, or the two, to type now.

        running: What still runs and what it costs, if anything does.

        cause: The same in few words that name no machine type, place or id: equal
            causes of several candidates are shown as one.
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


class UsageError(OneboxError):
    """The command line contradicts itself, or the box that is there."""

    code = 64


class Unsuitable(UsageError):
    """One candidate cannot serve, or costs more than is allowed; another may do."""


class InputError(OneboxError):
    """A file of the user's is missing, unreadable or not what it should be."""

    code = 66


class ConfigError(OneboxError):
    """onebox.toml or an ONEBOX_* variable cannot be used as written."""

    code = 78


class StateError(OneboxError):
    """Our own state was written by a newer version, or cannot be used."""

    code = 78


class Busy(OneboxError):
    """Another onebox command is working on this box right now."""

    code = 75


class Preempted(OneboxError):
    """The cloud took a spot box back before the job had ended."""

    code = 75


class OutputsHeld(OneboxError):
    """Outputs could not all be brought here and verified, so the box stays."""

    code = 73


class Lost(OneboxError):
    """Nobody can say how the job ended."""

    code = 74


class ConnectionLost(Lost):
    """The connection to the box broke; the job on it is not affected."""


class ProtocolError(Lost):
    """The box sent what no agent of ours sends; nothing of it was used."""

    code = 76


class HostKeyMismatch(OneboxError):
    """The machine that answers is not the box: nothing was sent to it."""

    code = 76


class BoxFailed(OneboxError):
    """The box did not come up, or a step of its set-up failed."""


class ProviderError(OneboxError):
    """The provider refused a call, for a reason that has no class of its own."""


class NoCapacity(ProviderError):
    """The provider has none of this size at the moment."""

    code = 75


class QuotaExceeded(ProviderError):
    """
    The account's limits do not allow it.

    Args:
        limit: The limit's name, as the provider has it.
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
    """Credentials are missing, expired, or do not permit the call."""

    code = 77


class Throttled(ProviderError):
    """The provider asks for fewer calls."""

    code = 75


class Gone(ProviderError):
    """What was asked for does not exist (any more)."""


class Unclear(ProviderError):
    """No clear answer came: the call may or may not have taken effect."""

    code = 74


class JobFailed(OneboxError):
    """The job ended with a code other than 0: the code is passed on as it is."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the job ended with exit {code}")
        self.code = code
