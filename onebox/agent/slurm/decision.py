"""
Decide once whether a job starts or is withdrawn, from any machine of the cluster.

The decision is a symbolic link in the directory of the job. Its text says what was
decided, and has a token of the process that decided. The call that creates the link
also gives it its text, and fails if there is one. So exactly one process decides, and
each process reads the decision complete or not at all.

A client of NFS repeats a request whose answer was lost. The second answer is that the
link exists, and the token tells whose it is. A rename has no token: if it is repeated,
its file is missing, as if another process had been faster. A hard link to a file of the
process would do too, but some filesystems have none; symbolic links are needed anyway,
by the environments of Python.
"""

from __future__ import annotations

import os
from typing import Tuple

# The link, and what it can say before the token.
NAME = "decision"
STARTED, WITHDRAWN = "started", "withdrawn"


def decide(directory: str, decision: str) -> Tuple[str, bool]:
    """
    Decide about the job in *directory*, unless that was done before.

    Return the decision that counts, and whether this call has made it. Raises OSError,
    for example if the directory is gone.
    """
    token = os.urandom(12).hex()
    path = os.path.join(directory, NAME)
    try:
        os.symlink("%s-%s" % (decision, token), path)
    except FileExistsError:
        found, _, by = os.readlink(path).partition("-")
        return found, by == token
    return decision, True


def read(directory: str) -> str:
    """Return the decision about the job in *directory*, "" if there is none."""
    try:
        return os.readlink(os.path.join(directory, NAME)).partition("-")[0]
    except OSError:
        return ""
