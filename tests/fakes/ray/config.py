"""The configuration files of a cluster, as text, and Ray's options."""

from __future__ import annotations

from tests.fakes.ray.install import VENV
from tests.fakes.space import SYSTEM_PATH

# Where the cluster's folder is in the cluster.
LAB = "/run/lab"
HOME = f"{LAB}/home"
# Ray takes 127.0.0.1 for the address of the node that asks.
HEAD = "10.78.0.1"
# The dashboard listens here alone, as it does by default.
DASHBOARD = "127.0.0.1"
PORT = 8265
# The port of the cluster's state, to which workers connect.
STATE_PORT = 6379
# Where Ray has its files on each node, in a /tmp of the node's own: the path of a
# socket must not be longer than 107 bytes.
TEMPORARY = "/tmp/ray"
PATH = f"{VENV}/bin:{SYSTEM_PATH}"
# The least that Ray allows.
OBJECT_STORE = 80_000_000

# The port of the head's agent, which starts jobs; the workers have the next ones.
AGENT_PORT = 52365


def worker_address(number: int) -> str:
    """Return the address of a worker; the first is 0."""
    return f"10.78.0.{number + 2}"


def environment(token: str) -> dict[str, str]:
    """Return the variables that every process on the cluster has."""
    return {
        "PATH": PATH,
        "HOME": HOME,
        "USER": "root",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        # No process starts before a job needs it.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_metrics_collection": "0",
        # A node is dead after some seconds without an answer; by default after 15 (3
        # seconds between requests).
        "RAY_health_check_period_ms": "500",
        # This host's memory is not the cluster's.
        "RAY_memory_monitor_refresh_ms": "0",
    }


def ray_options(cpus: int) -> list[str]:
    """Return the options of `ray start` on every node."""
    return [
        f"--num-cpus={cpus}",
        f"--object-store-memory={OBJECT_STORE}",
        f"--temp-dir={TEMPORARY}",
        "--disable-usage-stats",
    ]


def etc(workers: int) -> dict[str, str]:
    """Return the files of /etc."""
    hosts = [f"{HEAD} head"]
    hosts += [f"{worker_address(n)} worker{n + 1}" for n in range(workers)]
    ids = {"root": 0, "sshd": 102, "nobody": 65534}
    passwd = [
        f"{name}:x:{n}:{n}::{'/run/sshd' if n else HOME}:/bin/bash"
        for name, n in ids.items()
    ]
    return {
        "hosts": "\n".join(["127.0.0.1 localhost", *hosts, ""]),
        "passwd": "\n".join([*passwd, ""]),
        "group": "\n".join([*(f"{k}:x:{n}:" for k, n in ids.items()), "tty:x:5:", ""]),
        "shadow": "root:*:19000::::::\n",
        "resolv.conf": "",
    }


def sshd_config() -> str:
    """Return sshd_config: root logs in with a key."""
    return (
        f"HostKey {LAB}/ssh/host\n"
        f"AuthorizedKeysFile {LAB}/ssh/user.pub\n"
        "PermitRootLogin yes\n"
        "StrictModes no\n"
        "UsePAM no\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "PrintMotd no\n"
        "PidFile none\n"
        # It names the connections that were accepted.
        "LogLevel VERBOSE\n"
        f"SetEnv PATH={PATH}\n"
    )


def ssh_config(folder: str, login: str) -> str:
    """Return the user's ssh configuration, with the cluster as `head`."""
    return (
        "Host head\n"
        f'  ProxyCommand "{login}"\n'
        "  User root\n"
        f'  IdentityFile "{folder}/ssh/user"\n'
        "  IdentitiesOnly yes\n"
        "  IdentityAgent none\n"
        f'  UserKnownHostsFile "{folder}/ssh/known_hosts"\n'
        "  GlobalKnownHostsFile none\n"
        "  StrictHostKeyChecking yes\n"
    )
