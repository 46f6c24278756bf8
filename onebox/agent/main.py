"""
The entry point of the agent: `serve` a client, or `watch` over the box.

`python3 -I -S <root>/agent.pyz serve` answers requests on stdin, in order, until
the client closes the connection. `… watch` runs from boot to power-off, without a
client. `… session NAME` becomes a shell or a command in the job's folder. `… pool
DIRECTORY` runs the units of a job, whose directory it gets. On a Slurm cluster, `…
login` answers one request of the provider, `… node DIRECTORY` runs a job, and `… task
DIRECTORY` runs a share of its units. The modes for Ray are in `ray.modes`.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def main(small: bool = False) -> None:
    """
    Run the mode that the command line names.

    *small* is set in the small bundle, which lacks the modules of most operations.
    """
    root = os.path.dirname(os.path.abspath(sys.argv[0]))
    # If only root can replace the first agent, an updated agent is stored in the
    # folder `files`, and box.json is in the folder above.
    if not os.path.exists(os.path.join(root, "box.json")):
        root = os.path.dirname(root)
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    # Each mode imports only the modules that it needs. `watch` needs a third of all
    # modules. The small bundle in the user data contains only the modules of `watch`,
    # and `server`.
    if mode == "serve":
        from . import protocol, server

        ops = server.OPS
        if not small:
            from . import host_key
            from .downloads import ops as download_ops
            from .files import file_ops, striping
            from .jobs import engine, job_ops, load, session
            from .units import ops as unit_ops

            ops = {
                **server.OPS,
                **job_ops.OPS,
                **unit_ops.OPS,
                **session.OPS,
                **load.OPS,
                **file_ops.OPS,
                **striping.OPS,
                **download_ops.OPS,
                **host_key.OPS,
            }
            engine.use(_engine)
        server.serve(protocol.Channel(0, 1), root, ops)
    elif mode == "watch":
        from . import watchdog

        watchdog.watch(root)
    elif mode == "session" and len(sys.argv) == 3 and not small:
        from .box import BoxConfig
        from .jobs import session

        session.enter(BoxConfig.load(root), sys.argv[2])
    elif mode in ("node", "task") and len(sys.argv) == 3 and not small:
        from .slurm import node

        run = node.run if mode == "node" else node.run_task
        sys.exit(run(root, sys.argv[2]))
    elif mode == "login" and not small:
        from .slurm import login

        login.answer()
    elif mode.partition("-")[0] == "ray" and not small:
        from .ray import modes

        sys.exit(modes.main(root, sys.argv[1:]))
    elif mode == "pool" and len(sys.argv) == 3 and not small:
        from .box import BoxConfig
        from .jobs import job_request
        from .units import pool

        box = BoxConfig.load(root)
        sys.exit(pool.run(box, sys.argv[2], job_request.own_environment()))
    else:
        raise SystemExit(
            "usage: python3 -I -S %s serve|watch|login|session NAME|pool DIRECTORY"
            "|node DIRECTORY|task DIRECTORY" % sys.argv[0]
        )


def _engine(name: str) -> Any:
    """Return the engine of a box whose jobs a cluster runs."""
    if name == "ray":
        from .ray.engine import Ray

        return Ray()
    from .slurm.engine import Slurm

    return Slurm()
