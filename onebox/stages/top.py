"""Show what the box and its job use now: CPU, memory, disk and GPUs."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.jobs import load as agent_load
from onebox.boxes import bring_up
from onebox.errors import UsageError
from onebox.jobs import job_limits
from onebox.providers.values import Box
from onebox.remote.channel import AgentError
from onebox.remote.load import GpuLoad, Load
from onebox.signals import Interrupted
from onebox.stages import notebook_files

if TYPE_CHECKING:
    from onebox.context import BoxContext

# The time in seconds from one refresh to the next.
REFRESH = 2.0
HEAD = ("", "cpu", "memory", "disk")


def perform(context: BoxContext, *, once: bool) -> None:
    """
    Print the load of the box and of its job, repeatedly on a terminal.

    Ctrl-C ends it.

    Args:
        once: Print the load once. In a pipe it is always printed once.
    """
    box = bring_up.wait_until_reachable(context)
    with context.screen.refreshed_table() as show:
        try:
            while True:
                load = measure(context, box)
                show(_title(context, box, load), HEAD, _rows(context, box, load))
                if once or not context.screen.out.is_terminal:
                    return
                time.sleep(REFRESH - agent_load.SPAN)
        except Interrupted as stop:
            if stop.number != signal.SIGINT:
                raise


def measure(context: BoxContext, box: Box) -> Load:
    """
    Return the load of a box.

    Raises:
        UsageError: The box has an older agent, which cannot measure it, or its job runs
            on no single node.
    """
    try:
        answer = context.call_resuming(lambda channel: channel.request("load"), box)
    except AgentError as error:
        if error.kind == "load":
            raise UsageError(
                f"{context.title}: {error.message}", next="inv status"
            ) from error
        if error.kind != "op":
            raise
        raise UsageError(
            f"{context.title} has an older agent, which cannot measure its load",
            next="inv ssh -- top",
        ) from error
    return Load.parse(answer)


def _title(context: BoxContext, box: Box, load: Load) -> str:
    parts = [context.title, box.id, formatting.rate(box.offer.hourly)]
    if load.job:
        spent = formatting.seconds(load.job_seconds)
        job = f"job {load.job} running {spent}"
        if load.job_processes is not None:
            count = formatting.count(load.job_processes, "process", "processes")
            job += f", {count}"
    else:
        notebook = notebook_files.describe_open(context)
        job = "; ".join(filter(None, ["no job is running", notebook]))
    return f"{'   '.join(parts)}\n{job}"


def _rows(context: BoxContext, box: Box, load: Load) -> list[list[str]]:
    used = load.disk_total - load.disk_free
    rows = [
        [
            "box",
            _cores(load.cpu, load.cpus),
            formatting.bytes_of(load.memory, load.memory_total),
            formatting.bytes_of(used, load.disk_total),
        ]
    ]
    if load.job:
        cpus, total = job_limits.of(context, box, load.cpus, load.memory_total)
        memory = formatting.bytes_of(load.job_memory, total)
        rows.append(["job", _cores(load.job_cpu, cpus), memory, ""])
    rows += [_gpu_row(number, gpu) for number, gpu in enumerate(load.gpus)]
    return rows


def _gpu_row(number: int, gpu: GpuLoad) -> list[str]:
    percent = "?" if gpu.percent is None else f"{gpu.percent} %"
    memory = "?"
    if gpu.memory is not None and gpu.memory_total is not None:
        memory = formatting.bytes_of(gpu.memory, gpu.memory_total)
    return [f"GPU {number}", percent, memory, gpu.name]


def _cores(busy: float, cpus: int) -> str:
    return f"{max(busy, 0.0):.1f} of {cpus} cores"
