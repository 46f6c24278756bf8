"""The bundle of the agent is the same, also when several threads pack it at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Threads take turns in the middle of a parse where garbage is collected in it.
AT_ONCE = """
import gc, sys
from concurrent.futures import ThreadPoolExecutor
from onebox.remote import agent_bundle

class Slow:
    def __init__(self):
        self.me = self

    def __del__(self):
        sum(range(50))

def pack(_):
    for _ in range(20):
        Slow()
    return agent_bundle.seed()

gc.set_threshold(3)
sys.setswitchinterval(1e-6)
packed = set()
for _ in range(30):
    agent_bundle.seed.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        packed.update(pool.map(pack, range(4)))
print(len(packed))
"""


def test_threads_that_pack_at_once_get_the_same_bundle() -> None:
    """All boxes that are created at the same time start with the same agent."""
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE], capture_output=True, text=True, check=False
    )

    assert (0, "1\n") == (done.returncode, done.stdout), done.stderr
