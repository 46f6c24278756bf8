"""What a local box can read, write and reach on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onebox.providers.local import confinement, sandbox

from ..sshbox import Keys, SshBox
from .conftest import OpenBox, boxes

NOBODY = 65534
ABI = sandbox.landlock_abi()
needs_landlock = pytest.mark.skipif(
    ABI < sandbox.OLDEST_ABI, reason="this kernel has no Landlock"
)


@pytest.fixture
def user_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, with a secret in it."""
    home = place / "user"
    home.mkdir()
    home.joinpath("secret").write_text("the secret")
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def inside(user_home: Path, keys: Keys) -> Iterator[SshBox]:
    """A box of the user with that home; the boxes lie in the home, as usual."""
    for open_box in boxes(user_home, keys):
        yield open_box()


@needs_landlock
class TestFiles:
    def test_a_job_cannot_touch_the_users_home(
        self, inside: SshBox, user_home: Path
    ) -> None:
        """A job can neither list, read, change nor remove the user's files."""
        for attack in (
            f"ls {user_home}",
            f"cat {user_home}/secret",
            f"echo x > {user_home}/secret",
            f"echo x > {user_home}/new",
            f"ln {user_home}/secret $HOME/stolen",
            f"mv {user_home}/secret $HOME/stolen",
            f"chmod 777 {user_home} {user_home}/secret",
            f"touch -d 2001-01-01 {user_home}/secret",
            f"rm -rf {user_home}/* {user_home}",
        ):
            assert "secret" not in inside.ssh(attack).stdout.decode(), attack
        assert [path.name for path in sorted(user_home.iterdir())] == ["root", "secret"]
        assert user_home.joinpath("secret").read_text() == "the secret"
        assert user_home.joinpath("secret").stat().st_mtime > 10**9 + 10**8

    def test_root_and_home_are_out_of_reach(self, inside: SshBox) -> None:
        """/root and /home are out of reach, wherever the user's own home is."""
        for path in ("/root", "/home"):
            if Path(path).is_dir():
                assert "Permission denied" in inside.out(f"ls {path}")

    def test_the_system_is_read_only(self, inside: SshBox) -> None:
        """The system can be read and run, but not changed."""
        assert inside.ssh("ls /etc /usr/bin >/dev/null && sh -c true").returncode == 0
        for path in ("/etc", "/usr/local/bin", "/var/lib"):
            assert "[1]" in inside.out(f"touch {path}/onebox-was-here")
            assert not Path(path, "onebox-was-here").exists()

    def test_a_job_cannot_change_the_boxs_own_files(self, inside: SshBox) -> None:
        """The box's own records, keys, lock and commands cannot be changed."""
        box = inside.layout
        before = box.record.read_bytes()
        for attack in (
            f"cat {box.record}",
            f"cat {box.boot}",
            f"echo x > {box.record}",
            f"echo x > {box.state}",
            f"chmod 000 {box.record} {box.lock} {box.bin} {box.path}",
            f"rm {box.lock}",
            f"echo stop > {box.control}",
            f"echo x > {box.bin}/sudo",
            f"ls {box.path}",
        ):
            assert "box-" not in inside.ssh(attack).stdout.decode(), attack
        assert box.record.read_bytes() == before
        assert box.record.stat().st_mode & 0o777 == 0o600
        assert "x" != (box.bin / "sudo").read_text().strip()
        assert box.lock.exists()
        assert inside.refresh().state == "running"

    def test_home_tmp_and_shared_memory_are_writable(self, inside: SshBox) -> None:
        """The box's home, /tmp and shared memory can be written."""
        command = "touch $HOME/a $TMPDIR/b && mkdir $HOME/c && mv $TMPDIR/b $HOME/c"
        command += " && f=$(mktemp /tmp/onebox-XXXXXX) && rm $f"
        command += " && echo x > /dev/null && f=$(mktemp /dev/shm/XXXXXX) && rm $f"
        assert inside.out(command) == "[0]"

    def test_folders_in_read_are_readable_and_not_writable(
        self, open_box: OpenBox, user_home: Path
    ) -> None:
        """Folders in `read` can be read and not written."""
        data = user_home / "data"
        data.mkdir()
        data.joinpath("rows").write_text("1,2,3")
        one = open_box({"read": ["~/data"]})
        assert one.out(f"cat {data}/rows") == "1,2,3[0]"
        assert "[1]" in one.out(f"echo x > {data}/rows")
        assert data.joinpath("rows").read_text() == "1,2,3"
        assert "[1]" in one.out(f"cat {user_home}/secret")

    def test_a_linked_folder_in_read_is_found_by_its_link(
        self, open_box: OpenBox, user_home: Path
    ) -> None:
        """A folder that `read` names through a link is found by that name too."""
        data = user_home.parent / "rows"
        data.mkdir()
        data.joinpath("rows").write_text("1,2,3")
        user_home.joinpath("data").symlink_to(data)
        one = open_box({"read": ["~/data"]})
        assert one.out(f"cat {user_home}/data/rows") == "1,2,3[0]"

    def test_boxes_in_tmp_are_hidden_from_each_other(
        self, tmp_path: Path, keys: Keys
    ) -> None:
        """Boxes in /tmp itself are hidden from each other, and can write to /tmp."""
        if Path("/tmp") not in tmp_path.parents:
            pytest.skip("temporary directories are elsewhere")
        for open_box in boxes(tmp_path, keys):
            one, other = open_box(), open_box()
            assert "[1]" in one.out(f"cat {other.layout.record}")
            assert "[2]" in one.out(f"ls {other.layout.home}")
            if confinement.here().no_view:
                assert any("/tmp is out of reach" in note for note in one.box.notes)
            else:
                assert one.out("touch /tmp/file && ls /tmp/file") == "/tmp/file[0]"


@pytest.mark.skipif(ABI < 6, reason="signals need Linux 6.12")
class TestProcesses:
    def test_a_job_cannot_signal_processes_outside_its_box(
        self, inside: SshBox
    ) -> None:
        """A job cannot end or inspect a process outside the box."""
        with subprocess.Popen(["sleep", "300"]) as victim:
            try:
                assert "[1]" in inside.out(f"kill -9 {victim.pid}")
                assert "[1]" in inside.out(f"kill -9 {os.getpid()}")
                assert "[1]" in inside.out(f"cat /proc/{victim.pid}/environ")
                assert victim.poll() is None
            finally:
                victim.kill()

    def test_kill_all_ends_only_the_box(self, inside: SshBox) -> None:
        """`kill -9 -1` ends the box, as a crash would, and nothing else."""
        with subprocess.Popen(["sleep", "300"]) as victim:
            try:
                inside.ssh("kill -9 -1")
                box = inside.wait_for("stopped")
                assert "crashed" in box.why
                assert victim.poll() is None
            finally:
                victim.send_signal(signal.SIGKILL)
        assert [left.kind for left in inside.local.leftovers(box.id)] == ["directory"]


@needs_landlock
class TestPower:
    def test_the_systems_power_commands_cannot_be_run(self, inside: SshBox) -> None:
        """
        The system's poweroff and similar programs cannot be run by their full path.
        """
        for name in ("poweroff", "halt", "reboot", "shutdown", "systemctl"):
            for folder in ("/sbin", "/usr/sbin", "/bin", "/usr/bin"):
                program = Path(folder, name)
                if "busybox" in os.path.realpath(program) or not program.exists():
                    continue
                assert "Permission denied[126]" in inside.out(f"{program} --help")

    def test_set_uid_programs_gain_no_rights(self, inside: SshBox) -> None:
        """A set-uid program in the box gains no rights."""
        status = inside.out("grep NoNewPrivs /proc/self/status")
        assert status.split() == ["NoNewPrivs:", "1[0]"]

    @pytest.mark.skipif(not shutil.which("sudo"), reason="no sudo here")
    def test_the_systems_sudo_gives_no_rights(self, inside: SshBox) -> None:
        """The system's sudo, called by its path, gives no additional rights."""
        look = "grep CapEff /proc/self/status"
        output = inside.out(f"{shutil.which('sudo')} -n {look}")
        assert output == inside.out(look) or "no new privileges" in output

    def test_not_even_root_may_reboot_load_modules_or_mount(
        self, inside: SshBox
    ) -> None:
        """Not even root in the box may reboot, load modules or mount."""
        status = inside.ssh("grep -E 'CapEff' /proc/self/status").stdout
        effective = int(status.split()[1], 16)
        for capability in (16, 17, 21, 22, 27):
            assert not effective >> capability & 1


class TestProtection:
    def test_an_incomplete_confinement_is_noted(self, inside: SshBox) -> None:
        """A box has a note exactly if its confinement is incomplete."""
        found = confinement.here()
        assert list(inside.box.notes) == ([found.note] if found.note else [])
        assert bool(found.note) != found.complete

    @pytest.mark.parametrize("abi", range(8))
    @pytest.mark.parametrize("no_view", ["", "Operation not permitted"])
    def test_each_item_is_either_in_or_out_of_reach(
        self, abi: int, no_view: str
    ) -> None:
        """For every kernel, no item is listed both as in reach and as out of reach."""
        found = confinement.Protection(abi, no_view)
        kept, reached = set(found.out_of_reach), set(found.in_reach)
        assert not kept & reached
        assert ("your processes" in kept) == (abi >= 6)
        assert ("your home folder" in kept) == (abi >= 2 or not no_view)
        assert ("your terminals" in reached) == bool(no_view)
        assert ("all your files" in reached) == (abi < 2 and bool(no_view))
        assert no_view in found.describe()


@dataclass(frozen=True)
class Case:
    """The user who creates the box, and whether the kernel allows namespaces."""

    user: int
    namespaces: bool


def _cases() -> list[object]:
    root = os.getuid() == 0
    return [
        pytest.param(
            Case(user, namespaces),
            id=f"{name}-{'namespaces' if namespaces else 'landlock'}",
            marks=pytest.mark.skipif(
                user != os.getuid() and not root, reason="only root can become another"
            ),
        )
        for name, user in (("root", 0), ("ordinary", os.getuid() or NOBODY))
        for namespaces in (True, False)
    ]


@pytest.mark.parametrize("case", _cases())
def test_doctor_is_right_with_and_without_namespaces(
    place: Path, keys: Keys, case: Case
) -> None:
    """
    What doctor lists as out of reach is out of reach, with and without namespaces.
    """
    seen = _attacked(place, keys, case)
    found = confinement.Protection(ABI, seen["no_view"])
    if not case.namespaces:
        assert found.no_view
    assert seen["state"] == "running"
    assert seen["terminal"] == "mine"
    assert seen["disk_of_its_own"] == bool(not found.no_view)
    assert seen["notes"] == ([found.note] if found.note else [])
    assert seen["leftovers"] == []
    kept = " ".join(found.out_of_reach)
    for attack, phrase in (
        ("read", "home folder"),
        ("write", "files outside"),
        ("mode", "their modes"),
        ("time", "and times"),
        ("tmp", "/tmp"),
        ("var_tmp", "/var/tmp"),
        ("shm", "/dev/shm"),
        ("socket", "/tmp"),
        ("pty", "terminals"),
        ("kill", "processes"),
    ):
        if phrase in kept:
            assert seen["attacks"][attack] == "nothing happened", attack


def _attacked(place: Path, keys: Keys, case: Case) -> dict[str, Any]:
    """Create a box as this user, run an attack in it, and return what happened."""
    shutil.copytree(keys.directory, place / "keys")
    script = place / "script.py"
    script.write_text(_ATTACK)
    for path in (place, *place.rglob("*")):
        os.chown(path, case.user, case.user)
    above = Path(__file__).resolve().parents[3]
    libraries = [path for path in sys.path if path.endswith("-packages")]
    other = case.user != os.getuid()
    done = subprocess.run(
        [
            _python_of_nobody() if other else sys.executable,
            str(script),
            str(place),
            "" if case.namespaces else "denied",
        ],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(place),
            "PYTHONPATH": ":".join([str(above), *libraries]),
        },
        capture_output=True,
        text=True,
        user=case.user if other else None,
        group=case.user if other else None,
        extra_groups=[] if other else None,
        cwd="/",
        check=False,
    )
    if done.returncode == 75:
        pytest.skip(f"namespaces cannot be denied here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def _python_of_nobody() -> str:
    """Return a Python with asyncssh that an ordinary user can start."""
    libraries = [path for path in sys.path if path.endswith("-packages")]
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-c", "import asyncssh"],
                env={"PYTHONPATH": ":".join(libraries)},
                capture_output=True,
                user=65534,
                check=False,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return python
    pytest.skip("no Python with asyncssh that an ordinary user can start")


_ATTACK = """
import ctypes, json, os, secrets, socket, subprocess, sys, time
from pathlib import Path
from onebox.providers.values import BootConfig, HostKey, Request, Requirements, Tags
from onebox.providers.local import confinement
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from tests.providers.sshbox import Keys, SshBox

place = Path(sys.argv[1])
user, group = os.getuid(), os.getgid()
if sys.argv[2] == "denied":
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
        sys.exit(75)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    for kind in ("user", "mnt"):
        Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")

no_view = confinement.here().no_view
keys = Keys(place / "keys")
local = Local(LocalSettings(), place / "root")
soon = time.time() + 600
request = Request(
    f"box-of-{place.name}",
    Tags("owner", "project", "main", soon, "0"),
    local.offers(Requirements("small", 1, 1))[0],
    None,
    keys.public("user"),
    HostKey(keys.private("host"), keys.public("host")),
    BootConfig(soon, 600, 600, b"import time; time.sleep(600)"),
)
secret = place / "secret"
secret.write_text("secret")
secret.chmod(0o640)
os.utime(secret, (10**9, 10**9))
before = secret.stat()
name = "onebox-" + secrets.token_hex(8)
master, slave = os.openpty()
os.set_blocking(master, False)
server = socket.socket(socket.AF_UNIX)
server.bind(f"/tmp/{name}.socket")
server.listen()
server.setblocking(False)
victim = subprocess.Popen(["sleep", "600"])
one = SshBox(local, local.create(request), keys)

def came(look):
    try:
        return "it got through" if look() else "nothing happened"
    except (BlockingIOError, FileNotFoundError):
        return "nothing happened"

read = one.ssh(f"cat {secret}").stdout
connect = "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
for attack in (
    f"chmod 777 {secret}",
    f"touch -d 2020-02-02 {secret}",
    f"echo x > {secret}",
    f"touch /tmp/{name}",
    f"touch /var/tmp/{name}",
    f"touch /dev/shm/{name}",
    f"echo hello > {os.ttyname(slave)}",
    f"python3 -c '{connect}' /tmp/{name}.socket",
    f"kill -9 {victim.pid}",
):
    one.ssh(attack)
time.sleep(0.1)
after = secret.stat()
attacks = {
    "read": came(lambda: read),
    "write": came(lambda: secret.read_text() != "secret"),
    "mode": came(lambda: after.st_mode != before.st_mode),
    "time": came(lambda: after.st_mtime != before.st_mtime),
    "tmp": came(lambda: os.stat(f"/tmp/{name}")),
    "var_tmp": came(lambda: os.stat(f"/var/tmp/{name}")),
    "shm": came(lambda: os.stat(f"/dev/shm/{name}")),
    "socket": came(lambda: server.accept()),
    "pty": came(lambda: os.read(master, 100)),
    "kill": came(lambda: victim.poll() is not None),
}
victim.kill()
victim.wait()
terminal = one.ssh('test -t 0 && echo mine > "$(tty)"', options=("-tt",)).stdout
own = one.ssh(
    f"touch /tmp/{name} /var/tmp/{name} /dev/shm/{name} && mv $TMPDIR/{name} ~/moved"
)
for folder in ("/tmp", "/var/tmp", "/dev/shm"):
    Path(folder, name).unlink(missing_ok=True)
Path(f"/tmp/{name}.socket").unlink()
one.ssh("python3 -c 'import ssl, json, multiprocessing as m; m.Lock()'")
state, notes = one.refresh().state, list(one.box.notes)
one.close()
local.delete(one.box)
print(json.dumps({
    "no_view": no_view,
    "state": state,
    "notes": notes,
    "attacks": attacks,
    "terminal": terminal.decode().strip(),
    "disk_of_its_own": own.returncode == 0,
    "leftovers": [str(left) for left in local.leftovers(one.box.id)],
}))
"""
