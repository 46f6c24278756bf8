"""Start a cluster, break parts of it, and end it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fakes.slurm.config import (
    HOME,
    LAB,
    PASSWORD,
    SCRATCH,
    UID,
    USER,
    Shape,
    environment,
    ssh_config,
    sshd_config,
)
from tests.fakes.space import SYSTEM_PATH, TIMEOUT, Space

TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "ip", "unshare", "nsenter")
SSHD = "/usr/sbin/sshd"
# The number of the driver that this host does not need to have.
NVIDIA = 195
FOLDERS = (
    *("etc", "gpu", "home", "log", "munge", "old/bin", "scratch", "slurm"),
    *("spool", "ssh", "state"),
)
# It enters the cluster for each connection, as a network does.
LOGIN = """\
#!/bin/sh
[ ! -e '{folder}/login.down' ] ||
  {{ echo 'ssh: connect to host login port 22: Connection refused' >&2; exit 255; }}
exec nsenter {enter} env -i PATH={path} \\
  {sshd} -i -E {lab}/log/sshd -f {lab}/ssh/sshd_config
"""
# An interpreter that says that it is too old, also to the programs that it runs.
OLD = """\
#!/bin/sh
case "$1" in -V | --version) echo 'Python 3.6.8'; exit ;; esac
exec {lab}/old/bin/current "$@"
"""
OLD_SITE = """\
import sys, collections; \
V = collections.namedtuple("version_info", "major minor micro releaselevel serial"); \
sys.version_info = V(3, 6, 8, "final", 0); \
sys.version = "3.6.8 (default)"; \
sys.hexversion = 0x030608F0
"""


def missing() -> str:
    """Return why this host cannot run a cluster, "" if it can."""
    if os.getuid() != 0:
        return "a Slurm cluster needs root: namespaces and mounts"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    for tool in TOOLS:
        if shutil.which(tool, path=path) is None:
            return f"{tool} is missing: apt install slurm-wlm munge iproute2"
    return "" if Path(SSHD).exists() else "sshd is missing: apt install openssh-server"


class SlurmCluster:
    """
    A cluster with a login node, a controller and nodes; it ends with the context.

    It also ends with the process that started it. Any number may run at the same time.

    Args:
        folder: Where its files are; created if it does not exist.

        nodes: How many nodes; each has so many *cpus*, *memory* (MiB) and *gpus*.

        partitions: See `config.Shape`.

        home_on_nodes: Whether the nodes have the users' homes.

        options: Further lines of slurm.conf.

    Attributes:
        user: The user on the cluster; *password* is the user's password.

        ssh_config: The user's ssh configuration, in which the cluster is `login`.

        home: The user's home, and *shared* the shared file system, as this host
            sees them. On the cluster they are `config.HOME` and `config.SCRATCH`.
    """

    user = USER
    password = PASSWORD

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 2,
        cpus: int = 4,
        memory: int = 4000,
        gpus: int = 0,
        partitions: Sequence[str] = ("cpu",),
        home_on_nodes: bool = True,
        options: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.shape = Shape(nodes, cpus, memory, gpus, partitions, dict(options or {}))
        self.ssh_config = folder / "ssh/config"
        self.home = folder / "home"
        self.shared = folder / "scratch"
        self._home_on_nodes = home_on_nodes
        self._authentication = "publickey"
        self._banner = ""
        self._old_python = False
        self._nodes: list[Space] = []

    def __enter__(self) -> SlurmCluster:
        self._write_files()
        addresses = " ".join(self.shape.addresses().values())
        self._login = self._space("start.sh", str(self.folder), addresses)
        try:
            self._write_login()
            self.start_controller()
            for n in range(self.shape.nodes):
                self.start_node(n)
            self._wait("the nodes are idle", lambda: self.states() == {"idle"})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        # It ends the nodes too; what has waited for them is left.
        for space in (self._login, *self._nodes):
            space.end()

    # Look at it.

    def run(self, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node as the user, without ssh."""
        ids = [f"--setuid={UID}", f"--setgid={UID}"]
        return self._login.run([*ids, f"--wdns={HOME}"], words, check=check)

    def admin(self, *words: str, check: bool = True) -> str:
        """Run a command on the login node as root; return its output."""
        return self._login.run([], words, check=check).stdout

    def on_node(self, node: int, *words: str) -> str:
        """Run a command on a node as root; return its output."""
        return self._nodes[node].run([], words, check=True).stdout

    def outside(self, path: str) -> Path:
        """Return the path at which this host sees a shared file of the cluster."""
        for inside, outside in ((HOME, self.home), (SCRATCH, self.shared)):
            if path == inside or path.startswith(inside + "/"):
                return outside / path[len(inside) + 1 :]
        raise ValueError(f"{path} is not shared")

    def jobs(self) -> list[dict[str, str]]:
        """Return the fields of all jobs that the controller knows, ended ones too."""
        found = []
        for line in self.admin("scontrol", "--oneliner", "show", "jobs").splitlines():
            if line.startswith("JobId="):
                words = (word.partition("=") for word in line.split())
                found.append({name: value for name, _, value in words})
        return found

    def job(self, job_id: str) -> dict[str, str]:
        """Return the fields of a job; {} if the controller does not know it."""
        return next((job for job in self.jobs() if job["JobId"] == job_id), {})

    def wait_for(self, job_id: str, *states: str) -> dict[str, str]:
        """Wait until a job is in one of these states; return its fields."""
        # A controller that does not answer yet raises CalledProcessError.
        with contextlib.suppress(subprocess.CalledProcessError):
            self._wait(
                f"job {job_id} is {states}",
                lambda: self.job(job_id).get("JobState") in states,
            )
        return self.job(job_id)

    def states(self) -> set[str]:
        """Return the states of the nodes, as sinfo names them; set() without one."""
        done = self._login.run([], ["sinfo", "-h", "-N", "-o", "%t"], check=False)
        return set(done.stdout.split())

    def logins(self) -> int:
        """Return how many connections sshd has accepted so far."""
        log = self.folder / "log/sshd"
        lines = log.read_text().splitlines() if log.exists() else []
        # "Accepted key" is a step on the way.
        return len([line for line in lines if re.match(r"Accepted \S+ for ", line)])

    def processes(self) -> list[int]:
        """Return the processes in the cluster, as this host numbers them."""
        return self._login.processes()

    # Change what the user finds at the login.

    @property
    def authentication(self) -> str:
        """What sshd asks for: publickey, password, or both, with a comma between."""
        return self._authentication

    @authentication.setter
    def authentication(self, methods: str) -> None:
        self._authentication = methods
        self._write_login()

    @property
    def banner(self) -> str:
        """A text that sshd shows before, and the shell's start files print after."""
        return self._banner

    @banner.setter
    def banner(self, text: str) -> None:
        self._banner = text
        self._write_login()

    @property
    def old_python(self) -> bool:
        """Whether the python3 of the user is one that says that it is 3.6."""
        return self._old_python

    @old_python.setter
    def old_python(self, old: bool) -> None:
        self._old_python = old
        self._write_login()

    def close_login(self) -> None:
        """Refuse new connections; open ones stay."""
        (self.folder / "login.down").touch()

    def open_login(self) -> None:
        """Accept connections again."""
        (self.folder / "login.down").unlink()

    def cut_logins(self) -> None:
        """End all open connections, as a restart of the login node does."""
        self.admin("pkill", "-KILL", "-x", "sshd", check=False)

    # Break it.

    def stop_controller(self, *, kill: bool = True) -> None:
        """End the controller: at once, or so that it can write its state."""
        self._login.stop("/run/slurmctld.pid", "KILL" if kill else "TERM")

    def start_controller(self) -> None:
        """Start the controller, and wait until it answers."""
        self.admin("slurmctld")
        ping = ["scontrol", "ping"]
        self._wait(
            "the controller answers",
            lambda: "is UP" in self._login.run([], ping, check=False).stdout,
        )

    def stop_node(
        self, node: int, *, jobs: bool = False, noticed: bool = False
    ) -> None:
        """
        Kill a node's slurmd, or with its *jobs* everything on it: a power cut.

        The controller notices it after about ten seconds, or at once if *noticed*.
        Without *jobs* it then calls jobs NODE_FAIL whose processes still run.
        """
        if jobs:
            self._nodes[node].end()
        else:
            self._nodes[node].stop(f"/run/slurmd-node{node + 1}.pid", "KILL")
        if noticed:
            name = f"nodename={self.shape.names()[node]}"
            self.admin("scontrol", "update", name, "state=down", "reason=power")

    def start_node(self, node: int) -> None:
        """Start a node's slurmd, after a power cut with an empty /tmp."""
        name = self.shape.names()[node]
        if node < len(self._nodes) and self._nodes[node].lives():
            self._nodes[node].run([], ["slurmd", "-N", name], check=True)
            return
        home = "home" if self._home_on_nodes else ""
        space = self._space("node.sh", name, home, within=self._login)
        # The namespaces before have ended, if there were any.
        self._nodes[node : node + 1] = [space]

    def lose_shared(self) -> None:
        """Unmount the shared file system of the login node: its folder is empty."""
        self.admin("umount", "--lazy", SCRATCH)

    def restore_shared(self) -> None:
        """Mount the shared file system again."""
        self.admin("mount", "--bind", f"{LAB}/scratch", SCRATCH)

    def configure(self, **options: str) -> None:
        """Change lines of slurm.conf in the running cluster."""
        self.shape.options.update(options)
        (self.folder / "slurm/slurm.conf").write_text(self.shape.slurm_conf())
        self.admin("scontrol", "reconfigure")

    def _space(self, script: str, *words: str, within: Space | None = None) -> Space:
        return Space.start(
            Path(__file__).with_name(script),
            words,
            self.folder / "log/start",
            variables=environment(),
            within=within,
        )

    def _wait(self, what: str, true: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT
        while not true():
            assert time.monotonic() < end, f"never true: {what}"
            time.sleep(0.02)

    def _write_files(self) -> None:
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for shared in (self.home, self.shared):
            os.chown(shared, UID, UID)
        # sshd reads the user's keys as the user.
        for public in (self.folder, self.folder / "ssh"):
            public.chmod(0o755)
        for name, text in self.shape.etc().items():
            (self.folder / "etc" / name).write_text(text)
        (self.folder / "slurm/slurm.conf").write_text(self.shape.slurm_conf())
        (self.folder / "slurm/gres.conf").write_text(self.shape.gres_conf())
        for n in range(self.shape.gpus):
            device = self.folder / f"gpu/nvidia{n}"
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(NVIDIA, n))
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for name in ("host", "user"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]
            subprocess.run([*words, self.folder / "ssh" / name], check=True)
        host = (self.folder / "ssh/host.pub").read_text()
        (self.folder / "ssh/known_hosts").write_text(f"login {host}")
        login = str(self.folder / "login")
        self.ssh_config.write_text(ssh_config(str(self.folder), login))
        self._write_old_python()

    def _write_old_python(self) -> None:
        old = self.folder / "old"
        current = Path(shutil.which("python3", path=SYSTEM_PATH) or "/nonexistent")
        (old / "bin/python3").write_text(OLD.format(lab=LAB))
        (old / "bin/python3").chmod(0o755)
        (old / "bin/current").symlink_to(current)
        # A virtual environment is the only one whose start files -I does not skip.
        (old / "pyvenv.cfg").write_text(f"home = {current.parent}\n")
        version = current.resolve().name
        site = old / "lib" / version / "site-packages"
        site.mkdir(parents=True, exist_ok=True)
        (site / "old.pth").write_text(OLD_SITE)

    def _write_login(self) -> None:
        enter = " ".join(self._login.enter())
        values = {"folder": self.folder, "enter": enter, "path": SYSTEM_PATH}
        login = self.folder / "login"
        login.write_text(LOGIN.format(sshd=SSHD, lab=LAB, **values))
        login.chmod(0o755)
        (self.folder / "ssh/banner").write_text(self.banner + "\n")
        (self.folder / "ssh/sshd_config").write_text(
            sshd_config(
                self.authentication,
                banner=bool(self.banner),
                old_python=self.old_python,
            )
        )
        lines = ["cat /run/lab/ssh/banner"] if self.banner else []
        if self.old_python:
            lines.append(f"PATH={LAB}/old/bin:{SYSTEM_PATH}")
        (self.home / ".bashrc").write_text("\n".join([*lines, ""]))
        (self.home / ".profile").write_text(". ~/.bashrc\n")
