"""What the box and its job use now."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onebox.agent.jobs import load, metrics
from onebox.remote.load import Load
from tests.fakes.agent_box import AgentBox, until

SPIN = "x = bytearray(60 << 20)\nwhile True: pass\n"
SMI = """\
#!/bin/sh
echo 'NVIDIA A100, 40GB, 97, 30000, 40960'
echo 'Tesla T4, [N/A], 5, 15360'
"""


def test_load_of_the_job_is_that_of_all_its_processes(agent_box: AgentBox) -> None:
    """A process that the job's shell has started counts too."""
    with agent_box.connect() as link:
        assert Load.parse(link.request("load")).job == ""
        command = f"{sys.executable} -c '{SPIN}' & wait"
        link.request("start", job="j1", shell=command)

        def measured() -> Load | None:
            found = Load.parse(link.request("load"))
            return found if found.job_cpu > 0.2 else None

        found: Load = until(measured)
        link.request("cancel", job="j1")

    assert "j1" == found.job
    assert found.job_memory > 60 << 20
    assert (found.job_processes or 0) >= 2
    assert 0 < found.memory <= found.memory_total
    assert 0 < found.disk_free <= found.disk_total


def test_sample_has_the_cpu_load_of_the_job(agent_box: AgentBox) -> None:
    """The live line shows it."""
    with agent_box.connect() as link:
        link.request("start", job="j1", argv=[sys.executable, "-c", SPIN])
        until(lambda: (link.request("job")["sample"] or {}).get("job_cpu", 0) > 0.2)
        link.request("cancel", job="j1")


def test_sample_of_an_older_agent_has_no_cpu_load_of_the_job(tmp_path: Path) -> None:
    """The supervisor of a running job may be older than the agent that reads it."""
    old = '{"at":1,"seconds":1,"cpu":1,"cpus":2,"memory":3,"memory_total":4,'
    old += '"job_memory":1,"disk_free":1,"disk_total":1,"disk_read":1,'
    old += '"disk_written":1,"net_in":1,"net_out":1}'
    (tmp_path / metrics.LATEST).write_text(old)
    sample = metrics.latest(str(tmp_path))

    assert sample is not None
    assert sample.job_cpu is None


def test_gpus_are_those_that_nvidia_smi_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown number is None, and a name may contain a comma."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert [] == load._gpus()
    script = tmp_path / "nvidia-smi"
    script.write_text(SMI)
    script.chmod(0o755)
    large, small = load._gpus()

    assert {
        "name": "NVIDIA A100, 40GB",
        "percent": 97,
        "memory": 30000 << 20,
        "memory_total": 40960 << 20,
    } == large
    assert None is small["percent"]
    script.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert [] == load._gpus()


@pytest.mark.parametrize(
    ("code", "own", "machine", "killed"),
    [
        (137, 0, 1, True),
        (137, 1, 0, True),
        (1, 1, 1, True),
        (1, 0, 1, False),
        (137, 0, 0, False),
    ],
)
def test_kill_of_another_program_counts_only_if_the_job_was_killed(
    monkeypatch: pytest.MonkeyPatch, code: int, own: int, machine: int, killed: bool
) -> None:
    """The kernel counts for the whole machine; the cgroup's count is the job's."""
    monkeypatch.setattr(metrics, "oom_kills", lambda: (5 + own, 9 + machine))

    assert killed == metrics.killed_for_memory((5, 9), code)
