"""
Run the checks of `inv doctor`, and report the error of a failed check in its line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from onebox.errors import (
    ConfigError,
    NotAllowed,
    OneboxError,
    ProviderError,
    QuotaExceeded,
    SetupError,
    UsageError,
)
from onebox.providers.kernel.ssh_access import SSHAccess
from onebox.providers.values import Check

Step = tuple[str, Callable[[], Check]]

_AGAIN = "inv doctor"
# Credentials that expire sooner than this are not reported as good, because a long job
# may still run when they expire.
_SOON_SECONDS = 12 * 3600.0


def run(
    *groups: Sequence[Step],
    each: Callable[[Sequence[Step], Callable[[Step], Check]], list[Check]]
    | None = None,
) -> list[Check]:
    """
    Run all checks, and return one line for each.

    Args:
        groups: The checks, in groups. If a check fails, all groups after its own are
            left out, because their checks could not succeed either. For example, no
            call succeeds if the credentials are wrong.

        each: Applies a function to each check of the last group. A cloud whose client
            can make calls in parallel passes its own function. None means that the
            checks run one after another.
    """
    *required, last = groups
    lines: list[Check] = []
    for group in required:
        lines += [_required(step) for step in group]
        if any(line.ok is False for line in lines):
            return lines
    return lines + (each(last, _line) if each else [_line(step) for step in last])


def credentials_line(
    name: str, holder: str, expires: float | None, now: float, renew: str
) -> Check:
    """
    Return the line of `inv doctor` about credentials that the cloud has accepted.

    Args:
        expires: When the credentials expire (epoch seconds), None if they do not.

        renew: The command that renews them.
    """
    if expires is None:
        return Check(name, True, f"{holder}, without an expiry")
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(expires))
    if expires <= now:
        return Check(name, False, f"{holder}, expired at {at}", renew)
    left = (expires - now) / 3600
    ok = None if expires - now < _SOON_SECONDS else True
    return Check(name, ok, f"{holder}, until {at}, for {left:.1f} hours", renew)


def ssh_line(access: SSHAccess) -> Check:
    """
    Return the line of `inv doctor` about the networks that may reach the ssh port.
    """
    if access.is_private:
        return Check("ssh", True, "from private networks only")
    networks = ", ".join(access.networks())
    if access.is_world:
        detail = f"open to the whole world ({networks}; allow_world_ssh)"
        return Check("ssh", None, detail)
    return Check("ssh", True, f"from {networks}")


def _required(step: Step) -> Check:
    name, look = step
    try:
        return look()
    except OneboxError as error:
        return Check(name, False, error.message, error.next or _AGAIN)


def _line(step: Step) -> Check:
    name, look = step
    try:
        return look()
    except OneboxError as error:
        refused = type(error) is ProviderError or isinstance(
            error, (NotAllowed, QuotaExceeded, UsageError, ConfigError, SetupError)
        )
        # Any other error, such as a missing response or a throttled call, does not
        # show whether a box can be created.
        ok = False if refused else None
        detail = error.message if refused else f"not known: {error.message}"
        return Check(name, ok, detail, error.next or _AGAIN)
