"""A user's whole environment on this machine, and the checks that hold at any time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onebox
from onebox.agent.files import manifest
from onebox.store.box_store import BoxStore
from tests.box_reaper import ends_with_us
from tests.conftest import TASKS, Done, Project
from tests.fakes.object_stores.s3 import S3

PACKAGE = Path(onebox.__file__).parent
HOOK = Path(__file__).parent / "hook"
TOML = """\
[run]
command = "sh job.sh"
when = "changed"

[fetch]
outputs = ["results/"]
"""
# The job reports its result over the network, because it cannot write outside its
# box, and the report must survive the box.
NOTE = """\
bash -c "exec 3<>/dev/tcp/127.0.0.1/{port}; echo $1 >&3; read -r noted <&3"
"""
JOB = """\
read number < number.txt
echo job $number begins
sleep {seconds}
mkdir -p results
echo $number > results/$number.txt
sh note.sh $number
echo job $number ends
"""


@dataclass(frozen=True)
class Outcome:
    """
    The result of one fault: "survived", "named" or "lost", and the reason.

    Survived: all following commands succeeded. Named: at least one of them first
    ended with a OneboxError that named the next command.
    """

    kind: str
    fault: str
    verdict: str
    why: str = ""


@dataclass
class World:
    """
    A project with state, boxes and a decoy: a box of another owner.

    Attributes:
        evidence: A folder with a file for each name that a job has sent.

        port: The local port to which jobs send names.

        store: An object store, whose object "number" has the input's number too.

        named: The exit codes of commands that failed.

        wrong: The violated rules, in words.
    """

    project: Project
    evidence: Path
    port: int
    store: S3 = field(default_factory=S3)
    decoy: str = ""
    number: int = 0
    named: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    def inv(
        self, *words: str, env: Mapping[str, str] | None = None, own: Sequence[int] = ()
    ) -> Done:
        """
        Run an `inv` line; an unnamed error is noted as wrong.

        *own* are exit codes of the job that are allowed.
        """
        done = self.project.inv(*words, env=env)
        self.judge(" ".join(words), done, own)
        return done

    def judge(self, line: str, done: Done, own: Sequence[int] = ()) -> None:
        """Note how a line ended."""
        self.printed.append(f"$ inv {line}  -> {done.code}\n{done.err}")
        if done.code == -signal.SIGKILL:
            return
        if "Traceback" in done.err:
            self.wrong.append(f"inv {line}: traceback: {done.err[-1500:]}")
        elif done.code:
            self.named.append(done.code)
            if done.code in own and f"exit {done.code}" in done.err:
                return
            if not 64 <= done.code <= 78 or "onebox[" not in done.err:
                self.wrong.append(f"inv {line}: exit {done.code}: {done.err[-1500:]}")

    def begin(self) -> None:
        """Forget all notes so far."""
        self.named.clear()
        self.wrong.clear()
        self.printed.clear()

    def outcome(self, kind: str, fault: str) -> Outcome:
        """Return the outcome of everything since `begin`."""
        verdict = "lost" if self.wrong else "named" if self.named else "survived"
        why = "\n".join([*self.wrong, *self.printed]) if self.wrong else ""
        return Outcome(kind, fault, verdict, why)

    def new_number(self) -> None:
        """Change the project's input, so that the next job writes another output."""
        self.number += 1
        self.project.write("number.txt", f"{self.number}\n")
        self.store.put("bucket", "in/number", f"{self.number}\n".encode())

    def persist(self, *words: str, tries: int = 6) -> bool:
        """Type a line until it succeeds, with the suggested commands in between."""
        for _ in range(tries):
            done = self.inv(*words)
            if not done.code:
                return True
            if done.code < 0:
                self.wrong.append(f"inv {' '.join(words)}: signal {-done.code}")
            if "inv logs" in done.err and "still runs" in done.err:
                self.inv("logs")
            elif "inv fetch --partial" in done.err:
                self.inv("fetch", "--partial")
            elif "inv fetch" in done.err:
                self.inv("fetch")
        self.wrong.append(f"inv {' '.join(words)} does not succeed: {done.err[-1500:]}")
        return False

    def boxes(self) -> list[str]:
        """Return all files in the folder of the boxes, except the decoy."""
        return [name for name in self.project.boxes() if name != self.decoy]

    def forget_outputs(self) -> None:
        """Delete the outputs of jobs here."""
        remove(self.project.root / "results")
        for path in self.evidence.iterdir():
            path.unlink()

    # -- what must be true -----------------------------------------------------

    def check(self, boxes: int) -> None:
        """Note each violated rule after a successful command."""
        found = self.boxes()
        if len(found) != boxes or any(name.startswith(".") for name in found):
            self.wrong.append(f"boxes: {found} instead of {boxes}")
        self.check_files()
        self.check_outputs()
        self.check_decoy()
        for folder in self.store_folders():
            drafts = [path.name for path in folder.glob(".*")]
            if drafts:
                self.wrong.append(f"drafts are left: {drafts}")
            if BoxStore(folder).open_intents():
                self.wrong.append(f"open intents: {BoxStore(folder).open_intents()}")
        images = self.project.home / "local" / "images"
        for path in images.iterdir() if images.is_dir() else ():
            if not (path / "image.json").exists() or path.name[:2] != "oi":
                self.wrong.append(f"half an image: {path.name}")
        if not boxes:
            self.check_processes()

    def check_second(self, *words: str) -> None:
        """Note what the repetition of a line changes."""
        before = self.digests()
        self.persist(*words, tries=1)
        after = self.digests()
        changed = [n for n in {**before, **after} if before.get(n) != after.get(n)]
        if changed:
            self.wrong.append(f"a second {words} changes {sorted(changed)[:5]}")

    def check_files(self) -> None:
        """Note incomplete state files: there must be none at any moment."""
        tops = [self.project.home / "state", self.project.root / ".onebox"]
        for path in (path for top in tops for path in _json_files(top)):
            try:
                # Lines are appended, so the last one may be incomplete.
                lines = path.suffix == ".jsonl"
                data = path.read_bytes()
                for part in data.split(b"\n")[:-1] if lines else [data]:
                    json.loads(part)
            except FileNotFoundError:
                continue
            except ValueError:
                # A draft is not in use yet.
                if not _draft(path):
                    self.wrong.append(f"torn: {path}")
            if ".corrupt-" in path.name:
                self.wrong.append(f"was damaged: {path}")

    def check_outputs(self) -> None:
        """Note outputs that are neither here nor on a box."""
        for done in sorted(self.evidence.iterdir()):
            # The reports of units are judged by unit_kills.
            if done.name.startswith("unit-"):
                continue
            name, whole = f"results/{done.name}.txt", f"{done.name}\n"
            places = [self.project.root / name]
            places += [self.box_home(box) / "work" / name for box in self.boxes()]
            if not any(p.exists() and p.read_text() == whole for p in places):
                self.wrong.append(f"the output {name} is nowhere")

    def check_decoy(self) -> None:
        """Note if the box of another owner has changed."""
        if not self.decoy:
            return
        home = self.box_home(self.decoy)
        try:
            theirs = (home / "work" / "theirs.txt").read_text()
        except OSError as error:
            theirs = str(error)
        if theirs != "untouched\n":
            self.wrong.append(f"the decoy's files: {theirs}")
        mark = f"ONEBOX_BOX={self.decoy}".encode()
        alive = [pid for pid in self.processes() if mark in environ(pid)]
        # Its supervisor, its machine and its agent.
        if len(alive) < 3:
            self.wrong.append(f"of the decoy's processes only {alive} are left")

    def check_processes(self) -> None:
        """Note processes that still run although no box exists."""
        end = time.monotonic() + 120
        while left := self._strays():
            if time.monotonic() > end:
                values = [_command(pid) for pid in left]
                self.wrong.append(f"still running: {values}")
                return
            time.sleep(0.05)

    def digests(self) -> dict[str, str]:
        """Return the digest of each file in state, boxes, images and project."""
        home, root = self.project.home, self.project.root
        found = {}
        for top in (home / "state", home / "config", home / "local", root):
            for path in top.rglob("*"):
                name = str(path.relative_to(top.parent))
                if path.is_file() and not _changes_by_itself(name):
                    data = path.read_bytes()
                    found[name] = hashlib.sha256(data).hexdigest()
        return found

    def store_folders(self) -> list[Path]:
        """Return the directories with the state of a box."""
        return [path.parent for path in self.project.home.glob("state/*/*/*/journal")]

    def box_home(self, name: str) -> Path:
        """Return the home directory of a box."""
        return self.project.home / "local" / "boxes" / name / "disk" / "home"

    def _strays(self) -> list[int]:
        mark = f"ONEBOX_BOX={self.decoy}".encode()
        return [
            pid
            for pid in self.processes()
            if not self.decoy or mark not in environ(pid)
        ]

    def processes(self) -> list[int]:
        """Return all processes of this world: clients, ssh, boxes, jobs."""
        mark = os.fsencode(self.project.home) + b"/"
        return [
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if int(path.name) != os.getpid()
            and (mark in environ(int(path.name)) or mark in raw(path / "cmdline"))
        ]

    def end(self) -> None:
        """Kill all processes."""
        for _ in range(3):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def new_project(home: Path) -> Project:
    """Return a project below *home*, with the environment of a user of its own."""
    root = home / "census"
    root.mkdir(mode=0o700)
    project = Project(root, home)
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "TERM")}
    project.environ = {
        **kept,
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "ONEBOX_STATE": str(home / "state"),
        "ONEBOX_IDENTITY": str(home / "config"),
        "ONEBOX_LOCAL_ROOT": str(home / "local"),
    }
    project.write("tasks.py", TASKS)
    return project


@contextlib.contextmanager
def world(*, toml: str = TOML, seconds: float = 0.0) -> Iterator[World]:
    """Create a world with a decoy; it is removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="onebox-crash-", dir="/var/tmp"))
    ends_with_us(home)
    store = S3()
    with _evidence() as (evidence, port), store.running() as address:
        made = World(new_project(home), evidence, port, store)
        made.project.environ.update(
            AWS_ENDPOINT_URL_S3=address,
            AWS_ACCESS_KEY_ID=store.user.key,
            AWS_SECRET_ACCESS_KEY=store.user.secret,
            AWS_REGION=store.region,
        )
        made.project.write("note.sh", NOTE.format(port=port))
        made.project.write("job.sh", JOB.format(seconds=seconds))
        made.new_number()
        try:
            _add_decoy(made)
            made.project.write("onebox.toml", toml)
            yield made
        finally:
            made.end()
            remove(home)


def remove(folder: Path) -> None:
    """Delete a folder, also one that is nested deeper than Python can recurse."""
    subprocess.run(["rm", "-rf", str(folder)], check=False)


def _json_files(top: Path) -> Iterator[Path]:
    """Yield the JSON files below a folder of any depth."""
    if top.is_dir():
        for path in manifest.walk(os.fsencode(top), b"", unreadable=[]).paths:
            if b".json" in path.rpartition(b"/")[2]:
                yield top / os.fsdecode(path)


@contextlib.contextmanager
def _evidence() -> Iterator[tuple[Path, int]]:
    """Keep a file for each name that a job sends; yield the folder and the port."""
    with tempfile.TemporaryDirectory(prefix="onebox-crash-") as folder:

        class Noting(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                number = self.rfile.readline().decode().strip()
                if re.fullmatch(r"[a-z0-9-]+", number):
                    Path(folder, number).touch()
                    self.wfile.write(b"noted\n")

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Noting) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield Path(folder), server.server_address[1]
            server.shutdown()
            thread.join()


def _add_decoy(made: World) -> None:
    """Create a box of another owner with the same project and name."""
    theirs = made.project.home / "theirs"
    env = {
        "ONEBOX_IDENTITY": str(theirs / "config"),
        "ONEBOX_STATE": str(theirs / "state"),
    }
    done = made.inv("provision", env=env)
    assert not done.code, done.err
    (made.decoy,) = made.project.boxes()
    work = made.box_home(made.decoy) / "work"
    (work / "theirs.txt").write_text("untouched\n")


def _draft(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix == ".new"


def _changes_by_itself(name: str) -> bool:
    """Return whether a file changes without a command."""
    parts = name.split("/")
    return (
        parts[-1] == "lock"
        # A cache of hashes, which can be computed again.
        or parts[-1].endswith("index")
        or parts[-1].endswith((".log", ".pyc"))
        # Names for completion, as the last command that listed images saw them.
        or "image-names" in parts
        # The box changes its own state, agent and console.
        or (parts[0] == "local" and parts[1] == "boxes" and "home" not in parts)
    )


def environ(pid: int) -> bytes:
    return raw(Path(f"/proc/{pid}/environ"))


def _command(pid: int) -> str:
    return (
        raw(Path(f"/proc/{pid}/cmdline"))
        .replace(b"\0", b" ")
        .decode("utf-8", "replace")[:200]
    )


def raw(path: Path) -> bytes:
    """Return the content of a file; nothing if it does not exist."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
