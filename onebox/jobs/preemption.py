"""Tell whether a box was preempted: the provider took its spot capacity back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from onebox.errors import ProviderError
from onebox.providers.base import Box, BoxState
from onebox.remote.answers import ExitRecord

if TYPE_CHECKING:
    from onebox.context import BoxContext

# How long a box that is going down may take to be off.
STOPPING_SECONDS = 180.0


def taken(
    context: BoxContext, box: Box, *restless: BoxState, ended: bool = False
) -> str:
    """
    Say how a spot box was lost, "" if it was not, or if that cannot be found out.

    One that is off or gone without a word has been taken, unless its own deadline
    had come. In an orderly shutdown the job's record comes here before the
    connection breaks. So if a box has shut down by itself and there is no record,
    its system has crashed; if there is one, the job or its user has shut it down.

    Args:
        restless: States that will not last: to be waited for.

        ended: The job's record is here.
    """
    if not box.offer.spot or context.now() >= box.deadline:
        return ""
    by_provider = "the provider took the box back"
    try:
        now = at_rest(context, box, *restless)
    except ProviderError:
        return ""
    if now is None:
        settled = context.now() - box.created >= context.provider.settle
        return by_provider if settled else ""
    if now.state not in ("stopping", "stopped"):
        return ""
    if now.why in ("", "preempted"):
        return by_provider
    return "the box crashed" if now.why == "poweroff" and not ended else ""


def by_itself(context: BoxContext, box: Box, record: ExitRecord) -> bool:
    """
    Tell whether a job has ended by itself, or was ended by its user.

    A cloud that gives no notice shuts the box down like anybody else does: then
    only its own word tells the two apart.
    """
    if record.cause == "poweroff":
        return not taken(context, box, "running", "stopping", ended=True)
    return record.cause != "preempted"


def at_rest(context: BoxContext, box: Box, *restless: BoxState) -> Box | None:
    """Return a box once it is off or gone, or when it has not gone down for long."""
    restless = restless or ("stopping",)
    until = time.monotonic() + STOPPING_SECONDS
    pause = max(context.provider.poll_interval, 0.2)
    now = context.provider.get(box.id, box.place)
    while now is not None and now.state in restless and time.monotonic() < until:
        time.sleep(pause)
        now = context.provider.get(box.id, box.place)
    return None if now is None or now.state == "gone" else now
