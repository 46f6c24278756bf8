"""Find out whether a spot box was preempted, that is, taken back by its provider."""

from __future__ import annotations

from onebox.context import BoxContext
from onebox.errors import ProviderError
from onebox.providers.values import Box, BoxState
from onebox.remote.job_answers import ExitRecord

# How long to wait until a box that shuts down is off.
STOPPING_SECONDS = 180.0


def preemption_reason(
    context: BoxContext, box: Box, *passing: BoxState, ended: bool = False
) -> str:
    """
    Return a phrase that says how a spot box was preempted.

    Return "" if the box was not preempted or if that is unknown.

    A spot box that is off or gone counts as preempted, unless its deadline has passed
    or the provider gives another reason. If the provider's reason is that the box shut
    down by itself, the exit record decides. An orderly shutdown delivers this record
    before the connection breaks. If the record has been received, the job or its user
    shut the box down, which is no preemption. If it has not, the operating system
    crashed, which counts as a preemption.

    Args:
        passing: The function waits until the box has left these states. If no state is
            given, it waits until the box has left "stopping".

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

    If the cause in *record* is "poweroff", the provider's reason for the shutdown
    decides, because on the box a preemption without notice looks like any other
    shutdown.
    """
    if record.cause == "poweroff":
        return not preemption_reason(context, box, "running", "stopping", ended=True)
    return record.cause != "preempted"


def wait_until_at_rest(context: BoxContext, box: Box, *passing: BoxState) -> Box | None:
    """
    Wait until a box has left the states *passing*, and return the box as it is then.

    If no state is given, wait until the box has left "stopping". After
    `STOPPING_SECONDS` the box is returned whatever its state. None means that the box
    is gone.
    """
    states = passing or ("stopping",)
    current = context.boxes.wait_while(box, STOPPING_SECONDS, *states)
    return None if current is None or current.state == "gone" else current
