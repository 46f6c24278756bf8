"""
Run jobs from a notebook or a script, with return values and exceptions.

    import onebox.api

    receipt = onebox.api.run("python train.py", vm="large")
    print(receipt.exit_code, receipt.seconds, receipt.cost)

The functions are below the classes; `help(onebox.api.run)` shows one of them:

* `run`: Create the box, push, run the job, fetch its outputs, remove the box.
* `provision`, `push`, `fetch`, `teardown`: One of these steps.
* `logs`, `cancel`: Follow the job of a box, or stop it.
* `plan`, `offers`, `status`, `history`: Return frozen dataclasses, the objects that
  `inv plan --json` and so on print, with the same units. `docs/json.md` has their
  fields. `offers` and `status` return tuples. They print nothing.

Each does what the `inv` task of its name does. It raises the errors of `onebox.errors`,
and never ends the process:

* `JobFailed`: the job's exit code is not 0. The error has `code`, `receipt`, and
  `text`, the end of the job's output.
* another `OneboxError`: its text has what happened, what still runs, and what to do.
* `KeyboardInterrupt`: the job continues on its box; `logs` follows it.

The job's output goes to `sys.stdout`, messages go to `sys.stderr`. Calls in several
threads work at the same time if they use different names; otherwise the later call
raises `Busy`.

All functions have these parameters:

* `name`: Name of the box, for a project with several boxes.
* `project`: The project folder. By default it is the nearest folder with a `tasks.py`
  or `onebox.toml`, from the working directory upwards.
* `provider`: Where the box is: "local" or a cloud.
* `settings`: Further settings by their names in `onebox.toml`, for this call, such as
  `{"limits.max_hours": 2, "run.env": {"SEED": "1"}}`. They replace those in the file.
"""

from __future__ import annotations

from onebox.api.queries import history, offers, plan, status
from onebox.api.steps import (
    cancel,
    fetch,
    logs,
    map,
    provision,
    push,
    run,
    teardown,
)
from onebox.boxes.priced_offer import PricedOffer
from onebox.errors import JobFailed, OneboxError
from onebox.jobs.history import History, HistoryEntry
from onebox.jobs.receipt import OutputCount, Receipt
from onebox.stages.plan_values import (
    Plan,
    PlannedBox,
    PlannedPush,
    PlannedStep,
    PlannedUnits,
    Refusal,
)
from onebox.stages.status_values import BoxJob, BoxStatus
from onebox.units.results import UnitCounts

__all__ = [
    "BoxJob",
    "BoxStatus",
    "History",
    "HistoryEntry",
    "JobFailed",
    "OneboxError",
    "OutputCount",
    "Plan",
    "PlannedBox",
    "PlannedPush",
    "PlannedStep",
    "PlannedUnits",
    "PricedOffer",
    "Receipt",
    "Refusal",
    "UnitCounts",
    "cancel",
    "fetch",
    "history",
    "logs",
    "map",
    "offers",
    "plan",
    "provision",
    "push",
    "run",
    "status",
    "teardown",
]
