"""
onebox: run a heavy data-science job on one big machine instead of a cluster.

It is a Makefile-style collection of Invoke tasks. Write in a project's `tasks.py`:

    from onebox import *

or, in a namespace beside your own tasks:

    ns = Collection(train, box=onebox.ns)
"""

from __future__ import annotations

import sys

from onebox import early_interrupt, standard_streams

__version__ = "0.1.0"

early_interrupt.begin()
standard_streams.reserve()

# Let Python write bytecode during the imports below. Invoke disables that, and uv and
# editable installs write no bytecode, so every `inv` would compile these modules again.
_before, sys.dont_write_bytecode = (
    sys.dont_write_bytecode,
    # Writing bytecode stays disabled if the user has disabled it by variable or flag.
    bool(sys.flags.dont_write_bytecode),
)

from onebox.errors import OneboxError
from onebox.pipeline_tasks import (
    fetch,
    image,
    map_,
    provision,
    push,
    run,
    teardown,
)
from onebox.plugin import stage
from onebox.tasks import (
    cancel,
    cleanup,
    collection,
    doctor,
    exec_,
    export,
    history,
    init,
    logs,
    notebook,
    ns,
    offers,
    plan,
    ssh,
    status,
    top,
)

sys.dont_write_bytecode = _before

# A star import has only `map_`, because `map` would hide Python's own function.
map = map_

# `ns` is left out, because after a star import Invoke would take it as the collection
# of the user's `tasks.py`.
__all__ = [
    "OneboxError",
    "cancel",
    "cleanup",
    "collection",
    "doctor",
    "exec_",
    "export",
    "fetch",
    "history",
    "image",
    "init",
    "logs",
    "map_",
    "notebook",
    "offers",
    "plan",
    "provision",
    "push",
    "run",
    "ssh",
    "stage",
    "status",
    "teardown",
    "top",
]
