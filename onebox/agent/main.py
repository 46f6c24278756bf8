"""
The agent's two lives: `serve` a client, and `watch` over the box.

`python3 -I -S <root>/agent.pyz serve` answers requests on stdin, in order, until
the client hangs up. `… watch` runs from boot to power-off, for nobody.
"""

from __future__ import annotations

import os
import sys


def main(small: bool = False) -> None:
    """Do what the command line says: the whole of it is a constant."""
    root = os.path.dirname(os.path.abspath(sys.argv[0]))
    # Where only root could replace the first agent, a later one lies in `files`.
    if not os.path.exists(os.path.join(root, "box.json")):
        root = os.path.dirname(root)
    mode = sys.argv[1] if len(sys.argv) == 2 else ""
    # Each mode loads its own half: a watch needs a third of the modules, so
    # that a bundle of those alone, the *small* one, can watch from the first
    # moment of a boot.
    if mode == "serve":
        from . import protocol, server

        ops = server.OPS
        if not small:
            from . import operations

            ops = operations.OPS
        server.serve(protocol.Channel(0, 1), root, ops)
    elif mode == "watch":
        from . import watchdog

        watchdog.watch(root)
    else:
        raise SystemExit("usage: python3 -I -S %s serve|watch" % sys.argv[0])
