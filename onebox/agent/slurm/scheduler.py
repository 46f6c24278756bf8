"""Call Slurm's own commands, and parse what they print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ..box import BoxConfig

# A command may take this many seconds. Without a controller, Slurm's commands try for
# about 9 seconds before they give up (measured with 22.05).
TIMEOUT = 30.0
# A login over ssh may lack these folders in PATH, because only login shells add them.
FOLDERS = (
    "/usr/bin",
    "/usr/local/bin",
    "/opt/slurm/bin",
    "/usr/local/slurm/bin",
    "/cm/shared/apps/slurm/current/bin",
)
# A job in one of these states holds or waits for resources (squeue(1), "JOB STATE
# CODES"). Every other state is final.
ACTIVE = frozenset(
    (
        "CONFIGURING",
        "COMPLETING",
        "PENDING",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "RESV_DEL_HOLD",
        "RUNNING",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
    )
)
# Jobs in these states have not begun, or wait to begin again.
WAITING = frozenset(
    ("CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD")
)
_ID = re.compile(r"[0-9]+")
# What Slurm's commands print if the controller does not know the job.
_UNKNOWN = re.compile(r"Invalid job id|Job/step already completing or completed")


# What the names of onebox's jobs begin with.
PREFIX = "onebox-"
# Slurm's commands get these variables of the login: the user's own defaults, but not
# those that change what a command does, such as SBATCH_WAIT.
KEPT = (
    *("HOME", "USER", "LOGNAME", "LANG", "SLURM_CONF", "SLURM_CLUSTERS"),
    *("SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_RESERVATION"),
    *("SBATCH_CONSTRAINT", "SBATCH_CLUSTERS"),
)


class SchedulerError(Exception):
    """A command of Slurm has failed; the message is what it printed."""


class Unreachable(SchedulerError):
    """The controller does not answer, so nothing is known about any job."""


class QueuedJob(NamedTuple):
    """
    A job as `squeue` shows it.

    *state* is the state of the job or of an array's task, *reason* why it waits, and
    *start* when it is expected to start, as Slurm writes it, "" if that is unknown.
    *task* is the number of the task in an array, or a list of numbers such as "3-7" for
    tasks that wait; "" for an ordinary job. *folder* is its working directory. *name*
    and *comment* can be changed by the user, and by plugins of the cluster.
    """

    id: str
    name: str
    state: str
    reason: str = ""
    start: str = ""
    task: str = ""
    comment: str = ""
    folder: str = ""


class Ended(NamedTuple):
    """
    How a job ended, as Slurm knows it.

    *state* is Slurm's word, such as "TIMEOUT". *code* and *signal* are 0 if unknown.
    """

    state: str
    code: int = 0
    signal: int = 0


def find_folder(given: str = "") -> str:
    """
    Return the folder of Slurm's commands, "" if there is none.

    Args:
        given: The folder in which to look first.
    """
    # An empty entry of PATH would mean the working directory.
    entries = [given, *os.environ.get("PATH", "").split(os.pathsep), *FOLDERS]
    path = os.pathsep.join(entry for entry in entries if os.path.isabs(entry))
    found = shutil.which("sbatch", path=path)
    if found is None:
        found = _from_login_shell()
    return os.path.dirname(found) if found else ""


def _from_login_shell() -> Optional[str]:
    """Return the path of sbatch in a login shell, which reads /etc/profile."""
    try:
        done = subprocess.run(
            ["bash", "-lc", "command -v sbatch"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.decode("utf-8", "replace").split()
    return lines[-1] if lines and os.access(lines[-1], os.X_OK) else None


def scheduler_of(box: BoxConfig) -> Scheduler:
    """Return the scheduler of the cluster that the box is on."""
    return Scheduler(str(box.scheduler.get("folder", "")))


class Scheduler:
    """
    The cluster's scheduler.

    Args:
        folder: The folder of Slurm's commands.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def submit(self, options: List[str], script: str) -> str:
        """
        Submit a batch script and return the job's id.

        Raises:
            Unreachable: The controller does not answer. Whether the job was accepted is
                unknown.

            SchedulerError: Slurm has refused the job.
        """
        out = self._run(["sbatch", "--parsable", *options], script)
        # A federation appends ";CLUSTER" (sbatch(1), --parsable).
        found = _ID.match(out.strip().splitlines()[-1] if out.strip() else "")
        if found is None:
            raise SchedulerError("sbatch printed no job id: %r" % out[:200])
        return found.group()

    def queue(self, *options: str) -> List[QueuedJob]:
        """
        Return this user's jobs that are in the queue.

        Args:
            options: Options of squeue that select jobs.

        Raises:
            SchedulerError: squeue has failed.
        """
        fields = "%F|%T|%K|%S|%Z|%j|%k|%r"
        words = ["squeue", "--noheader", "--array", "--user", str(os.getuid())]
        try:
            out = self._run([*words, "--format", fields, *options])
        except SchedulerError as error:
            if _UNKNOWN.search(str(error)):
                return []
            raise
        return [job for job in map(_queued_job, out.splitlines()) if job is not None]

    def ended(self, job: str, name: str, folder: str) -> Optional[Ended]:
        """
        Return how the job with this id ended, None if Slurm does not know.

        It is the job only if it has the *name*, or the *folder* as working directory
        and no name of onebox: a controller that was killed may give the id to another
        job.

        The controller forgets a job some minutes after its end. After that only a
        cluster with accounting knows it.
        """
        try:
            out = self._run(["scontrol", "--oneliner", "show", "job", job])
        except SchedulerError as error:
            if isinstance(error, Unreachable):
                raise
            out = ""
        # A job array has a record for each task. One that did not complete counts.
        lines = [line for line in out.splitlines() if _is_of(line, name, folder)]
        records = [_ended_as(line) for line in lines]
        known = [one for one in records if one is not None]
        if known:
            return next((one for one in known if one.state != "COMPLETED"), known[0])
        words = ["sacct", "--jobs", job, "--allocations", "--noheader", "--parsable2"]
        try:
            out = self._run([*words, "--format", "State,ExitCode,JobName%250"])
        except SchedulerError:
            return None
        for line in out.splitlines():
            state, code, own = (*line.split("|", 2), "", "")[:3]
            if own.strip() == name:
                # "CANCELLED by 1000" names who has cancelled the job.
                return _ended(state.split(" ")[0], code)
        return None

    def cancel(self, *options: str) -> None:
        """
        Cancel jobs, or signal them. A job that has ended is no error.

        Raises:
            Unreachable: The controller does not answer.
        """
        try:
            self._run(["scancel", "--user", str(os.getuid()), *options])
        except Unreachable:
            raise
        except SchedulerError:
            return

    def show(self, words: List[str]) -> str:
        """Return the output of a command of Slurm. Raises SchedulerError."""
        return self._run(words)

    def _run(self, words: List[str], text: str = "") -> str:
        """Return what a command of Slurm prints; it reads *text* from stdin."""
        program = os.path.join(self.folder, words[0])
        try:
            done = subprocess.run(
                [program, *words[1:]],
                input=text.encode("utf-8", "surrogateescape"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=TIMEOUT,
                check=False,
                env=_environment(self.folder),
            )
        except FileNotFoundError as error:
            raise SchedulerError("%s is missing" % program) from error
        except subprocess.TimeoutExpired as error:
            message = "%s did not answer in %.0f s" % (words[0], TIMEOUT)
            raise Unreachable(message) from error
        out = done.stdout.decode("utf-8", "replace")
        problem = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode == 0:
            return out
        message = " ".join(problem.split())[:400]
        message = message or "%s: exit %d" % (words[0], done.returncode)
        raise _error_class(problem)(message)


# Messages of a command that could not reach the controller.
_DOWN = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection refused"
    r"|Zero Bytes were transmitted|Communication connection failure"
    r"|Unable to establish controller machine|Transport endpoint is not connected",
    re.IGNORECASE,
)


def _error_class(problem: str) -> type:
    return Unreachable if _DOWN.search(problem) else SchedulerError


def _environment(folder: str) -> Dict[str, str]:
    """
    Return the environment of Slurm's commands.

    sbatch passes its environment on to the job, so it is small.
    """
    found = {name: os.environ[name] for name in KEPT if name in os.environ}
    found["PATH"] = os.pathsep.join([folder, "/usr/local/bin", "/usr/bin", "/bin"])
    return found


def _queued_job(line: str) -> Optional[QueuedJob]:
    """Return the job in a line of squeue, None if the line is something else."""
    fields: List[str] = line.split("|", 7)
    if len(fields) < 8 or not _ID.fullmatch(fields[0]):
        return None
    id, state, task, start, folder, name, comment, reason = map(str.strip, fields)
    return QueuedJob(
        id=id,
        name=name,
        state=state,
        reason="" if reason == "None" else reason,
        start="" if start in ("N/A", "") else start,
        task="" if task == "N/A" else task,
        comment=comment,
        folder=folder,
    )


def _is_of(line: str, name: str, folder: str) -> bool:
    found = _value(line, "JobName")
    if found.startswith(PREFIX):
        return found == name
    return found == name or _value(line, "WorkDir") == folder


def _ended_as(line: str) -> Optional[Ended]:
    return _ended(_value(line, "JobState"), _value(line, "ExitCode"))


def _ended(state: str, code: str) -> Optional[Ended]:
    """Return how a job with a final state and Slurm's "CODE:SIGNAL" has ended."""
    if not state or state in ACTIVE:
        return None
    numbers = _numbers(code)
    return Ended(state, *numbers)


def _numbers(text: str) -> Tuple[int, int]:
    code, _, signum = text.partition(":")
    if code.isdigit() and signum.isdigit():
        return int(code) & 0xFF, int(signum) & 0x7F
    return 0, 0


def _value(text: str, name: str) -> str:
    found: Any = re.search(r"\b%s=(\S*)" % name, text)
    return str(found.group(1)) if found else ""
