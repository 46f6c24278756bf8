"""A cluster is Ray's own, breaks as clusters do, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.ray import RayCluster, missing
from tests.fakes.space import TIMEOUT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster without workers."""
    if reason := missing():
        pytest.skip(reason)
    with RayCluster(tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def version(cluster: RayCluster, base: str) -> str:
    """Return Ray's version, as the dashboard at an address reports it."""
    headers = {"Authorization": f"Bearer {cluster.token}"}
    request = urllib.request.Request(f"{base}/api/version", headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return str(json.load(answer)["ray_version"])


def over_ssh(cluster: RayCluster) -> tuple[int, str]:
    """Send a request to the dashboard through ssh; return ssh's code and output."""
    request = (
        "GET /api/version HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Authorization: Bearer {cluster.token}\r\n\r\n"
    )
    ssh = subprocess.Popen(
        ["ssh", "-F", cluster.ssh_config, "-W", "127.0.0.1:8265", "head"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ssh.stdin is not None
    assert ssh.stdout is not None
    with ssh.stdin, ssh.stdout:
        with contextlib.suppress(BrokenPipeError):
            ssh.stdin.write(request)
            ssh.stdin.flush()
        # The dashboard does not answer a client that has closed its own direction.
        output = ssh.stdout.read()
    return ssh.wait(TIMEOUT), output


def test_the_dashboard_answers_to_the_token(cluster: RayCluster) -> None:
    """Without the token, or with another one, it refuses."""
    assert 200 == cluster.call("GET", "/api/version")[0]
    assert 401 == cluster.call("GET", "/api/version", token="")[0]
    assert 403 == cluster.call("GET", "/api/version", token="a" * 32)[0]


def test_a_job_runs_with_ray_in_its_python(cluster: RayCluster) -> None:
    """The host sees its log; another job fails with its exit code."""
    program = "import ray; ray.init(); print(ray.cluster_resources()['CPU'])"
    good = cluster.submit(f'python -c "{program}"')
    bad = cluster.submit("exit 7")
    assert 7 == cluster.wait_for(bad, "FAILED")["driver_exit_code"]
    assert "SUCCEEDED" == cluster.wait_for(good, "SUCCEEDED", "FAILED")["status"]
    log = cluster.session_logs() / f"job-driver-{good}.log"
    assert "4.0" == log.read_text().split()[-1]
    assert {good, bad} <= {job["submission_id"] for job in cluster.jobs()}
    assert {} == cluster.job("raysubmit_none")


def test_the_dashboard_is_reached_by_ssh(cluster: RayCluster) -> None:
    """Unless the login is down."""
    assert '"ray_version"' in over_ssh(cluster)[1]
    cluster.login_down = True
    try:
        code, output = over_ssh(cluster)
    finally:
        cluster.login_down = False
    assert (255, True) == (code, "Connection refused" in output)


def test_the_dashboard_is_reached_by_http_unless_it_is_cut(cluster: RayCluster) -> None:
    """The cluster goes on meanwhile."""
    found = version(cluster, cluster.http)
    cluster.cut()
    try:
        with pytest.raises(OSError):
            version(cluster, cluster.http)
        assert found == cluster.call("GET", "/api/version")[1]["ray_version"]
    finally:
        cluster.mend()
    assert found == version(cluster, cluster.http)


def test_a_cluster_ends_with_a_test_process_that_is_killed(
    cluster: RayCluster, tmp_path: Path
) -> None:
    """SIGKILL to the process that started it ends the whole cluster."""
    program = (
        "import sys, time, pathlib\n"
        "from tests.fakes.ray import RayCluster\n"
        "with RayCluster(pathlib.Path(sys.argv[1])) as cluster:\n"
        "    print(*cluster.processes(), flush=True)\n"
        "    time.sleep(600)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    with starter, starter.stdout:
        pids = starter.stdout.readline().split()
        starter.send_signal(signal.SIGKILL)
    assert len(pids) > 5
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    # Another cluster has not noticed it.
    assert 200 == cluster.call("GET", "/api/version")[0]
