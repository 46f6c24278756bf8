"""Describe how far the units of a job are, in the live line."""

from __future__ import annotations

from onebox import formatting
from onebox.remote.job_answers import UnitProgress


def ending(progress: UnitProgress) -> str:
    """Return how the units of a job have ended, in a few words."""
    text = f"{progress.done:,} of {formatting.count(progress.total, 'unit')} done"
    text += f", {progress.failed:,} failed" if progress.failed else ""
    return text + (f", {progress.left:,} left" if progress.left else "")


def describe(progress: UnitProgress) -> list[str]:
    """
    Return the parts of the live line: what is done, at which rate, and the time left.

    The rate is that of the units which run at once, at the mean time of those that are
    done. So both are unknown before the first one is done.
    """
    states = [f"{progress.done:,} of {progress.total:,} done"]
    for number, what in ((progress.failed, "failed"), (progress.running, "running")):
        states += [f"{number:,} {what}"] if number else []
    parts = [", ".join(states)]
    if progress.mean and progress.running:
        at_once = max(progress.at_once, 1)
        minute = 60 * at_once / progress.mean
        rate = f"{minute:,.0f}" if minute >= 10 else f"{minute:.1f}"
        waiting = (progress.left - progress.running / 2) * progress.mean / at_once
        parts += [f"{rate}/min, {formatting.seconds(waiting)} left"]
    return parts
