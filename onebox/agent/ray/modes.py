"""The modes of the agent for Ray: on this machine, and on the nodes of a cluster."""

from __future__ import annotations

from typing import List


def main(root: str, words: List[str]) -> int:
    """
    Run the mode that *words* name, and return its exit code.

    `ray` is the entry point of a job on a node, `ray-units` the driver of its units,
    and `ray-unit` the supervisor of one of them. On this machine `ray-watch` watches a
    job.
    """
    mode, rest = words[0], words[1:]
    if mode == "ray-watch":
        from . import watch

        return watch.run(root, *rest)
    if mode == "ray-units":
        from . import driver

        return driver.run(*rest)
    if mode == "ray-unit":
        from . import unit_task

        return unit_task.supervise(root, *rest)
    from . import node

    return node.run()
