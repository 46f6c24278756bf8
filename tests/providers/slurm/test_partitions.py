"""What a provider says of the nodes and the time limits of a cluster's partitions."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebox.errors import UsageError
from onebox.providers.slurm import partitions
from onebox.providers.slurm.provider import Slurm
from onebox.providers.slurm.settings import SlurmSettings

GB = 1 << 30
# As `sinfo` prints them: name, state, limit, CPUs, MiB, nodes, GPUs.
PARTITIONS = """\
cpu*|up|1:00:00|64|8192|2|(null)
cpu*|up|1:00:00|2|65536|1|(null)
long|up|infinite|2|8192|1|(null)
"""


def provider(partition: str | None = None, time: str | None = None) -> Slurm:
    """Return a provider whose login node has reported its partitions."""
    settings = SlurmSettings(host="login", partition=partition, time=time)
    slurm = Slurm(settings, Path())
    slurm._facts = {"partitions": PARTITIONS}
    return slurm


@pytest.mark.parametrize(
    ("partition", "time", "text", "setting"),
    [
        (None, "0-2", '[slurm] time = "0-2"', "[slurm] time"),
        (None, None, "1:00:00, the limit of partition cpu", "[slurm] partition"),
        ("long", None, "[limits] max_hours = 24", "[limits] max_hours"),
    ],
)
def test_limit_of_a_job_is_named_with_its_setting(
    partition: str | None, time: str | None, text: str, setting: str
) -> None:
    """It is the shortest one, or the one that the user has given to Slurm."""
    found = provider(partition, time).job_limit(24 * 3600)

    assert (text, setting) == found


def test_size_of_a_box_is_compared_with_all_nodes_of_the_partition() -> None:
    """The units of a map have it together; a builder is a job on one node."""
    facts = {"partitions": PARTITIONS}

    assert (130, 80 * GB) == partitions.total(facts, None)
    assert None is partitions.total({}, None)
    assert (64, 8 * GB) == partitions.of_one_node(facts, None, 100, 70 * GB)
    assert (2, 64 * GB) == partitions.of_one_node(facts, None, 2, 64 * GB)


@pytest.mark.parametrize(
    ("cpus", "memory", "key"),
    [
        (64, 8 * GB, ""),
        (2, 64 * GB, ""),
        (65, GB, "cpus"),
        (1, 65 * GB, "memory"),
        (64, 64 * GB, "cpus and memory"),
    ],
)
def test_unit_needs_a_node_that_has_its_cpus_and_its_memory(
    cpus: int, memory: int, key: str
) -> None:
    """Two nodes that have one of them each are not enough."""
    slurm = provider()
    if not key:
        slurm.check_task(cpus, memory, of_map=True)
        return
    with pytest.raises(UsageError) as raised:
        slurm.check_task(cpus, memory, of_map=True)
    assert raised.value.message.startswith(f"[map] {key}: no node of default partition")
