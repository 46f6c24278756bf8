"""The configuration files of a cluster, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.fakes.space import SYSTEM_PATH

USER = "ada"
UID = 20001
PASSWORD = "correct horse"
HOME = "/home/ada"
SCRATCH = "/mnt/scratch"
# Where the cluster's folder is in the cluster.
LAB = "/run/lab"
OLD_PYTHON = f"{LAB}/old"

# Of PASSWORD: `openssl passwd -6 -salt onebox`.
_HASH = (
    "$6$onebox$kiv8HO3zmQLNdW.oFIompi7ERScdbiUzf0Ib4fjPRi7jwPwjnU295Ym6teZUR2"
    ".xLVzuGVjUHIuKrgdFOKXEH1"
)

# Short times, so that tests are short. A cluster's own default is in brackets.
_TIMES = {
    # When a node that does not answer is DOWN (300).
    "SlurmdTimeout": "4",
    "SlurmctldTimeout": "5",
    # How long a client waits for an answer (10).
    "MessageTimeout": "3",
    # From SIGTERM to SIGKILL (30).
    "KillWait": "2",
    # How long a job's record is kept after its end (300).
    "MinJobAge": "300",
    # How long a requeued job waits (120).
    "AuthInfo": "cred_expire=5",
    "SchedulerParameters": "sched_interval=1,bf_interval=1,batch_sched_delay=0",
    "JobAcctGatherFrequency": "1",
}


@dataclass
class Shape:
    """
    What a cluster consists of.

    Attributes:
        nodes: The number of nodes; each has *cpus*, *memory* (MiB) and *gpus*.

        partitions: The names of the partitions, each with further options of
            slurm.conf after it; every one has all nodes, the first is the default.

        options: Further lines of slurm.conf; they replace those here.
    """

    nodes: int
    cpus: int
    memory: int
    gpus: int
    partitions: Sequence[str]
    options: dict[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the names of the nodes."""
        return [f"node{n + 1}" for n in range(self.nodes)]

    def addresses(self) -> dict[str, str]:
        """Return the addresses of the login node and of the nodes."""
        hosts = ["login", *self.names()]
        return {name: f"10.77.0.{n + 1}" for n, name in enumerate(hosts)}

    def slurm_conf(self) -> str:
        """Return slurm.conf."""
        at = self.addresses()
        settings: Mapping[str, str] = {
            "ClusterName": "lab",
            "SlurmctldHost": f"login({at['login']})",
            "SlurmUser": "root",
            "AuthType": "auth/munge",
            # A host's control groups are not the cluster's.
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/linux",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            # Without it a job that asks for no memory gets a node's.
            "DefMemPerCPU": "100",
            "StateSaveLocation": f"{LAB}/state",
            "SlurmdSpoolDir": f"{LAB}/spool/%n",
            "SlurmctldPidFile": "/run/slurmctld.pid",
            "SlurmdPidFile": "/run/slurmd-%n.pid",
            "SlurmctldLogFile": f"{LAB}/log/slurmctld",
            "SlurmdLogFile": f"{LAB}/log/%n",
            # The nodes have more CPUs and memory than this host may have.
            "SlurmdParameters": "config_overrides",
            # A node that has been DOWN is used again when it answers.
            "ReturnToService": "2",
            **({"GresTypes": "gpu"} if self.gpus else {}),
            **_TIMES,
            **self.options,
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        for n, name in enumerate(self.names()):
            # All nodes have one network, in which a port can be used once.
            lines.append(
                f"NodeName={name} NodeAddr={at[name]} Port={6820 + n} "
                f"CPUs={self.cpus} RealMemory={self.memory}"
                + (f" Gres=gpu:{self.gpus}" if self.gpus else "")
            )
        for n, partition in enumerate(self.partitions):
            default = "YES" if n == 0 else "NO"
            lines.append(f"PartitionName={partition} Nodes=ALL Default={default}")
        return "\n".join(lines) + "\n"

    def gres_conf(self) -> str:
        """Return gres.conf; a device without a driver stands for each GPU."""
        return (
            f"Name=gpu File={LAB}/gpu/nvidia[0-{self.gpus - 1}]\n" if self.gpus else ""
        )

    def etc(self) -> dict[str, str]:
        """Return the files of /etc."""
        hosts = [f"{address} {name}" for name, address in self.addresses().items()]
        ids = {"root": 0, "sshd": 102, "nobody": 65534, USER: UID}
        homes = {"root": "/root", USER: HOME}
        passwd = [
            f"{name}:x:{n}:{n}::{homes.get(name, '/run/sshd')}:/bin/bash"
            for name, n in ids.items()
        ]
        return {
            "hosts": "\n".join(["127.0.0.1 localhost", *hosts, ""]),
            "passwd": "\n".join([*passwd, ""]),
            "group": "\n".join(
                [*(f"{k}:x:{n}:" for k, n in ids.items()), "tty:x:5:", ""]
            ),
            "shadow": f"root:*:19000::::::\n{USER}:{_HASH}:19000::::::\n",
            "resolv.conf": "",
        }


def environment() -> dict[str, str]:
    """Return the variables that every process of the user has on the cluster."""
    return {"HOME": HOME, "USER": USER, "LOGNAME": USER, "SCRATCH": SCRATCH}


def sshd_config(authentication: str, *, banner: bool, old_python: bool) -> str:
    """
    Return sshd_config.

    Args:
        authentication: What sshd asks for, as in its AuthenticationMethods.

        banner: Whether a text is shown before the login.

        old_python: Whether python3 is one that is too old.
    """
    path = f"{OLD_PYTHON}/bin:{SYSTEM_PATH}" if old_python else SYSTEM_PATH
    keys, password = (
        "yes" if w in authentication else "no" for w in ("publickey", "password")
    )
    return (
        f"HostKey {LAB}/ssh/host\n"
        f"AuthorizedKeysFile {LAB}/ssh/user.pub\n"
        "StrictModes no\n"
        "UsePAM no\n"
        f"PubkeyAuthentication {keys}\n"
        f"PasswordAuthentication {password}\n"
        "KbdInteractiveAuthentication no\n"
        f"AuthenticationMethods {authentication}\n"
        f"Banner {f'{LAB}/ssh/banner' if banner else 'none'}\n"
        "PrintMotd no\n"
        "PidFile none\n"
        # It names the connections that were accepted.
        "LogLevel VERBOSE\n"
        "Subsystem sftp internal-sftp\n"
        f"SetEnv PATH={path} SCRATCH={SCRATCH}\n"
    )


def ssh_config(folder: str, login: str) -> str:
    """Return the user's ssh configuration, with the cluster as `login`."""
    return (
        "Host login\n"
        f'  ProxyCommand "{login}"\n'
        f"  User {USER}\n"
        f'  IdentityFile "{folder}/ssh/user"\n'
        "  IdentitiesOnly yes\n"
        "  IdentityAgent none\n"
        f'  UserKnownHostsFile "{folder}/ssh/known_hosts"\n'
        "  GlobalKnownHostsFile none\n"
        "  StrictHostKeyChecking yes\n"
    )
