"""`inv run` and `inv map` on a real Ray cluster, over its REST API and a real ssh."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.fakes.ray import RayCluster, missing
from tests.system import outgrow

pytestmark = pytest.mark.slow

TOML = """\
provider = "ray"
vm = "cpus=2,memory=200 MB"

[ray]
max_outputs = "1 GB"

[run]
command = "sh job.sh"
cancel_grace = 10

[fetch]
outputs = ["results/", "model.bin"]
"""
MAP = """\

[map]
command = "sh unit.sh {n}"
over = { n = "1..5" }
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster with a head of four CPUs."""
    if missing():
        pytest.skip(missing())
    with RayCluster(tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster


@pytest.fixture
def ray(project: Project, cluster: RayCluster) -> Iterator[Project]:
    """A project whose jobs the cluster runs; it leaves nothing there."""
    project.environ["ONEBOX_RAY_SSH_CONFIG"] = str(cluster.ssh_config)
    project.environ["ONEBOX_RAY_HOST"] = "head"
    project.environ["RAY_AUTH_TOKEN"] = cluster.token
    project.write("onebox.toml", TOML)
    yield project
    done = project.inv("teardown", "--all", "--discard-outputs", "--yes")
    assert [] == boxes(project), done.err
    assert [] == records(cluster)
    assert [] == traces(cluster)


def records(cluster: RayCluster) -> list[str]:
    """Return the jobs of onebox that the cluster knows, ended ones too."""
    return [
        f"{job['submission_id']} {job['status']} {job['message']}"
        for job in cluster.jobs()
        if str(job["submission_id"]).startswith("onebox-")
    ]


def boxes(project: Project) -> list[str]:
    """Return the folders of the boxes here."""
    folder = Path(project.environ["ONEBOX_LOCAL_ROOT"] + "-ray") / "boxes"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def live(cluster: RayCluster) -> list[str]:
    """Return the jobs of onebox on the cluster that have not ended."""
    return [
        str(job["submission_id"])
        for job in cluster.jobs()
        if str(job["submission_id"]).startswith("onebox-")
        and job["status"] in ("PENDING", "RUNNING")
    ]


def traces(cluster: RayCluster) -> list[str]:
    """Return what boxes have left on the cluster."""
    folder = cluster.session_logs() / "onebox"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def receipt(project: Project) -> dict[str, object]:
    """Return the newest receipt."""
    path = max(project.root.glob(".onebox/jobs/*/receipt.json"))
    document: dict[str, object] = json.loads(path.read_text())
    return document


def until(true: Callable[[], object]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def watcher(project: Project) -> int:
    """Return the process that watches the latest job."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        root = project.environ["ONEBOX_LOCAL_ROOT"].encode()
        if b"ray-watch" in words and words[5].startswith(root):
            return int(path.parent.name)
    return 0


def test_job_runs_on_the_cluster_and_its_exit_code_and_outputs_come_back(
    ray: Project, cluster: RayCluster
) -> None:
    """Files, links to what is no output, and a file beside the folder all arrive."""
    ray.write(
        "job.sh",
        "echo on $(pwd) with $POLARS_MAX_THREADS threads; mkdir cache\n"
        "printf '\\377\\000' ; echo; python -c 'import ray; print(ray.__version__)'\n"
        "cat data/in.txt > cache/big; ln -s ../cache/big results/big\n"
        "ln -s $PWD/cache/big results/absolute\n"
        "cp data/tool results/tool; echo m > model.bin; exit 7\n",
    )
    ray.write("data/in.txt", "42\n")
    ray.write("data/tool", "#!/bin/sh\n").chmod(0o755)
    done = ray.inv("run")

    assert 7 == done.code, done.err
    assert "with 2 threads" in done.out
    assert "2.60" in done.out
    assert "42\n" == ray.read("results/big") == ray.read("results/absolute")
    assert "m\n" == ray.read("model.bin")
    assert os.access(ray.root / "results/tool", os.X_OK)
    assert 7 == receipt(ray)["exit"]
    assert "no machine is created" in done.err
    assert "in Ray it is job onebox-ob-" in done.err
    log = next(ray.root.glob(".onebox/jobs/*/log")).read_bytes()
    assert b"\377\0\n" in log
    assert [] == boxes(ray)


def test_units_are_tasks_of_one_job(ray: Project, cluster: RayCluster) -> None:
    """A failed unit fails the line, and --failed runs only that one again."""
    ray.write("onebox.toml", TOML + MAP)
    ray.write(
        "unit.sh",
        "echo $ONEBOX_JOB > $ONEBOX_UNIT_OUTPUTS/job\n"
        "date +%s%N >> $ONEBOX_UNIT_OUTPUTS/starts\n"
        '[ "$1" != 3 ] || [ -n "$FIXED" ] || { echo no fit; exit 9; }\n',
    )
    ray.environ["FIXED"] = ""
    done = ray.inv("map")

    assert 1 == done.code, done.err
    assert "unit 3 (n=3): exit 9" in done.err
    assert "unit 3: exit 9" in done.out
    assert "5 units, 2 at once" in done.out
    # Ray's own processes have more than a shell.
    peak = receipt(ray)["peak"]
    assert isinstance(peak, dict)
    assert 0 < peak["memory"] < 40 << 20
    jobs = {ray.read(f"results/{n}/job") for n in range(1, 6)}
    assert 1 == len(jobs)
    assert "no fit\n" == ray.inv("logs", "--unit=3").out
    again = ray.inv("map", "--failed")
    assert 1 == again.code, again.err
    assert "1 unit, 1 at once" in again.out
    assert "4 of 5 done, 1 failed" in again.err


def test_detached_job_outlives_everything_here(
    ray: Project, cluster: RayCluster
) -> None:
    """After Ctrl-C, and a kill of the process that watches, its outputs still come."""
    ray.write(
        "job.sh",
        "echo ready; while [ ! -e /tmp/onebox-test-go ]; do sleep 0.1; done\n"
        "echo one > results/one; exit 5\n",
    )
    # The head has a /tmp of its own.
    go = cluster.folder / "tmp/head/onebox-test-go"
    running = ray.start("run")
    ray.until("ready")
    running.send_signal(signal.SIGINT)
    assert 130 == running.wait(60)
    os.kill(watcher(ray), signal.SIGKILL)
    assert "running" in ray.inv("status").out
    go.touch()
    try:
        done = ray.inv("logs")
    finally:
        go.unlink()
    assert 5 == done.code, done.err
    assert 1 == done.out.count("ready")
    assert 0 == ray.inv("fetch", "teardown").code
    assert "one\n" == ray.read("results/one")


def test_cancelled_job_has_its_grace_and_leaves_outputs(
    ray: Project, cluster: RayCluster
) -> None:
    """Ray itself would kill it after three seconds."""
    ray.write(
        "job.sh",
        "trap 'sleep 5; echo saved > results/state; exit 3' TERM; echo ready\n"
        "while :; do sleep 0.1; done\n",
    )
    running = ray.start("run", "--keep")
    ray.until("ready")
    assert 0 == ray.inv("cancel").code
    assert 3 == running.wait(120), ray.err
    assert "saved\n" == ray.read("results/state")
    assert ("cancel", 3) == (receipt(ray)["cause"], receipt(ray)["exit"])


def test_cut_way_to_the_head_loses_nothing(ray: Project, cluster: RayCluster) -> None:
    """The job goes on, and so does the line when the head answers again."""
    del ray.environ["ONEBOX_RAY_HOST"]
    ray.environ["ONEBOX_RAY_ADDRESS"] = cluster.http
    ray.write(
        "job.sh", "for i in 1 2 3 4 5 6; do echo line $i; sleep 1; done; exit 4\n"
    )
    running = ray.start("run")
    ray.until("line 1")
    cluster.cut()
    ray.until("the cluster does not answer")
    cluster.mend()
    assert 4 == running.wait(120), ray.err
    assert [f"line {i}" for i in range(1, 7)] == ray.out.split("\n")[:6]


def test_head_that_forgets_its_jobs_makes_the_job_lost(
    ray: Project, cluster: RayCluster
) -> None:
    """The outcome is unknown, and that is what is said; units that ended are here."""
    ray.write("onebox.toml", TOML + MAP)
    ray.write(
        "unit.sh", '[ "$1" -lt 3 ] || sleep 300; echo $1 > $ONEBOX_UNIT_OUTPUTS/n\n'
    )
    running = ray.start("map", "--keep")
    (folder,) = until_box(ray)
    for n in (1, 2):
        until((folder / f"work/results/{n}/unit.json").exists)
    cluster.kill_head()
    ray.until("the cluster does not answer")
    cluster.start_head()
    assert 74 == running.wait(120), ray.err
    assert "the cluster does not know it any more" in ray.err
    done = ray.inv("fetch", "--partial")
    assert 0 == done.code, done.err
    assert ["1\n", "2\n"] == [ray.read(f"results/{n}/n") for n in (1, 2)]


def until_box(project: Project) -> list[Path]:
    """Return the folders of boxes as soon as there is one."""
    root = Path(project.environ["ONEBOX_LOCAL_ROOT"] + "-ray") / "boxes"
    until(lambda: list(root.glob("ob-*")))
    return list(root.glob("ob-*"))


def test_shared_storage_takes_code_and_outputs_of_any_size(
    ray: Project, cluster: RayCluster, storage: Path
) -> None:
    """They do not go through the head, whose limit they may exceed."""
    text = (TOML + MAP).replace(
        'max_outputs = "1 GB"', f'storage = "{storage}"\nmax_outputs = "1 MB"'
    )
    ray.write("onebox.toml", text)
    ray.write("job.sh", "head -c 3000000 data.bin > results/big; exit 6\n")
    ray.write("unit.sh", "head -c 1500000 data.bin > $ONEBOX_UNIT_OUTPUTS/big\n")
    (ray.root / "data.bin").write_bytes(os.urandom(120 << 20))
    done = ray.inv("run")
    assert 6 == done.code, done.err
    data = (ray.root / "data.bin").read_bytes()
    assert data[:3000000] == (ray.root / "results/big").read_bytes()
    done = ray.inv("map")
    assert 0 == done.code, done.err
    assert data[:1500000] == (ray.root / "results/5/big").read_bytes()
    assert [] == list(storage.iterdir())


@pytest.fixture
def storage() -> Iterator[Path]:
    """A folder that has the same path here and on the cluster."""
    # On the cluster, /tmp is another folder.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def test_too_much_is_named_before_and_after_the_job(
    ray: Project, cluster: RayCluster
) -> None:
    """Code of more than 100 MiB is not sent, and outputs that stay there are named."""
    ray.write("onebox.toml", TOML.replace('"1 GB"', '"1 MB"'))
    (ray.root / "data.bin").write_bytes(os.urandom(120 << 20))
    ray.write(
        "job.sh",
        "head -c 3000000 /dev/urandom > results/big; echo s > results/small; exit 4\n",
    )
    done = ray.inv("run")
    assert 74 != done.code != 0
    assert "data.bin (120 MB)" in done.err
    assert "[ray] storage" in done.err
    assert [] == live(cluster)
    (ray.root / "data.bin").unlink()
    done = ray.inv("run")
    # The box stays, and so does what is on the node.
    assert 74 == done.code, done.err
    assert "it ended with exit 4, but 1 of 3 outputs are not here" in done.err
    assert "such as results/big" in done.err
    assert 1 == len(boxes(ray))
    (place,) = cluster.folder.glob("tmp/head/onebox-ray-*/*/work/results/big")
    assert 3000000 == place.stat().st_size
    assert 0 == ray.inv("fetch", "--partial").code
    assert "s\n" == ray.read("results/small")


def test_outputs_that_cannot_be_handed_over_stay_with_the_box(
    ray: Project, cluster: RayCluster
) -> None:
    """The folder on the node that leads here is gone, as on a full disk."""
    ray.write(
        "job.sh",
        "echo a > results/a; rm -rf /tmp/*/session_2*/logs/onebox/ob-*; exit 3\n",
    )
    done = ray.inv("run")

    assert 74 == done.code, done.err
    assert "its outputs cannot be handed over; they are on node head" in done.err
    assert 1 == len(boxes(ray))
    (place,) = cluster.folder.glob("tmp/head/onebox-ray-*/*/work/results/a")
    assert "a\n" == place.read_text()


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"vm": "cpus=64,memory=200 MB"}, ("run",), "less than 64 CPUs and 200 MB"),
        ({"token": "wrong"}, ("run",), "it refuses the token in RAY_AUTH_TOKEN"),
        ({"token": ""}, ("run",), "RAY_AUTH_TOKEN is not set"),
        ({"toml": '[ray]\nhost = "h"\n'}, ("run",), "[ray] host: a project cannot"),
        ({"toml": '[ray]\nstorage = "/no/x"\n'}, ("run",), "/no/x is not a folder"),
        ({"url": "http://ray.example.edu"}, ("run",), "in the clear"),
        ({"image": 'setup = "setup.sh"'}, ("run",), "[image] setup: a Ray cluster"),
        ({}, ("ssh",), "has no shell"),
    ],
    ids=[
        *("large", "wrong-token", "no-token", "host", "storage", "plain-http"),
        *("image", "ssh"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(
    ray: Project,
    cluster: RayCluster,
    change: dict[str, str],
    words: tuple[str, ...],
    message: str,
) -> None:
    """Ray itself would let a job wait without an end, for example."""
    text = TOML
    if "vm" in change:
        text = text.replace("cpus=2,memory=200 MB", change["vm"])
    if "image" in change:
        text += f"[image]\n{change['image']}\n"
        ray.write("setup.sh", "")
    if "toml" in change:
        text = text.replace("[ray]\n", change["toml"])
    ray.write("onebox.toml", text)
    ray.write("job.sh", "exit 0\n")
    environ = {"RAY_AUTH_TOKEN": change.get("token", cluster.token)}
    if "url" in change:
        del ray.environ["ONEBOX_RAY_HOST"]
        environ["ONEBOX_RAY_ADDRESS"] = change["url"]
    if words == ("ssh",):
        assert 0 == ray.inv("provision").code
    done = ray.inv(*words, env=environ)
    assert done.code not in (0, 1, 74), done.err
    assert message in done.err
    assert [] == live(cluster)


def test_login_that_is_down_is_named(ray: Project, cluster: RayCluster) -> None:
    """It is ssh's own message."""
    ray.write("job.sh", "exit 0\n")
    cluster.login_down = True
    cluster.cut_logins()
    try:
        done = ray.inv("run")
    finally:
        cluster.login_down = False
    assert "head: kex_exchange_identification: Connection closed" in done.err
    assert done.code not in (0, 1)


def test_packages_are_installed_by_ray(
    ray: Project, cluster: RayCluster, wheel: str
) -> None:
    """The lines of the requirements file are those of the job's environment."""
    ray.write("onebox.toml", TOML + '[image]\nrequirements = "requirements.txt"\n')
    ray.write("requirements.txt", f"--no-index\n--find-links {wheel}\ntiny  # one\n")
    ray.write("job.sh", "python -c 'import tiny; print(tiny.ANSWER)'\n")
    done = ray.inv("run")
    assert 0 == done.code, done.err
    assert "the answer is 42" in done.out
    ray.write("requirements.txt", "--no-index\nno-such-package\n")
    done = ray.inv("run")
    assert 74 == done.code, done.err
    assert "it did not start: ERROR: No matching distribution" in done.err
    assert "the outcome of job" not in done.err


@pytest.fixture
def wheel(cluster: RayCluster) -> str:
    """The folder of a wheel, as the cluster sees it."""
    path = cluster.folder / "wheels" / "tiny-1.0-py3-none-any.whl"
    path.parent.mkdir(exist_ok=True)
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny.py", "ANSWER = 'the answer is 42'\n")
        about = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        file.writestr(f"{info}/METADATA", about)
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{info}/WHEEL", kind)
        file.writestr(f"{info}/RECORD", "")
    return "/run/lab/wheels"


def test_job_that_waits_for_resources_says_so_and_can_be_cancelled(
    ray: Project, cluster: RayCluster
) -> None:
    """Another job has all CPUs."""
    busy = cluster.submit("sleep 300", entrypoint_num_cpus=4)
    cluster.wait_for(busy, "RUNNING")
    try:
        ray.write("job.sh", "touch results/ran\n")
        running = ray.start("run")
        ray.until("waits in the queue: PENDING")
        assert "waits: PENDING" in ray.inv("status").out
        assert 0 == ray.inv("cancel").code
        running.wait(120)
        assert "cancelled" in ray.err
        assert not (ray.root / "results/ran").exists()
    finally:
        cluster.call("POST", f"/api/jobs/{busy}/stop")


def test_example_leaves_the_same_outputs_as_on_one_box(
    ray: Project, cluster: RayCluster
) -> None:
    """It is the same onebox.toml; the host is in the environment."""
    outgrow.copy(ray)
    done = ray.inv("map", "--provider=ray")

    assert 0 == done.code, done.err
    assert outgrow.expected() == outgrow.outputs(ray.root)


def commands(cluster: RayCluster) -> dict[int, str]:
    """Return the command lines of the processes on the cluster."""
    found = {}
    for pid in cluster.processes():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            found[pid] = words.replace(b"\0", b" ").decode("utf-8", "replace")
    return found


def test_supervisor_that_was_killed_leaves_no_process(
    ray: Project, cluster: RayCluster
) -> None:
    """The outcome is lost, and the job does not go on without one."""
    ray.write("job.sh", "echo ready; while :; do sleep 0.1; done\n")
    running = ray.start("run")
    ray.until("ready")
    # Of the processes with this command, the entry point leads its session.
    (supervisor,) = [
        pid
        for pid, text in commands(cluster).items()
        if " agent.pyz ray " in text and os.getsid(pid) != pid
    ]
    os.kill(supervisor, signal.SIGKILL)
    assert 74 == running.wait(120), ray.err
    until(lambda: not any("job.sh" in text for text in commands(cluster).values()))
