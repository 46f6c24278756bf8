"""Find out whether a spot box was preempted: the provider took its capacity back."""

from __future__ import annotations

from onebox.context import BoxContext
from onebox.errors import ProviderError
from onebox.providers.values import Box, BoxState
from onebox.remote.answers import ExitRecord

# How long to wait until a box that shuts down is off.
STOPPING_SECONDS = 180.0


def preemption_reason(
    context: BoxContext, box: Box, *passing: BoxState, ended: bool = False
) -> str:
    """
    Return how a spot box was preempted, "" if it was not or if that is unknown.

    A spot box that is off or gone counts as preempted, unless its deadline had
    passed or the provider gives another reason. If the box shut down by itself, the
    exit record decides: an orderly shutdown delivers it before the connection
    breaks. With a record, the job or its user shut the box down; without one, the
    operating system crashed.

    Args:
        passing: The states that the box has to leave first; "stopping" if no state is
            given.

        ended: Whether the job's exit record has been received.
    """
    if not box.offer.spot or context.now() >= box.deadline:
        return ""
    preempted = "the provider took the box back"
    try:
        current = wait_until_at_rest(context, box, *passing)
    except ProviderError:
        return ""
    if current is None:
        is_listed = context.now() - box.created >= context.provider.consistency_lag
        return preempted if is_listed else ""
    if current.state not in ("stopping", "stopped"):
        return ""
    if current.why in ("", "preempted"):
        return preempted
    return "the box crashed" if current.why == "poweroff" and not ended else ""


def ended_by_itself(context: BoxContext, box: Box, record: ExitRecord) -> bool:
    """
    Return whether a job exited by itself or was ended by its user.

    On the box, a preemption without notice looks like any other shutdown. If the cause
    is "poweroff", the provider's reason for the shutdown therefore decides.
    """
    if record.cause == "poweroff":
        return not preemption_reason(context, box, "running", "stopping", ended=True)
    return record.cause != "preempted"


def wait_until_at_rest(context: BoxContext, box: Box, *passing: BoxState) -> Box | None:
    """
    Return a box once it has left the given states, or after `STOPPING_SECONDS`.

    None means that the box is gone.
    """
    states = passing or ("stopping",)
    current = context.boxes.wait_while(box, STOPPING_SECONDS, *states)
    return None if current is None or current.state == "gone" else current
