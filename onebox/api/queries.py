"""The functions of `onebox.api` that return values, and change and print nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from onebox import tasks
from onebox.api.calls import call, command_line, with_short_traceback
from onebox.boxes.priced_offer import PricedOffer
from onebox.jobs.history import History
from onebox.stages.plan_values import Plan
from onebox.stages.status_values import BoxStatus


@with_short_traceback
def plan(
    command: str | Sequence[str | os.PathLike[str]] | None = None,
    *,
    vm: str | None = None,
    provider: str | None = None,
    name: str | None = None,
    spot: bool | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Plan:
    """
    Return what `run` would do, cost and refuse, and why.

    For the parameters, see `run`. What `run` would refuse is in `refusals` of the plan;
    OneboxError is raised only if the settings are wrong.
    """
    flags = {"vm": vm, "provider": provider, "name": name, "spot": spot}
    line, words = command_line(command)
    with call("plan", project, flags, settings, None, words, line) as c:
        found: Plan = tasks.plan(c, command=line)
    return found


@with_short_traceback
def offers(
    *,
    vm: str | None = None,
    provider: str | None = None,
    spot: bool | None = None,
    limit: int | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> tuple[PricedOffer, ...]:
    """
    Return the machine types that fit *vm*, with their prices, best first.

    Args:
        vm, provider, spot, project, settings: See `run`.

        limit: The number of offers to return; None returns all.

    Raises:
        OneboxError: The provider has no offer, or does not answer.
    """
    flags = {"vm": vm, "provider": provider, "spot": spot}
    with call("offers", project, flags, settings) as c:
        found: tuple[PricedOffer, ...] = tasks.offers(c, limit=str(limit or 0))
    return found


@with_short_traceback
def status(
    *,
    name: str | None = None,
    provider: str | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> tuple[BoxStatus, ...]:
    """
    Return the boxes of this project with their jobs, by name; empty if there is none.

    Boxes at other providers are included, also if their provider does not answer. With
    *name*, only boxes of this name are returned. For the other parameters, see `run`.

    Raises:
        OneboxError: The provider does not answer, or the settings are wrong.
    """
    flags = {"provider": provider, "name": name}
    with call("status", project, flags, settings) as c:
        found: tuple[BoxStatus, ...] = tasks.status(c)
    return found


@with_short_traceback
def history(
    *,
    limit: int | None = None,
    project: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> History:
    """
    Return the jobs of this project, newest first, also those of boxes that are gone.

    Args:
        limit: The number of jobs to return; None returns all.

        project, settings: See `run`.

    Raises:
        OneboxError: The settings are wrong.
    """
    with call("history", project, {}, settings) as c:
        found: History = tasks.history(c, limit=str(limit or 0))
    return found
