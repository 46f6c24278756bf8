"""Compute the environment of a job, and of a command that runs beside it."""

from __future__ import annotations

from onebox import formatting
from onebox.context import BoxContext
from onebox.errors import UsageError
from onebox.images import python_env

# Python buffers a few kilobytes of output when it writes to a pipe, which would delay
# the live output. In [run], `env = { PYTHONUNBUFFERED = "" }` restores the buffer.
LIVE = {"PYTHONUNBUFFERED": "1"}


def variables(context: BoxContext) -> dict[str, str]:
    """Return the variables that onebox and `[run] env` set, by name."""
    return {
        **LIVE,
        **python_env.job_variables(context.settings.image),
        **context.settings.run.env,
    }


def secret_values(context: BoxContext) -> dict[str, str]:
    """
    Return the values of the variables that `[run] secrets` names, by name.

    Raises:
        UsageError: One of the variables is not set.
    """
    names = context.settings.run.secrets
    missing = [name for name in names if name not in context.environ]
    if missing:
        raise UsageError(
            f"[run] secrets: {formatting.first_names(missing)} is not in the "
            "environment",
            next=f"export {missing[0]}=…",
        )
    return {name: context.environ[name] for name in names}
