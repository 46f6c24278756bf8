"""Ask a Ray cluster what it has, and end and remove what a box has left there."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.agent.ray.jobs_api import (
    DROP,
    ENDED,
    Forbidden,
    RayCluster,
    RayError,
    Unreachable,
)
from onebox.errors import NoCredentials, OneboxError, ProviderError, Throttled
from onebox.providers.kernel.user_ssh import UserSSH
from onebox.providers.ray.settings import DASHBOARD, RaySettings

# Jobs have so many seconds to end after they are stopped, and to be cleaned up after.
ENDING, CLEANING = 60.0, 30.0
# Ray looks at each job once a second, and writes a new record for one that was deleted
# before it has noticed the end (`JobManager._monitor_job_internal` in 2.60).
NOTICED = 2.0
# A box whose units have run on more nodes than this is not cleaned up on all of them.
MOST_NODES = 200
CLEANER = "onebox-clean-"
# It ends what is left of the jobs of a box on the node on which it runs, and removes
# their files.
CLEAN = (
    "for p in /proc/[0-9]*; do "
    "tr '\\0' '\\n' 2>/dev/null <$p/environ | grep -qx 'ONEBOX_BOX={box}' && "
    "kill -9 ${{p#/proc/}}; done; "
    'for d in "$(dirname "$(readlink /proc/$$/fd/1)")/onebox" '
    '"${{TMPDIR:-/tmp}}/onebox-ray-$(id -u)"; do rm -rf -- "$d"/{box}-*; done'
)


class Node(NamedTuple):
    """A node of the cluster; *memory* is in bytes."""

    id: str
    address: str
    cpus: float
    memory: float
    is_head: bool


def reach(settings: RaySettings) -> dict[str, Any]:
    """Return how the head is reached, as `onebox.agent.ray.jobs_api` takes it."""
    token = settings.token_env
    if settings.host:
        ssh = UserSSH(settings.host, settings.ssh_config)
        # A job that goes on for days keeps no connection open.
        words = ["ssh", *ssh.options(), "-W", settings.dashboard, "--", settings.host]
        url = f"http://{settings.dashboard}"
        return {"url": url, "ssh": words, "token": token}
    return {"url": settings.address or f"http://{DASHBOARD}", "ssh": [], "token": token}


def title(settings: RaySettings) -> str:
    """Return the name of the cluster in messages."""
    return settings.host or (settings.address or "").partition("://")[2]


class Cluster:
    """
    A cluster.

    Args:
        where: How it is reached; see `reach`.

        name: Its name in messages.
    """

    def __init__(self, where: Mapping[str, Any], name: str) -> None:
        self._where = where
        self.name = name

    @contextmanager
    def session(self) -> Iterator[RayCluster]:
        """
        Yield the API of the cluster, and close the connection after that.

        Raises:
            OneboxError: The cluster does not answer, or refuses a request.
        """
        api = RayCluster(dict(self._where))
        try:
            yield api
        except RayError as error:
            raise self._error(error) from error
        finally:
            api.close()

    def version(self) -> str:
        """Return the version of Ray."""
        with self.session() as api:
            return printable(api.version())

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        with self.session() as api:
            return [_node(fields) for fields in api.nodes()]

    def end_jobs(self, box: str, at_least: float = 0.0) -> None:
        """
        End the jobs of a box.

        Args:
            at_least: For so many seconds a job may still appear that was submitted.

        Raises:
            ProviderError: A job still runs.
        """
        began = time.monotonic()
        until = began + ENDING
        with self.session() as api:
            while True:
                live = [
                    one
                    for one in _jobs(api, f"onebox-{box}-")
                    if one["status"] not in ENDED
                ]
                if not live and time.monotonic() - began >= at_least:
                    return
                if live and time.monotonic() > until:
                    raise ProviderError(
                        f"{self.name} still ends job {live[0]['submission_id']}",
                        next="the same command again",
                    )
                for one in live:
                    api.stop(one["submission_id"])
                    if one["status"] == "PENDING":
                        api.drop(one["submission_id"])
                time.sleep(0.5)

    def clean(self, box: str, *, everywhere: bool) -> None:
        """
        Remove what the ended jobs of a box have left on the cluster.

        Args:
            everywhere: Look on all nodes, because units have run there.
        """
        with self.session() as api:
            jobs = _jobs(api, f"onebox-{box}-")
            places = {str(one.get("driver_node_id")) for one in jobs}
            nodes = list(map(_node, api.nodes()))
            if everywhere:
                nodes = nodes[:MOST_NODES]
            else:
                nodes = [one for one in nodes if one.id in places]
            cleaners = [_clean(api, node, box) for node in nodes]
            until = time.monotonic() + CLEANING
            while cleaners and time.monotonic() < until:
                time.sleep(0.3)
                details = {id: api.job(id) or {"status": "STOPPED"} for id in cleaners}
                cleaners = [
                    id for id in cleaners if details[id].get("status") not in ENDED
                ]
            for id in cleaners:
                api.stop(id)
            time.sleep(NOTICED)
            for kind in ("onebox-", f"{DROP}onebox-", CLEANER):
                for one in _jobs(api, f"{kind}{box}-"):
                    if one["status"] in ENDED:
                        api.delete(one["submission_id"])

    def _error(self, error: RayError) -> OneboxError:
        message = f"the Ray cluster {self.name}: {error}"
        if isinstance(error, Forbidden):
            name = str(self._where.get("token"))
            return NoCredentials(message, next=f"export {name}=…, the cluster's token")
        if isinstance(error, Unreachable):
            return Throttled(
                message,
                next="check ONEBOX_RAY_HOST or ONEBOX_RAY_ADDRESS, and the head; Ray's "
                "dashboard has port 8265 unless set otherwise",
            )
        return ProviderError(message, next="inv doctor")


def largest(nodes: Sequence[Node]) -> str:
    """Describe the nodes of a cluster, for messages."""
    if not nodes:
        return "no node"
    cpus = sum(node.cpus for node in nodes)
    most = max(nodes, key=lambda node: (node.cpus, node.memory))
    count = formatting.count(len(nodes), "node")
    size = f"{most.cpus:g} CPUs and {formatting.byte_count(int(most.memory))}"
    if len(nodes) == 1:
        return f"{count} with {size}"
    return f"{count}, {cpus:g} CPUs; the largest node has {size}"


def _jobs(api: RayCluster, prefix: str) -> list[dict[str, Any]]:
    """Return the jobs that the cluster knows whose ids begin so."""
    found = []
    for one in api.jobs():
        id = one.get("submission_id")
        if isinstance(id, str) and id.startswith(prefix):
            found.append({**one, "status": str(one.get("status"))})
    return found


def _clean(api: RayCluster, node: Node, box: str) -> str:
    id = f"{CLEANER}{box}-{secrets.token_hex(4)}"
    api.submit(
        {
            "entrypoint": CLEAN.format(box=box),
            "submission_id": id,
            "entrypoint_resources": {f"node:{node.address}": 0.001},
        }
    )
    return id


def _node(fields: Mapping[str, Any]) -> Node:
    """Return a node in an answer. Raises `Unreachable` if it is not valid."""
    try:
        total = fields["resources_total"]
        found = Node(
            id=str(fields["node_id"])[:100],
            address=str(fields["node_ip"])[:100],
            cpus=float(total.get("CPU", 0)),
            memory=float(total.get("memory", 0)),
            is_head=fields.get("is_head_node") is True,
        )
        if not (0 <= found.cpus < 1e9 and 0 <= found.memory < 1e18):
            raise ValueError(found)
        return found
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Unreachable("its list of nodes is not valid") from error
