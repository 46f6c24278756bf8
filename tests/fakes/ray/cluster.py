"""Start a cluster, break parts of it, and end it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.ray.config import (
    AGENT_PORT,
    DASHBOARD,
    HEAD,
    LAB,
    PORT,
    STATE_PORT,
    TEMPORARY,
    environment,
    etc,
    ray_options,
    ssh_config,
    sshd_config,
    worker_address,
)
from tests.fakes.ray.install import PYTHON, SSHD, install
from tests.fakes.relay import Relay
from tests.fakes.space import SYSTEM_PATH, TIMEOUT, Space

FOLDERS = ("etc", "home", "log", "ssh", "tmp")
# How long one answer of the dashboard may take.
ANSWER = 60.0
# It enters the cluster for each connection, as a network does.
LOGIN = """\
#!/bin/sh
[ ! -e '{folder}/login.down' ] ||
  {{ echo 'ssh: connect to host head port 22: Connection refused' >&2; exit 255; }}
exec nsenter {enter} env -i PATH={path} \\
  {sshd} -i -E {lab}/log/sshd -f {lab}/ssh/sshd_config
"""


class RayCluster:
    """
    A cluster with a head and workers; it ends with the context.

    It also ends with the process that started it. Any number may run at the same time.

    Args:
        folder: Where its files are; created if it does not exist.

        cpus: How many CPUs each node says that it has.

        token: What a request must have in its header `Authorization: Bearer`.

        workers: How many nodes there are beside the head.

    Attributes:
        ssh_config: An ssh configuration in which the cluster is `head`; from there
            the dashboard is at 127.0.0.1:8265. The user is root.

        http: The address of the dashboard, through a relay of this process.

        python: The interpreter that has Ray.

        home: HOME of all processes on the cluster, as this host sees it.
    """

    python = PYTHON

    def __init__(
        self,
        folder: Path,
        *,
        cpus: int = 4,
        token: str = "0123456789abcdef" * 2,
        workers: int = 0,
    ) -> None:
        self.folder = folder
        self.cpus = cpus
        self.token = token
        self.workers = workers
        self.ssh_config = folder / "ssh/config"
        self.home = folder / "home"
        self.http = ""
        self._head: Space | None = None
        self._workers: list[Space] = []
        self._relays = contextlib.ExitStack()

    def __enter__(self) -> RayCluster:
        install()
        self._write_files()
        addresses = [HEAD, *map(worker_address, range(self.workers))]
        self._cluster = self._space("start.sh", str(self.folder), " ".join(addresses))
        try:
            self._write_login()
            network = self._cluster.network
            self._relay = self._relays.enter_context(Relay(PORT, network=network))
            self.http = f"http://127.0.0.1:{self._relay.port}"
            own = self._relays.enter_context(Relay(PORT, network=network))
            self._own = f"http://127.0.0.1:{own.port}"
            self.start_head()
            for n in range(self.workers):
                self.start_worker(n)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._relays.close()
        # It ends the nodes too; what has waited for them is left.
        for space in (self._cluster, self._head, *self._workers):
            if space is not None:
                space.end()

    # Look at it.

    def call(
        self, method: str, path: str, body: object = None, *, token: str | None = None
    ) -> tuple[int, Any]:
        """
        Send a request to the dashboard, also while its relay is cut.

        Args:
            body: What is sent as JSON, or the bytes of a package.

            token: Another token than the cluster's; "" sends none.

        Returns:
            The status and the answer, decoded if it is JSON.

        Raises:
            OSError: The dashboard does not answer.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if isinstance(body, bytes):
            data, headers = body, {"Content-Type": "application/octet-stream"}
        if token := self.token if token is None else token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(
            self._own + path, data=data, headers=headers, method=method
        )
        # A proxy of this host is none of the cluster's.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=ANSWER) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error.read())

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs that the head knows, ended ones and drivers too."""
        status, jobs = self.call("GET", "/api/jobs/")
        assert status == 200, jobs
        return list(jobs)

    def job(self, submission_id: str) -> dict[str, Any]:
        """Return a job; {} if the head does not know it."""
        status, job = self.call("GET", f"/api/jobs/{submission_id}")
        assert status in (200, 404), job
        return dict(job) if status == 200 else {}

    def nodes(self) -> dict[str, str]:
        """Return the states of the nodes by their addresses: ALIVE or DEAD."""
        status, found = self.call("GET", "/api/v0/nodes")
        assert status == 200, found
        # A node that was started again is a new one, after the old one.
        nodes = found["data"]["result"]["result"]
        dead = {node["node_ip"]: node["state"] for node in nodes}
        alive = {n["node_ip"]: "ALIVE" for n in nodes if n["state"] == "ALIVE"}
        return {**dead, **alive}

    def submit(self, entrypoint: str, **fields: object) -> str:
        """Submit a job; return its submission id."""
        body = {"entrypoint": entrypoint, **fields}
        status, job = self.call("POST", "/api/jobs/", body)
        assert status == 200, job
        return str(job["submission_id"])

    def wait_for(self, submission_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until a job has one of these statuses; return it."""
        found: dict[str, Any] = {}

        def reached() -> bool:
            nonlocal found
            found = self.job(submission_id)
            return found.get("status") in statuses

        self._wait(f"job {submission_id} is {statuses}", reached)
        return found

    def processes(self) -> list[int]:
        """Return the processes in the cluster, as this host numbers them."""
        return self._cluster.processes()

    def session_logs(self) -> Path:
        """Return the folder of the head's logs, as this host sees it."""
        place = self.folder / "tmp/head" / Path(TEMPORARY).name
        # The link is one of the head's own /tmp.
        return place / (place / "session_latest").readlink().name / "logs"

    # Change what the user finds.

    @property
    def login_down(self) -> bool:
        """Whether new ssh connections are refused; open ones stay."""
        return (self.folder / "login.down").exists()

    @login_down.setter
    def login_down(self, down: bool) -> None:
        if down:
            (self.folder / "login.down").touch()
        else:
            (self.folder / "login.down").unlink(missing_ok=True)

    def cut_logins(self) -> None:
        """End all open ssh connections, as a restart of the login node does."""
        words = ["pkill", "-KILL", "-x", "sshd"]
        self._cluster.run([], words, check=False)

    def cut(self) -> None:
        """Reset the open connections of `http`, and new ones too."""
        self._relay.down = True
        self._relay.cut()

    def mend(self) -> None:
        """Let connections of `http` through again."""
        self._relay.down = False

    # Break it.

    def kill_head(self) -> None:
        """Kill everything on the head, its jobs too: a power cut."""
        if self._head is not None:
            self._head.end()

    def start_head(self) -> None:
        """
        Start a head that knows no jobs, with an empty /tmp; wait for its answer.

        Workers of the head before do not come back: start them again.
        """
        self.kill_head()
        self._head = self._node(
            "head",
            "--head",
            f"--node-ip-address={HEAD}",
            f"--dashboard-host={DASHBOARD}",
            f"--dashboard-port={PORT}",
            f"--dashboard-agent-listen-port={AGENT_PORT}",
            f"--port={STATE_PORT}",
            # An autoscaler has nothing to do where no node can be added.
            "--no-monitor",
        )
        self._wait("the dashboard answers", self._answers)

    def kill_worker(self, number: int) -> None:
        """Kill everything on a worker, the first is 0: a power cut."""
        self._workers[number].end()

    def start_worker(self, number: int) -> None:
        """Start a worker, with an empty /tmp; wait until the head knows it."""
        if number < len(self._workers):
            self.kill_worker(number)
        address = worker_address(number)
        space = self._node(
            f"worker{number + 1}",
            f"--address={HEAD}:{STATE_PORT}",
            f"--node-ip-address={address}",
            # It is opened at 127.0.0.1 too, where each node needs another one.
            f"--dashboard-agent-listen-port={AGENT_PORT + 1 + number}",
        )
        self._workers[number : number + 1] = [space]
        self._wait(f"{address} is alive", lambda: self.nodes().get(address) == "ALIVE")

    def _node(self, name: str, *options: str) -> Space:
        place = self.folder / "tmp" / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o1777)
        words = (name, *options, *ray_options(self.cpus))
        return self._space("node.sh", *words, within=self._cluster)

    def _space(self, script: str, *words: str, within: Space | None = None) -> Space:
        return Space.start(
            Path(__file__).with_name(script),
            words,
            self.folder / "log/start",
            variables=environment(self.token),
            within=within,
        )

    def _answers(self) -> bool:
        try:
            return self.call("GET", "/api/version")[0] == 200
        except OSError:
            return False

    def _wait(self, what: str, true: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT
        while not true():
            assert time.monotonic() < end, f"never true: {what}"
            time.sleep(0.1)

    def _write_files(self) -> None:
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name, text in etc(self.workers).items():
            (self.folder / "etc" / name).write_text(text)
        for name in ("host", "user"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]
            subprocess.run([*words, self.folder / "ssh" / name], check=True)
        host = (self.folder / "ssh/host.pub").read_text()
        (self.folder / "ssh/known_hosts").write_text(f"head {host}")
        (self.folder / "ssh/sshd_config").write_text(sshd_config())
        shutil.copy(Path(__file__).with_name("ray_start.py"), self.folder)
        login = str(self.folder / "login")
        self.ssh_config.write_text(ssh_config(str(self.folder), login))

    def _write_login(self) -> None:
        enter = " ".join(self._cluster.enter())
        values = {"folder": self.folder, "enter": enter, "path": SYSTEM_PATH}
        login = self.folder / "login"
        login.write_text(LOGIN.format(sshd=SSHD, lab=LAB, **values))
        login.chmod(0o755)


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")
