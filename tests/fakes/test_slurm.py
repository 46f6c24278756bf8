"""A cluster is Slurm's own, breaks as clusters do, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.slurm import SlurmCluster, missing
from tests.fakes.space import TIMEOUT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=str(missing())),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster of two nodes with two partitions."""
    folder = tmp_path_factory.mktemp("slurm")
    partitions = ("cpu", "bigmem MaxTime=60")
    with SlurmCluster(folder, partitions=partitions, gpus=2) as cluster:
        yield cluster


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def submit(cluster: SlurmCluster, command: str, *options: str) -> str:
    """Submit a job; return its id."""
    words = ["sbatch", "--parsable", *options, "--wrap", command]
    return cluster.run(*words, check=True).stdout.strip()


def ssh(
    cluster: SlurmCluster, *words: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run ssh with the user's configuration."""
    return subprocess.run(
        ["ssh", "-F", cluster.ssh_config, *words],
        env={"PATH": os.environ["PATH"], **environ},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_a_job_runs_on_a_node_as_the_user(cluster: SlurmCluster) -> None:
    """Its output is on the shared file system; its exit code is the command's."""
    job = submit(cluster, "hostname; id -un; exit 7", "--output=/mnt/scratch/log")
    record = cluster.wait_for(job, "FAILED")
    assert ("7:0", "NonZeroExitCode") == (record["ExitCode"], record["Reason"])
    node = record["NodeList"]
    assert f"{node}\nada\n" == cluster.outside("/mnt/scratch/log").read_text()


def test_the_tmp_of_a_node_is_its_own(cluster: SlurmCluster) -> None:
    """What the login node has in /tmp, a job does not see."""
    cluster.admin("touch", "/tmp/here")
    job = submit(cluster, "test ! -e /tmp/here")
    assert "COMPLETED" == cluster.wait_for(job, "COMPLETED", "FAILED")["JobState"]


def test_a_job_is_told_which_gpus_are_its_own(cluster: SlurmCluster) -> None:
    """As the programs on a GPU expect it, in CUDA_VISIBLE_DEVICES."""
    command = "echo $CUDA_VISIBLE_DEVICES"
    job = submit(cluster, command, "--gres=gpu:2", "--output=/mnt/scratch/gpus")
    cluster.wait_for(job, "COMPLETED")
    assert "0,1\n" == cluster.outside("/mnt/scratch/gpus").read_text()


def test_each_task_of_an_array_is_a_job(cluster: SlurmCluster) -> None:
    """Each has its own number and exit code."""
    job = submit(cluster, "exit $SLURM_ARRAY_TASK_ID", "--array=0-2")

    def codes() -> set[tuple[str, str]]:
        tasks = [t for t in cluster.jobs() if t.get("ArrayJobId") == job]
        return {(t["ArrayTaskId"], t["ExitCode"]) for t in tasks}

    until(lambda: codes() == {("0", "0:0"), ("1", "1:0"), ("2", "2:0")})


def test_scancel_ends_a_job(cluster: SlurmCluster) -> None:
    """It is CANCELLED, and its processes have ended."""
    job = submit(cluster, "exec sleep 7777")
    cluster.wait_for(job, "RUNNING")
    cluster.run("scancel", job, check=True)
    assert "CANCELLED" == cluster.wait_for(job, "CANCELLED")["JobState"]
    commands = (Path(f"/proc/{pid}/cmdline") for pid in cluster.processes())
    until(lambda: not any(b"7777" in c.read_bytes() for c in commands if c.exists()))


@pytest.mark.parametrize("option", ["--cpus-per-task=5", "--mem=1T", "--gres=gpu:3"])
def test_a_request_that_no_node_can_meet_is_refused_at_once(
    cluster: SlurmCluster, option: str
) -> None:
    """`sbatch` fails; what is left of it is a job that has failed."""
    before = len(cluster.jobs())
    done = cluster.run("sbatch", option, "--wrap", "true")
    assert 1 == done.returncode
    assert "Requested node configuration is not available" in done.stderr
    assert {"FAILED"} == {job["JobState"] for job in cluster.jobs()[before:]}


@pytest.mark.parametrize(
    "options", ["--cpus-per-task=64", "--nodes=3", "--partition=bigmem --time=70"]
)
def test_a_request_above_a_whole_partition_waits_for_ever(
    cluster: SlurmCluster, options: str
) -> None:
    """A cluster refuses it only with EnforcePartLimits, which is off by default."""
    job = submit(cluster, "true", *options.split())
    try:
        until(lambda: cluster.job(job)["Reason"].startswith("Partition"))
        assert "PENDING" == cluster.job(job)["JobState"]
    finally:
        cluster.run("scancel", job, check=True)


def test_a_controller_that_was_killed_knows_its_jobs_again(
    cluster: SlurmCluster,
) -> None:
    """Commands fail while it is away; the job has gone on."""
    before = time.time()
    job = submit(cluster, "sleep 2")
    cluster.wait_for(job, "RUNNING")
    # The controller writes its state some seconds after a change.
    until(lambda: (cluster.folder / "state/job_state").stat().st_mtime > before)
    cluster.stop_controller()
    assert 0 != cluster.run("squeue").returncode
    cluster.start_controller()
    assert job == cluster.job(job)["JobId"]


@pytest.mark.parametrize("noticed", [False, True])
def test_jobs_on_a_node_that_loses_power_fail(
    cluster: SlurmCluster, noticed: bool
) -> None:
    """The job is NODE_FAIL; the node works again after its start."""
    job = submit(cluster, "sleep 600", "--no-requeue", "--nodelist=node1")
    cluster.wait_for(job, "RUNNING")
    cluster.stop_node(0, jobs=True, noticed=noticed)
    assert "NODE_FAIL" == cluster.wait_for(job, "NODE_FAIL")["JobState"]
    cluster.start_node(0)
    until(lambda: cluster.states() == {"idle"})


def test_a_node_is_used_again_after_its_daemon_was_killed(
    cluster: SlurmCluster,
) -> None:
    """A job that runs meanwhile ends as usual."""
    job = submit(cluster, "sleep 1", "--nodelist=node2")
    cluster.wait_for(job, "RUNNING")
    cluster.stop_node(1)
    cluster.start_node(1)
    assert "COMPLETED" == cluster.wait_for(job, "COMPLETED", "NODE_FAIL")["JobState"]


def test_ssh_logs_in_as_the_user(cluster: SlurmCluster) -> None:
    """Each connection is a login; Slurm's commands and $SCRATCH are there."""
    before = cluster.logins()
    done = ssh(cluster, "login", "id -un; hostname; echo $SCRATCH; squeue -h; pwd")
    assert "ada\nlogin\n/mnt/scratch\n/home/ada\n" == done.stdout, done.stderr
    assert before + 1 == cluster.logins()
    cluster.close_login()
    assert 255 == ssh(cluster, "login", "true").returncode
    cluster.open_login()
    assert 0 == ssh(cluster, "login", "true").returncode


def test_a_password_can_be_asked_for(cluster: SlurmCluster, tmp_path: Path) -> None:
    """A key alone is not enough then."""
    answer = tmp_path / "answer"
    answer.write_text(f"#!/bin/sh\necho '{cluster.password}'\n")
    answer.chmod(0o700)
    environ = {"SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force"}
    for methods in ("password", "publickey,password"):
        cluster.authentication = methods
        try:
            batch = ssh(cluster, "-o", "BatchMode=yes", "login", "true")
            assert (255, True) == (
                batch.returncode,
                "Permission denied" in batch.stderr,
            )
            done = ssh(cluster, "login", "id -un", **environ)
            assert "ada\n" == done.stdout, done.stderr
        finally:
            cluster.authentication = "publickey"


def test_a_banner_is_among_the_output_of_commands(cluster: SlurmCluster) -> None:
    """sshd shows it before the login, the shell's start files print it after."""
    cluster.banner = "Welcome to the lab"
    try:
        done = ssh(cluster, "login", "echo done")
    finally:
        cluster.banner = ""
    assert "Welcome to the lab\ndone\n" == done.stdout
    assert "Welcome to the lab" in done.stderr


def test_an_old_python_says_so(cluster: SlurmCluster) -> None:
    """To people, to programs, and to isolated programs; also in a login shell."""
    program = "import sys; print(sys.version_info[:2], sys.version_info.major)"
    cluster.old_python = True
    try:
        for python in ("python3", "python3 -I", "bash -lc 'exec python3 \"$@\"' -"):
            done = ssh(cluster, "login", f"{python} -c '{program}'; python3 -V")
            assert "(3, 6) 3\nPython 3.6.8\n" == done.stdout, done.stderr
    finally:
        cluster.old_python = False
    assert "(3, 6)" not in ssh(cluster, "login", f"python3 -c '{program}'").stdout


def test_the_shared_file_system_can_be_lost(cluster: SlurmCluster) -> None:
    """Its mount point is empty then; its files come back with it."""
    (cluster.shared / "file").touch()
    cluster.lose_shared()
    assert "" == cluster.run("ls", "/mnt/scratch").stdout
    assert cluster.run("touch", "/mnt/scratch/new").returncode
    cluster.restore_shared()
    assert "file" in cluster.run("ls", "/mnt/scratch").stdout


def test_two_clusters_know_nothing_of_each_other(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    """A cluster's jobs are its own; a queue can forget ended jobs soon."""
    with SlurmCluster(tmp_path, nodes=1, options={"MinJobAge": "2"}) as other:
        assert [] == other.jobs()
        job = submit(other, "true")
        until(lambda: other.job(job) == {})
    assert cluster.states()


def test_nothing_of_a_cluster_is_left(tmp_path: Path) -> None:
    """Its processes, also those of its jobs, and its mounts are gone at the end."""
    with SlurmCluster(tmp_path) as cluster:
        cluster.wait_for(submit(cluster, "sleep 600"), "RUNNING")
        assert len(cluster.processes()) > 5
    assert [] == cluster.processes()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_a_cluster_ends_with_a_test_process_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL to the process that started it ends the whole cluster."""
    program = (
        "import sys, time, pathlib\n"
        "from tests.fakes.slurm import SlurmCluster\n"
        "with SlurmCluster(pathlib.Path(sys.argv[1])) as cluster:\n"
        "    cluster.run('sbatch', '--wrap', 'sleep 600')\n"
        "    cluster.wait_for('1', 'RUNNING')\n"
        "    print(*cluster.processes(), flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = str(Path(__file__).parents[2])
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    with starter, starter.stdout:
        pids = starter.stdout.readline().split()
        starter.send_signal(signal.SIGKILL)
    assert len(pids) > 5
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
