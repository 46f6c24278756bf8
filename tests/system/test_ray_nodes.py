"""Jobs and units on the nodes of a real Ray cluster, one of which loses its power."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.fakes.ray import RayCluster, missing
from tests.system.test_ray import TOML, boxes, commands, live, until

pytestmark = pytest.mark.slow

MAP = """\

[map]
command = "sh unit.sh {n}"
over = { n = "1..4" }
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster with a head and a worker, of two CPUs each."""
    if missing():
        pytest.skip(missing())
    folder = tmp_path_factory.mktemp("ray")
    with RayCluster(folder, cpus=2, workers=1) as cluster:
        yield cluster


@pytest.fixture
def ray(project: Project, cluster: RayCluster) -> Iterator[Project]:
    """A project whose jobs the cluster runs; it leaves nothing there."""
    project.environ["ONEBOX_RAY_ADDRESS"] = cluster.http
    project.environ["RAY_AUTH_TOKEN"] = cluster.token
    project.write("onebox.toml", TOML + MAP)
    yield project
    done = project.inv("teardown", "--all", "--discard-outputs", "--yes")
    assert [] == boxes(project), done.err
    assert [] == live(cluster)
    assert [] == traces(cluster)


def traces(cluster: RayCluster) -> list[str]:
    """Return what boxes have left on the nodes."""
    return [
        str(path)
        for pattern in ("tmp/*/*/session_2*/logs/onebox/*", "tmp/*/onebox-ray-*/*")
        for path in cluster.folder.glob(pattern)
    ]


def test_units_run_on_all_nodes_and_again_if_one_is_lost(
    ray: Project, cluster: RayCluster
) -> None:
    """Each unit is in the table once, and its outputs are those of one run."""
    ray.write(
        "unit.sh",
        "hostname > $ONEBOX_UNIT_OUTPUTS/host; [ -e /tmp/fast ] || sleep 25\n",
    )
    head = cluster.folder / "tmp/head"
    running = ray.start("map", "--vm=cpus=4,memory=200 MB", "--keep")
    ray.until("4 units, 4 at once")
    (root,) = [
        Path(ray.environ["ONEBOX_LOCAL_ROOT"] + "-ray/boxes", name)
        for name in boxes(ray)
    ]
    until(lambda: list(cluster.folder.glob("tmp/worker1/onebox-ray-*/*/jobs/*/tasks")))
    (head / "fast").touch()
    cluster.kill_worker(0)
    assert 0 == running.wait(180), ray.err
    assert {"head\n"} == {ray.read(f"results/{n}/host") for n in range(1, 5)}
    lines = ray.read("results/units.csv").splitlines()
    assert 5 == len(lines)
    assert root.exists()
    (head / "fast").unlink()
    cluster.start_worker(0)


def test_job_on_another_node_than_the_head_sends_its_outputs(
    ray: Project, cluster: RayCluster
) -> None:
    """The head passes on what that node has."""
    # It takes all CPUs of the head.
    busy = cluster.submit(
        "sleep 300", entrypoint_num_cpus=2, entrypoint_resources={"node:10.78.0.1": 0.1}
    )
    cluster.wait_for(busy, "RUNNING")
    try:
        ray.write("job.sh", "hostname; echo out > results/out; exit 3\n")
        done = ray.inv("run")
    finally:
        cluster.call("POST", f"/api/jobs/{busy}/stop")
    assert 3 == done.code, done.err
    assert "worker1" in done.out
    assert "out\n" == ray.read("results/out")


def test_cancelled_map_leaves_no_process(ray: Project, cluster: RayCluster) -> None:
    """Ray kills its workers, and the units of a map are not theirs alone."""
    ray.write("unit.sh", "echo $1; while :; do sleep 0.1; done\n")
    running = ray.start("map", "--vm=cpus=4,memory=200 MB", "--keep")
    ray.until("4 units, 4 at once")
    until(lambda: 4 == len(units(cluster)))
    assert 0 == ray.inv("cancel").code
    assert 0 != running.wait(120)
    until(lambda: not units(cluster))


def units(cluster: RayCluster) -> list[str]:
    """Return the command lines of the units that run on the cluster."""
    return [text for text in commands(cluster).values() if "sh unit.sh" in text[:12]]
