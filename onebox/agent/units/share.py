"""
The share of a pool, if several pools on several nodes run the units of one job.

The directory of such a pool is `tasks/N` in the directory of the job, and is laid out
like that of a job. A job whose units one pool runs has no such folder.
"""

from __future__ import annotations

import json
import os
from typing import List, NamedTuple

from ..box import read as read_file

FOLDER = "tasks"
NAME = "share.json"


class Share(NamedTuple):
    """
    The units that a pool runs: every *step*-th one of the job's, from *first* on.

    *directory* is that of the job. A pool that runs all units has the share (0, 1).
    """

    directory: str
    first: int = 0
    step: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether it has all units of the job."""
        return self.step == 1


def read(directory: str) -> Share:
    """Return the share of the pool in *directory*. Raises ValueError, KeyError."""
    data = read_file(os.path.join(directory, NAME))
    if not data:
        return Share(directory)
    value = json.loads(data)
    job = os.path.dirname(os.path.dirname(directory))
    return Share(job, int(value["first"]), int(value["step"]))


def directories(job_directory: str) -> List[str]:
    """Return the directories of the pools of a job, [] if it has one pool only."""
    folder = os.path.join(job_directory, FOLDER)
    try:
        names = [name for name in os.listdir(folder) if name.isdigit()]
    except FileNotFoundError:
        return []
    return [os.path.join(folder, name) for name in sorted(names, key=int)]
