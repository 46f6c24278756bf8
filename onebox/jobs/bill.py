"""Print what a run took and cost."""

from __future__ import annotations

from onebox import formatting
from onebox.context import BoxContext
from onebox.jobs import run_record
from onebox.jobs.receipt import Receipt, costs_of, earlier_boxes
from onebox.providers.costs import total


def show(
    context: BoxContext,
    receipt: Receipt,
    created: float,
    *,
    shared: bool = False,
    kept: bool = False,
) -> None:
    """
    Print the time and cost of a run, and how much CPU and memory its job used.

    Args:
        created: The time (epoch seconds) from which on this run had its last box.

        shared: Whether other runs had the box before.

        kept: Whether the box stays up.
    """
    lifetime = context.now() - created
    limit = context.settings.limits.max_cost
    spent = total(costs_of(receipt, lifetime).values())
    if limit is not None and spent is not None and spent > limit:
        context.screen.warn(
            f"{formatting.money(spent)} is more than [limits] max_cost = "
            f"{formatting.money(limit)}: the egress cost of outputs is known only "
            "after the fetch"
        )
    usage = []
    if receipt.peak.cpu_seconds and receipt.seconds > 0:
        cores = receipt.peak.cpu_seconds / receipt.seconds
        usage.append(f"{cores:.1f} of {receipt.box.cpus} cores on average")
    if receipt.peak.memory:
        peak = formatting.bytes_of(receipt.peak.memory, receipt.box.memory)
        usage.append(f"peak memory {peak}")
    context.screen.say()
    if receipt.exit == 0 and receipt.cause == "exit":
        context.screen.say(_verdict(context, receipt))
    if context.provider.powers_off:
        context.screen.say(cost_line(receipt, lifetime, shared=shared, kept=kept))
    if usage:
        context.screen.say(f"the job used {', '.join(usage)}")


def _verdict(context: BoxContext, receipt: Receipt) -> str:
    """Return one line of text: how long the job took, where outputs and log are."""
    log = (context.job_dir(receipt.job) / "log").relative_to(context.root)
    places = [*filter(None, [context.chain.fetched_to]), f"log: {log}"]
    return f"succeeded in {formatting.seconds(receipt.seconds)} → {', '.join(places)}"


def cost_line(
    receipt: Receipt, lifetime: float, *, shared: bool = False, kept: bool = False
) -> str:
    """
    Return one line of text with the cost of a run; `costs_of` explains *lifetime*,
    `show` explains *shared* and *kept*.
    """
    box, earlier = receipt.box, earlier_boxes(receipt)
    seconds = lifetime + sum(each.seconds for each in earlier)
    costs = costs_of(receipt, lifetime)
    if box.machine_per_hour == 0 and not earlier:
        was_up = "the box has been up" if kept else "the box was up"
        used = "this run used the box" if shared else was_up
        return f"no charge; {used} for {formatting.seconds(seconds)}"
    text = f"{formatting.money(total(costs.values()))} in {formatting.seconds(seconds)}"
    if kept and not shared:
        text = f"the box so far: {text}"
    hourly = total([box.machine_on_demand_per_hour, *box.extras_per_hour.values()])
    boxes = [
        (hourly, lifetime),
        *((each.hourly_on_demand, each.seconds) for each in earlier),
    ]
    on_demand = total(run_record.cost(rate, lived) for rate, lived in boxes)
    if box.spot and on_demand:
        text += f" · on demand it would have been {formatting.money(on_demand)}"
    if earlier:
        text += f", in {len(earlier) + 1} boxes"
    parts = [
        f"{name} {formatting.money(cost)}" for name, cost in costs.items() if cost != 0
    ]
    return f"{text}  ({', '.join(parts)})" if len(parts) > 1 else text
