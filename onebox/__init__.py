"""
onebox: run a heavy data-science job on one big machine instead of a cluster.

A Makefile-style collection of Invoke tasks. In a project's `tasks.py`:

    from onebox import *

or, under a namespace beside tasks of your own:

    ns = Collection(train, box=onebox.ns)
"""

from __future__ import annotations

import sys

__version__ = "0.1.0"

# Invoke switches bytecode off, and some installers (uv) and editable installs
# leave none: then these modules would be compiled anew at every `inv`.
_before, sys.dont_write_bytecode = (
    sys.dont_write_bytecode,
    # What the user has switched off by variable or flag stays off.
    bool(sys.flags.dont_write_bytecode),
)

from onebox.errors import OneboxError
from onebox.plugin import stage
from onebox.tasks import (
    cancel,
    doctor,
    fetch,
    image,
    init,
    logs,
    ns,
    plan,
    provision,
    push,
    run,
    ssh,
    status,
    sweep,
    teardown,
)

sys.dont_write_bytecode = _before

# Not `ns`: a star import would make it the importing module's whole collection.
__all__ = [
    "OneboxError",
    "cancel",
    "doctor",
    "fetch",
    "image",
    "init",
    "logs",
    "plan",
    "provision",
    "push",
    "run",
    "ssh",
    "stage",
    "status",
    "sweep",
    "teardown",
]
