"""`inv run` and `inv map` on a real Slurm cluster, reached by a real ssh."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests.conftest import Project
from tests.fakes.slurm import SlurmCluster, missing
from tests.fakes.slurm.config import HOME, SCRATCH, UID
from tests.system import outgrow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=str(missing())),
]

TOML = """\
provider = "slurm"
vm = "cpus=1,memory=500 MB"

[slurm]
host = "login"
root = "$SCRATCH/onebox"

[run]
command = "sh job.sh"
cancel_grace = 5

[fetch]
outputs = ["results/"]
"""
# A job that waits, and shows how often it has started.
ONCE = """\
date +%s%N >> results/starts; echo ready
while [ ! -e go ]; do sleep 0.1; done; exit 5
"""
MAP = """\

[map]
command = "sh unit.sh {n}"
over = { n = "1..5" }
"""


# An sbatch that reports a failure although Slurm has accepted the job.
LATE_FAILURE = """\
/usr/bin/sbatch "$@" >/dev/null; sleep 3
echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2
exit 1
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster of two nodes with two CPUs each."""
    with SlurmCluster(tmp_path_factory.mktemp("slurm"), cpus=2) as cluster:
        yield cluster


@pytest.fixture
def slurm(project: Project, cluster: SlurmCluster) -> Iterator[Project]:
    """A project whose boxes are on the cluster; it leaves nothing there."""
    project.environ["ONEBOX_SLURM_SSH_CONFIG"] = str(cluster.ssh_config)
    project.write("onebox.toml", TOML)
    yield project
    done = project.inv("teardown", "--all", "--discard-outputs", "--yes")
    assert [] == boxes(cluster), done.err
    assert [] == queue(cluster)


def boxes(cluster: SlurmCluster) -> list[str]:
    """Return the folders of boxes on the cluster."""
    folder = cluster.shared / "onebox/boxes"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def queue(cluster: SlurmCluster) -> list[str]:
    """Return the names of the jobs in the queue."""
    return cluster.run("squeue", "-h", "-o", "%j", check=True).stdout.split()


def job_folder(cluster: SlurmCluster) -> Path:
    """Return the folder of the only job of the only box."""
    (path,) = cluster.shared.glob("onebox/boxes/*/jobs/2*")
    return path


def until(true: Callable[[], object]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@contextlib.contextmanager
def wrapped(cluster: SlurmCluster, **scripts: str) -> Iterator[None]:
    """Replace commands of Slurm by scripts of these names, in the block."""
    folder = cluster.home / "wrapped"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct"):
        if name in scripts:
            (folder / name).write_text(f"#!/bin/sh\n{scripts[name]}\n")
            (folder / name).chmod(0o755)
        else:
            (folder / name).symlink_to(f"/usr/bin/{name}")
    (cluster.home / ".bashrc").write_text("PATH=$HOME/wrapped:$PATH\n")
    try:
        yield
    finally:
        (cluster.home / ".bashrc").write_text("")
        shutil.rmtree(folder)


def receipt(project: Project) -> dict[str, object]:
    """Return the newest receipt."""
    path = max(project.root.glob(".onebox/jobs/*/receipt.json"))
    document: dict[str, object] = json.loads(path.read_text())
    return document


def test_job_runs_on_a_node_and_its_exit_code_and_outputs_come_back(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Its output streams here, and one connection is enough for all of it."""
    slurm.write(
        "job.sh",
        "echo on $(hostname) as $SLURM_JOB_ID with $POLARS_MAX_THREADS thread\n"
        "cat data.txt > results/answer.txt; exit 7\n",
    )
    slurm.write("data.txt", "42\n")
    before = cluster.logins()
    done = slurm.inv("run")

    assert 7 == done.code, done.err
    assert "on node" in done.out
    assert "with 1 thread" in done.out
    assert "42\n" == slurm.read("results/answer.txt")
    assert 7 == receipt(slurm)["exit"]
    assert "no machine is created" in done.err
    assert 1 == cluster.logins() - before
    assert [] == boxes(cluster)


def test_secrets_are_not_left_on_the_cluster(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The file that brings them to the node is removed before the job starts."""
    toml = TOML.replace("[run]\n", '[run]\nsecrets = ["TOKEN"]\n')
    slurm.write("onebox.toml", toml)
    slurm.environ["TOKEN"] = "tiger-and-lemon"
    slurm.write("job.sh", 'test "${#TOKEN}" = 15 && touch results/ok')
    done = slurm.inv("run", "--keep")

    assert 0 == done.code, done.err
    assert (slurm.root / "results/ok").exists()
    found = [
        path
        for path in cluster.shared.rglob("*")
        if path.is_file() and b"tiger-and-lemon" in path.read_bytes()
    ]
    assert [] == found
    job = cluster.jobs()[-1]["JobId"]
    script = cluster.admin("scontrol", "write", "batch_script", job, "-", check=False)
    assert "tiger-and-lemon" not in script


def test_units_are_tasks_of_one_job_array(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """A failed unit fails the line, and --failed runs only that one again."""
    slurm.write("onebox.toml", TOML + MAP)
    slurm.write(
        "unit.sh",
        "echo $SLURM_ARRAY_JOB_ID > $ONEBOX_UNIT_OUTPUTS/array\n"
        "date +%s%N >> $ONEBOX_UNIT_OUTPUTS/starts\n"
        '[ "$1" != 3 ] || [ -e fixed ] || { echo no fit; exit 9; }\n',
    )
    # All units together may have more at once than a node.
    done = slurm.inv("map", "--vm=cpus=3,memory=500 MB")

    assert 1 == done.code, done.err
    assert "unit 3 (n=3): exit 9" in done.err
    assert "no fit" in done.err
    assert "unit 3: exit 9" in done.out
    arrays = {slurm.read(f"results/{n}/array") for n in (1, 2, 4, 5)}
    assert 1 == len(arrays)
    slurm.write("fixed", "")
    again = slurm.inv("map", "--failed")
    assert 0 == again.code, again.err
    assert [1, 1, 1, 1, 1] == starts(slurm)


def starts(slurm: Project) -> list[int]:
    """Return how often each of five units has started."""
    return [len(slurm.read(f"results/{n}/starts").split()) for n in range(1, 6)]


def test_detached_job_is_followed_again_and_can_be_cancelled(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Ctrl-C leaves the job in the cluster; cancel ends it with SIGTERM first."""
    slurm.write(
        "job.sh",
        "trap 'echo saved > results/state; exit 3' TERM; echo ready\n"
        "while :; do sleep 0.1; done\n",
    )
    running = slurm.start("run")
    slurm.until("ready")
    running.send_signal(signal.SIGINT)
    assert 130 == running.wait(60)

    id = cluster.run("squeue", "-h", "-o", "%i", check=True).stdout.strip()
    assert f"in Slurm it is job {id}\n" in slurm.err
    assert f"in Slurm: {id}" in slurm.inv("status").out
    (box,) = json.loads(slurm.inv("status", "--json").out)["boxes"]
    assert ("running", id) == (box["job"]["state"], box["job"]["engine_id"])
    assert 0 == slurm.inv("cancel").code
    done = slurm.inv("fetch", "teardown")
    assert 0 == done.code, done.err
    assert "saved\n" == slurm.read("results/state")
    assert ("cancel", 3) == (receipt(slurm)["cause"], receipt(slurm)["exit"])


@pytest.mark.parametrize("change", ["jobname=nice", "comment=project42", "both"])
def test_job_whose_name_was_changed_is_found(
    slurm: Project, cluster: SlurmCluster, change: str
) -> None:
    """A user, or a plugin of the cluster, may give it another name or comment."""
    words = ["jobname=nice", "comment=a|b"] if change == "both" else [change]

    def start() -> None:
        slurm.inv("run", "--detach", "--", "sh", "-c", "echo ready; sleep 300")
        until(lambda: "ready" in slurm.inv("logs", "--no-follow").out)
        (job,) = cluster.run("squeue", "-h", "-o", "%A", check=True).stdout.split()
        cluster.run("scontrol", "update", f"jobid={job}", *words, check=True)

    start()
    assert 0 == slurm.inv("cancel").code
    assert [] == queue(cluster)
    slurm.inv("fetch")
    start()
    assert 0 == slurm.inv("teardown", "--discard-outputs", "--yes").code
    assert [] == queue(cluster)


def test_live_line_and_top_show_what_the_job_has_of_its_node(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The job asked for one CPU and 500 MB; a number that is not known is left out."""
    slurm.write(
        "job.sh", "while [ ! -e go ]; do sleep 0.1; done; echo 1 > results/one\n"
    )
    child = pexpect.spawn(
        "bash",
        ["--norc"],
        cwd=str(slurm.root),
        env={**slurm.environ, "TERM": "xterm"},
        encoding="utf-8",
        dimensions=(24, 200),
        timeout=60,
    )
    child.sendline(" ".join(slurm.argv("run", "--keep")))
    child.expect(r"of 1 cores +[0-9.]+( kB)? of 500 MB")
    done = slurm.inv("top")
    (work,) = cluster.shared.glob("onebox/boxes/*/work")
    (work / "go").touch()
    child.expect_exact("the job used")
    child.close(force=True)
    idle = slurm.inv("top")

    assert 0 == done.code, done.err
    assert "processes" not in done.out
    (row,) = [line for line in done.out.splitlines() if "of 500 MB" in line]
    assert "of 1 cores" in row
    assert 64 == idle.code
    assert "no job of this box runs now" in idle.err


def test_job_that_a_job_has_submitted_is_not_the_boxes(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """It has the box's folder as its own, but onebox did not submit it."""
    slurm.write("job.sh", "sbatch --hold --job-name=other --wrap='sleep 300'")
    try:
        assert 0 == slurm.inv("run", "--keep").code
        assert ["other"] == queue(cluster)
        assert 0 == slurm.inv("teardown", "--discard-outputs", "--yes").code
        assert ["other"] == queue(cluster)
    finally:
        cluster.run("scancel", "--name=other", check=True)


def test_job_that_waits_says_why_and_can_be_cancelled(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The reason is Slurm's own."""
    for node in (1, 2):
        name = f"NodeName=node{node}"
        cluster.admin("scontrol", "update", name, "State=drain", "Reason=test")
    try:
        slurm.write("job.sh", "touch results/ran")
        running = slurm.start("run")
        slurm.until("waits in the queue: PENDING")
        assert "waits: PENDING" in slurm.inv("status").out
        top = slurm.inv("top")
        assert 64 == top.code
        assert "waits in the queue: PENDING" in top.err
        logs = slurm.inv("logs", "--no-follow")
        assert "waits in the queue: PENDING" in logs.err
        assert "still runs" not in logs.err
        running.send_signal(signal.SIGINT)
        assert 130 == running.wait(60)
        assert "detached; the job of ob-" in slurm.err
        assert "waits in the queue (no charge)" in slurm.err
        again = slurm.start("logs")
        assert 0 == slurm.inv("cancel").code
        again.wait(60)
        assert "cancelled" in slurm.err
        assert not (slurm.root / "results/ran").exists()
    finally:
        for node in (1, 2):
            cluster.admin("scontrol", "update", f"NodeName=node{node}", "State=resume")


def test_time_limit_is_the_cause_of_the_end(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Slurm's SIGTERM before the limit gives the job time to save its results."""
    slurm.write("onebox.toml", TOML.replace("[run]", 'time = "1"\n\n[run]'))
    slurm.write(
        "job.sh",
        "trap 'echo saved > results/state; exit 4' TERM\nwhile :; do sleep 0.1; done\n",
    )
    done = slurm.inv("run")

    assert 4 == done.code, done.err
    assert "deadline" == receipt(slurm)["cause"]
    assert 'it was the time limit of the job: [slurm] time = "1"' in done.err
    assert "next: another [slurm] time, for a new box, then inv run" in done.err
    assert "saved\n" == slurm.read("results/state")


def test_job_of_a_failed_node_is_lost_and_never_a_success(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Its files stay on the cluster until they are fetched or given up."""
    slurm.write("job.sh", "echo half > results/part; echo ready; sleep 600")
    running = slurm.start("run")
    slurm.until("ready")
    name = cluster.run("squeue", "-h", "-o", "%N", check=True).stdout.strip()
    cluster.stop_node(int(name[-1]) - 1, jobs=True, noticed=True)
    try:
        assert 74 == running.wait(180)
        assert "NODE_FAIL" in slurm.err
        assert 0 == slurm.inv("fetch", "--partial").code
        assert "half\n" == slurm.read("results/part")
    finally:
        cluster.start_node(int(name[-1]) - 1)
        until(lambda: cluster.states() == {"idle"})


def test_job_goes_on_while_its_controller_restarts(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Nothing is known meanwhile, so the job does not count as lost."""
    slurm.write("job.sh", ONCE)
    running = slurm.start("run")
    slurm.until("ready")
    cluster.stop_controller(kill=False)
    time.sleep(3)
    assert running.poll() is None
    cluster.start_controller()
    (work,) = cluster.shared.glob("onebox/boxes/*/work")
    (work / "go").touch()

    assert 5 == running.wait(180), slurm.err
    assert 1 == len(slurm.read("results/starts").split())


def test_second_start_of_a_job_waits_for_the_first(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """A controller that was killed can start a job twice, as this does by hand."""
    slurm.write("job.sh", ONCE)
    running = slurm.start("run", "--keep")
    slurm.until("ready")
    folder = job_folder(cluster)
    inside = f"{SCRATCH}/{folder.relative_to(cluster.shared)}"
    agent = f"{inside.partition('/jobs/')[0]}/agent.pyz"
    (folder.parents[1] / "work/go").touch()
    again = cluster.run("python3", "-I", "-S", agent, "node", inside)

    assert 5 == again.returncode
    assert "was started before" in again.stderr
    assert 5 == running.wait(180), slurm.err
    assert 1 == len(slurm.read("results/starts").split())


def test_request_that_no_node_can_meet_is_refused_before_anything_is_created(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The message names what the cluster has."""
    done = slurm.inv("run", "--vm=cpus=64,memory=500 MB")

    assert 64 == done.code, done.err
    assert "default partition has less than 64 CPUs and 500 MB in all" in done.err
    assert "cpu (default): 2 x 2 CPUs" in done.err
    for line in ("run", "plan"):
        done = slurm.inv(line, "--vm=cpus=3,memory=500 MB")
        assert 64 == done.code, done.err
        assert "no node of default partition has 3 CPUs" in done.err
    assert [] == boxes(cluster)


@pytest.mark.parametrize(
    ("need", "key", "missing"),
    [
        ("cpus = 4", "cpus", "has 4 CPUs"),
        ('memory = "500 GB"', "memory", "500 GB"),
    ],
)
def test_unit_that_no_node_can_run_is_refused_before_the_push(
    slurm: Project, cluster: SlurmCluster, need: str, key: str, missing: str
) -> None:
    """A task of the job array asks for what a unit needs; the plan refuses it too."""
    slurm.write("onebox.toml", TOML + MAP + need + "\n")
    slurm.write("unit.sh", "true\n")
    planned, done = slurm.inv("plan", "map"), slurm.inv("map")

    assert (64, 64) == (planned.code, done.code), planned.err + done.err
    for text in (planned.err, done.err):
        assert f"[map] {key}: no node of default partition" in text
        assert missing in text
        assert f"next: less [map] {key}" in text
    assert [] == boxes(cluster)
    # A box that is up changes nothing.
    slurm.write("job.sh", "true")
    assert 0 == slurm.inv("provision").code
    kept = slurm.inv("map"), slurm.inv("plan", "map"), slurm.inv("map", "--only")
    assert [64, 64, 64] == [one.code for one in kept], kept[0].err
    assert all(f"[map] {key}: no node" in one.err for one in kept)


def test_unit_may_need_more_than_the_size_if_a_node_has_it(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The size says how many units run at once, and not how large they are."""
    slurm.write("onebox.toml", TOML + MAP + "cpus = 2\n")
    slurm.write("unit.sh", "echo $SLURM_CPUS_PER_TASK > $ONEBOX_UNIT_OUTPUTS/cpus\n")
    done = slurm.inv("map")

    assert 0 == done.code, done.err
    assert "2\n" == slurm.read("results/1/cpus")


def test_login_that_prints_a_banner_is_no_obstacle(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Its lines are neither frames of the agent nor answers of the provider."""
    slurm.write("job.sh", "echo 1 > results/one")
    cluster.banner = "Welcome!\nYour quota is 3 % full."
    try:
        done = slurm.inv("run", "--keep")
        with (cluster.home / ".bashrc").open("a") as file:
            file.write("printf 'half a line'\n")
        session = slurm.inv("exec", "--", "hostname")
    finally:
        cluster.banner = ""

    assert 0 == done.code, done.err
    assert "1\n" == slurm.read("results/one")
    assert session.out.endswith("half a linelogin\n")
    assert "the login node" in session.err


def test_login_that_asks_for_a_password_is_named(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Without a terminal nobody can answer, so the next command is told."""
    cluster.cut_logins()
    cluster.authentication = "password"
    try:
        done = slurm.inv("run")
    finally:
        cluster.authentication = "publickey"

    assert 77 == done.code, done.err
    assert "does not let you in without a question" in done.err
    assert "the same command in a terminal" in done.err


def test_password_is_asked_for_once_in_a_terminal(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The connection that it opens is shared by all commands from then on."""
    slurm.write("job.sh", "echo 1 > results/one")
    cluster.cut_logins()
    cluster.authentication = "publickey,password"
    before = cluster.logins()
    try:
        child = pexpect.spawn(
            "bash",
            ["--norc"],
            cwd=str(slurm.root),
            env={**slurm.environ, "TERM": "xterm"},
            encoding="utf-8",
            timeout=60,
        )
        child.sendline(" ".join(slurm.argv("run")))
        child.expect_exact("password:")
        child.sendline(cluster.password)
        child.expect_exact("folder, jobs: gone")
        child.sendline(" ".join(slurm.argv("run")))
        child.expect_exact("folder, jobs: gone")
        child.close(force=True)
    finally:
        cluster.authentication = "publickey"

    assert 1 == cluster.logins() - before
    assert "1\n" == slurm.read("results/one")


def test_image_is_built_once_and_shared_by_boxes(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """A set-up script makes the environment in the home of the builder."""
    slurm.write("onebox.toml", TOML + '\n[image]\nsetup = "setup.sh"\n')
    slurm.write("setup.sh", 'mkdir -p ~/.venv/bin; echo "echo tool" > ~/.venv/bin/tool')
    slurm.write("setup.sh", slurm.read("setup.sh") + "; chmod +x ~/.venv/bin/tool\n")
    slurm.write("job.sh", "tool > results/said")
    first, second = slurm.inv("run"), slurm.inv("run")

    assert (0, 0) == (first.code, second.code), first.err + second.err
    assert "built" in first.err
    assert "up to date" in second.err
    assert "tool\n" == slurm.read("results/said")
    listed = json.loads(slurm.inv("image", "--list", "--json").out)
    assert 1 == len(listed["images"])
    # A job changes its own copy only.
    slurm.write("job.sh", "echo echo other > ~/.venv/bin/tool; tool > results/said")
    assert [0, 0] == [slurm.inv("run").code, slurm.inv("run").code]
    slurm.write("job.sh", "tool > results/said")
    assert 0 == slurm.inv("run").code
    assert "tool\n" == slurm.read("results/said")


def test_what_others_have_on_the_cluster_is_not_touched(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Neither another job of the user, nor a box of another machine of the user."""
    words = ["sbatch", "--parsable", "--job-name=onebox-other", "--wrap", "sleep 600"]
    job = cluster.run(*words, check=True).stdout.strip()
    slurm.write("job.sh", "true")
    assert 0 == slurm.inv("provision").code
    (box,) = boxes(cluster)
    record = cluster.shared / "onebox/boxes" / box / "record.json"
    own = record.read_text()
    foreign = json.loads(own)
    foreign["tags"]["owner"] = "somebody-else"
    record.write_text(json.dumps(foreign))
    try:
        refused = slurm.inv("teardown", "--discard-outputs", "--yes")
        assert [box] == boxes(cluster), refused.err
    finally:
        record.write_text(own)
    assert 0 == slurm.inv("teardown").code
    assert ["onebox-other"] == queue(cluster)
    cluster.run("scancel", job, check=True)


def test_root_with_files_of_others_is_refused(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """What no box uses is removed there, so it has to be onebox's own folder."""
    other = cluster.shared / "mine"
    (other / "homes/thesis").mkdir(parents=True)
    os.chown(other, UID, UID)
    slurm.write("onebox.toml", TOML.replace("$SCRATCH/onebox", "$SCRATCH/mine"))
    done = slurm.inv("run")

    assert 78 == done.code, done.err
    assert "has other files than onebox's" in done.err
    assert (other / "homes/thesis").is_dir()
    slurm.write("onebox.toml", TOML)


def test_job_that_sbatch_has_lost_the_answer_of_is_neither_lost_nor_run_twice(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Slurm can accept a job although its client reports a failure."""
    slurm.write("job.sh", "date +%s%N >> results/starts; sleep 1; exit 5\n")
    with wrapped(cluster, sbatch=LATE_FAILURE):
        done = slurm.inv("run")

    assert 5 == done.code, done.err
    assert 1 == len(slurm.read("results/starts").split())


def test_array_that_has_begun_is_not_withdrawn(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Some tasks have started when sbatch reports a failure; others wait."""
    slurm.write("onebox.toml", TOML + MAP)
    slurm.write("unit.sh", "date +%s%N >> $ONEBOX_UNIT_OUTPUTS/starts; sleep 1\n")
    with wrapped(cluster, sbatch=LATE_FAILURE):
        done = slurm.inv("map")

    assert 0 == done.code, done.err
    assert [1, 1, 1, 1, 1] == starts(slurm)


def test_job_that_slurm_refuses_is_withdrawn_though_the_agent_dies_meanwhile(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The connection is made again, and the error is Slurm's; the box can be used."""
    slurm.write("job.sh", "echo 1 > results/one")
    refuse = "echo 'sbatch: error: invalid account' >&2; exit 1"
    refuse_until = f'[ -e {HOME}/fixed ] && exec sbatch "$@"; {refuse}'
    died = f"{HOME}/died"
    die_once = f"[ -e {died} ] || {{ touch {died}; kill -KILL $PPID; }}"
    path = "PATH=/usr/bin:/bin\n"
    with wrapped(cluster, sbatch=path + refuse_until, scancel=path + die_once):
        refused = slurm.inv("run", "--keep")
        assert (cluster.home / "died").exists()
        status = slurm.inv("status")
        (cluster.home / "fixed").touch()
        done = slurm.inv("run")

    assert refused.code in range(64, 79), refused.err
    assert "Slurm" in refused.err
    assert "lost" not in status.out
    assert 0 == done.code, done.err


def test_secret_of_a_job_that_never_starts_is_removed(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """A job that is cancelled in the queue does not read its file."""
    toml = TOML.replace("[run]\n", 'extra = ["--hold"]\n\n[run]\nsecrets = ["TOKEN"]\n')
    slurm.write("onebox.toml", toml)
    slurm.environ["TOKEN"] = "tiger-and-lemon"
    slurm.write("job.sh", "true")
    assert 0 == slurm.inv("run", "--detach").code
    assert (job_folder(cluster) / "plan.json").exists()
    assert 0 == slurm.inv("cancel").code

    assert not (job_folder(cluster) / "plan.json").exists()


@pytest.mark.parametrize(
    ("old", "new", "code", "text"),
    [
        ("$SCRATCH/onebox", "$SCRATHC/onebox", 78, "$SCRATHC is not set to an"),
        ("$SCRATCH/onebox", "~bob/onebox", 78, "not know the user in ~bob/onebox"),
        ("$SCRATCH/onebox", "/proc/x", 70, "login cannot write to /proc/x: No such"),
        ('host = "login"', 'host = "nologin"', 78, "could not be resolved"),
        ("[run]", 'partition = "gpu"\n\n[run]', 64, "there is no partition gpu"),
        ("[run]", 'python = "/opt/no/python3"\n\n[run]', 78, "no Python 3.8"),
    ],
)
def test_setting_that_the_cluster_does_not_know_is_named_and_leaves_nothing(
    slurm: Project, cluster: SlurmCluster, old: str, new: str, code: int, text: str
) -> None:
    """The plan finds it too."""
    slurm.write("onebox.toml", TOML.replace(old, new))
    before = sorted(path.name for path in cluster.home.iterdir())
    planned, done = slurm.inv("plan"), slurm.inv("run")
    slurm.write("onebox.toml", TOML)

    assert (code, code) == (planned.code, done.code), done.err
    assert text.lower() in done.err.lower() or "resolve hostname" in done.err
    assert "next:" in done.err
    assert before == sorted(path.name for path in cluster.home.iterdir())


def test_image_can_be_built_on_the_login_node(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The nodes of some clusters have no network."""
    toml = TOML.replace("[run]", 'build = "login"\n\n[run]')
    slurm.write("onebox.toml", toml + '\n[image]\nsetup = "setup.sh"\n')
    slurm.write("setup.sh", "echo built on $(hostname)\n")
    done = slurm.inv("image")

    assert 0 == done.code, done.err
    assert "built on login" in done.out + done.err


def test_read_only_folders_and_what_a_crash_has_left_are_removed(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """Go's module cache is read-only, for example."""
    slurm.write(
        "job.sh",
        "mkdir -p ~/go/pkg ro results; touch ~/go/pkg/file ro/file results/one\n"
        f"mkdir -p {SCRATCH}/other/in; ln -s {SCRATCH}/other ro/link\n"
        f"chmod 555 ~/go/pkg ~/go ro {SCRATCH}/other\n",
    )
    assert 0 == slurm.inv("run", "--keep").code
    (box,) = boxes(cluster)
    root, crashed = f"{SCRATCH}/onebox/boxes", ".deleted-ob-crashed"
    cluster.run("cp", "-a", f"{root}/{box}", f"{root}/{crashed}", check=True)
    assert 0 == slurm.inv("status").code
    assert [box] == boxes(cluster)
    done = slurm.inv("teardown")

    assert 0 == done.code, done.err
    assert [] == boxes(cluster)
    other = cluster.shared / "other"
    assert 0o555 == other.stat().st_mode & 0o777
    assert (other / "in").is_dir()


def test_image_of_a_box_can_be_changed_like_the_home_that_it_is_from(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The environment can be made again; a shared file cannot be written in place."""
    slurm.write(
        "job.sh",
        "touch results/one; python3 -m venv --without-pip ~/.venv\n"
        "cd ~/.venv/lib/python3*/site-packages && echo x=1 > tool.py && cd ~\n"
        "mkfifo pipe; echo secret > closed; chmod 0 closed; mkdir -m 0 none\n",
    )
    saved = slurm.inv("run", "--keep"), slurm.inv("image", "--from-box", "--as=env")
    assert [0, 0] == [done.code for done in saved], saved[-1].err
    assert 0 == slurm.inv("teardown").code
    slurm.write("onebox.toml", TOML + '\n[image]\nuse = "env"\n')
    slurm.write(
        "job.sh",
        "python3 -m venv --without-pip ~/.venv && . ~/.venv/bin/activate || exit 3\n"
        "file=$(python -c 'import tool; print(tool.__file__)') || exit 4\n"
        "(echo y=2 >> $file) && exit 5\n"
        "cp $file $file.new && chmod u+w $file.new && echo y=2 >> $file.new\n"
        "mv -f $file.new $file && python -c 'import tool; tool.y' || exit 6\n"
        "chmod 400 ~/closed && cat ~/closed > results/closed; ls ~ > results/names\n",
    )
    for _ in range(2):
        done = slurm.inv("run")
        assert 0 == done.code, done.err
        assert "secret\n" == slurm.read("results/closed")
        assert ["closed", "none"] == slurm.read("results/names").split()
    (image,) = json.loads(slurm.inv("image", "--list", "--json").out)["images"]
    cluster.run("mv", f"{SCRATCH}/onebox/images/{image['id']}", SCRATCH, check=True)
    gone = slurm.inv("run")
    assert gone.code in range(64, 79), gone.err
    assert "no such image" in gone.err
    shutil.rmtree(cluster.shared / image["id"])
    slurm.write("onebox.toml", TOML)


def test_record_that_cannot_be_read_is_named_and_hides_no_other_box(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The box of this project is not created again while its record is damaged."""
    slurm.write("job.sh", "true")
    assert 0 == slurm.inv("run", "--keep").code
    (box,) = boxes(cluster)
    folder = cluster.shared / "onebox/boxes"
    own = (folder / box / "record.json").read_text()
    huge = json.loads(own)
    huge["offer"]["memory"] = 10**18 * 10
    texts = ["{", json.dumps(huge), "[" * 99999, own.replace("0.0", "Infinity", 1)]
    for n, text in enumerate(texts):
        path = folder / f"ob-bad{n}/record.json"
        path.parent.mkdir()
        path.write_text(text)
        os.chown(path.parent, UID, UID)
    images = cluster.shared / "onebox/images/oi-bad"
    images.mkdir(parents=True)
    # It stays, and the tests after this one save images there as the user.
    os.chown(images.parent, UID, UID)
    (images / "image.json").write_text("[]")
    try:
        for words in (["status"], ["exec", "--", "true"], ["image", "--list"]):
            done = slurm.inv(*words)
            assert 0 == done.code, done.err
        assert "oi-bad has no valid record" in done.err
        status = slurm.inv("status")
        assert "running" in status.out or "ended" in status.out or box in status.out
        for n in range(len(texts)):
            assert f"/boxes/ob-bad{n}" in status.err
        (folder / box / "record.json").write_text("{")
        for words in (["run"], ["status"], ["teardown"]):
            done = slurm.inv(*words)
            assert done.code in range(64, 79), done.err
            assert f"/boxes/{box} has no valid record" in done.err
    finally:
        (folder / box / "record.json").write_text(own)
        for path in [*folder.glob("ob-bad*"), images]:
            shutil.rmtree(path)
    assert [box] == boxes(cluster)


def test_build_whose_save_loses_its_agent_is_resumed(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """The builder stays, and nothing is built again."""
    python, fault = cluster.home / "python", cluster.home / "fault"
    python.write_text(
        f'#!/bin/sh\ncase " $* " in *" login "*) [ -e {HOME}/fault ];; *) false;; esac'
        ' || exec python3 "$@"\nrequest=$(cat)\n'
        'case $request in *\'"op": "save"\'*) kill -KILL $$;; esac\n'
        'printf %s "$request" | python3 "$@"\n'
    )
    python.chmod(0o755)
    toml = TOML.replace("[run]", f'python = "{HOME}/python"\n\n[run]')
    slurm.write("onebox.toml", toml + '\n[image]\nsetup = "setup.sh"\n')
    slurm.write("setup.sh", f"echo built >> {SCRATCH}/builds\n")
    fault.touch()
    broken = slurm.inv("image")
    (builder,) = boxes(cluster)
    fault.unlink()
    done = slurm.inv("image")

    assert 74 == broken.code, broken.err
    assert "save may be done or not" in broken.err
    assert f"{builder} is off and stays" in broken.err
    assert 0 == done.code, done.err
    assert "built\n" == (cluster.shared / "builds").read_text()
    assert [] == boxes(cluster)


def test_folder_that_cannot_be_removed_is_named_and_hides_no_box(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """For example because others own what is in it."""
    slurm.write("job.sh", "true")
    assert 0 == slurm.inv("run", "--keep").code
    (box,) = boxes(cluster)
    folder = cluster.shared / "onebox/boxes"
    bad = folder / ".deleted-ob-bad"
    (bad / "home/closed").mkdir(parents=True)
    (bad / "home/closed/file").touch()
    shutil.copy(folder / box / "record.json", bad)
    for path in (bad, bad / "home", bad / "record.json"):
        os.chown(path, UID, UID)
    try:
        done = slurm.inv("status")
    finally:
        shutil.rmtree(bad)

    assert 0 == done.code, done.err
    assert box in done.out
    assert "/boxes/.deleted-ob-bad: Permission denied" in done.err


def test_example_leaves_the_same_outputs_as_on_one_box(
    slurm: Project, cluster: SlurmCluster
) -> None:
    """It is the same onebox.toml; later lines find the box without the flag."""
    outgrow.copy(slurm, "login")
    slurm.environ["ONEBOX_SLURM_ROOT"] = "$SCRATCH/onebox"
    done = slurm.inv("map", "--provider=slurm", "--keep")

    assert 0 == done.code, done.err
    assert outgrow.expected() == outgrow.outputs(slurm.root)
    assert 1 == len(boxes(cluster))
    assert 0 == slurm.inv("teardown").code
    assert [] == boxes(cluster)
