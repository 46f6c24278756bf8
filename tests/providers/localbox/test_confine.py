from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.providers.localbox import confine

from ..conftest import OpenBox, boxes
from ..sshbox import Keys, SshBox

ABI = confine.landlock_abi()
needs_landlock = pytest.mark.skipif(
    ABI < confine.OLDEST_ABI, reason="this kernel has no Landlock"
)


@pytest.fixture
def user_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home: a directory with a secret in it."""
    home = place / "user"
    home.mkdir()
    home.joinpath("secret").write_text("the secret")
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def inside(user_home: Path, keys: Keys) -> Iterator[SshBox]:
    """A box of the user with that home; its root lies in the home, as usual."""
    for open_box in boxes(user_home, keys):
        yield open_box()


@needs_landlock
class TestFiles:
    def test_home_of_the_user(self, inside: SshBox, user_home: Path) -> None:
        """A job can neither list, read, change nor remove the user's files."""
        for attack in (
            f"ls {user_home}",
            f"cat {user_home}/secret",
            f"echo x > {user_home}/secret",
            f"echo x > {user_home}/new",
            f"ln {user_home}/secret $HOME/stolen",
            f"mv {user_home}/secret $HOME/stolen",
        ):
            said = inside.out(attack)
            assert "denied" in said or "cross-device" in said, attack
        inside.ssh(f"rm -rf {user_home}/* {user_home}")
        assert user_home.joinpath("secret").read_text() == "the secret"

    def test_real_homes(self, inside: SshBox) -> None:
        """/root and /home are out of reach, wherever the user's own home is."""
        for path in ("/root", "/home"):
            if Path(path).is_dir():
                assert "Permission denied" in inside.out(f"ls {path}")

    def test_system(self, inside: SshBox) -> None:
        """The system can be read and run, but not changed."""
        assert inside.ssh("ls /etc /usr/bin >/dev/null && sh -c true").returncode == 0
        for path in ("/etc", "/usr/local/bin", "/var/lib"):
            assert "[1]" in inside.out(f"touch {path}/onebox-was-here")
            assert not Path(path, "onebox-was-here").exists()

    def test_own_files(self, inside: SshBox) -> None:
        """The box's own records, keys, lock and commands cannot be changed."""
        box = inside.layout
        before = box.record.read_bytes()
        for attack in (
            f"cat {box.record}",
            f"cat {box.boot}",
            f"echo x > {box.record}",
            f"echo x > {box.state}",
            f"rm {box.lock}",
            f"echo stop > {box.control}",
            f"echo x > {box.bin}/sudo",
            f"ls {box.path}",
        ):
            assert "Permission denied" in inside.out(attack), attack
        assert box.record.read_bytes() == before
        assert inside.refresh().state == "running"

    def test_what_is_allowed(self, inside: SshBox) -> None:
        """Home, the box's and the system's tmp and shared memory can be written."""
        command = "touch $HOME/a $TMPDIR/b && mkdir $HOME/c && mv $TMPDIR/b $HOME/c"
        command += " && f=$(mktemp /tmp/onebox-XXXXXX) && rm $f"
        command += " && echo x > /dev/null && f=$(mktemp /dev/shm/XXXXXX) && rm $f"
        assert inside.out(command) == "[0]"

    def test_read_setting(self, open_box: OpenBox, user_home: Path) -> None:
        """What `read` names can be read, and still not be written."""
        data = user_home / "data"
        data.mkdir()
        data.joinpath("rows").write_text("1,2,3")
        one = open_box({"read": ["~/data"]})
        assert one.out(f"cat {data}/rows") == "1,2,3[0]"
        assert "Permission denied" in one.out(f"echo x > {data}/rows")
        assert "Permission denied" in one.out(f"cat {user_home}/secret")

    def test_boxes_in_tmp(self, tmp_path: Path, keys: Keys) -> None:
        """Boxes that lie in /tmp itself are kept apart, and their notes say so."""
        if Path("/tmp") not in tmp_path.parents:
            pytest.skip("temporary directories are elsewhere")
        for open_box in boxes(tmp_path, keys):
            one, other = open_box(), open_box()
            assert any("/tmp is out of reach" in note for note in one.box.notes)
            assert "Permission denied" in one.out(f"cat {other.layout.record}")
            assert "Permission denied" in one.out(f"ls {other.layout.home}")


@pytest.mark.skipif(ABI < 6, reason="signals need Linux 6.12")
class TestProcesses:
    def test_kill(self, inside: SshBox) -> None:
        """A job cannot end, or look into, a process outside the box."""
        with subprocess.Popen(["sleep", "300"]) as victim:
            try:
                assert "[1]" in inside.out(f"kill -9 {victim.pid}")
                assert "[1]" in inside.out(f"kill -9 {os.getpid()}")
                assert "[1]" in inside.out(f"cat /proc/{victim.pid}/environ")
                assert victim.poll() is None
            finally:
                victim.kill()

    def test_kill_all(self, inside: SshBox) -> None:
        """`kill -9 -1` ends the box, as a crash would, and nothing beside it."""
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
    def test_real_programs(self, inside: SshBox) -> None:
        """The real poweroff and its like cannot be started by their full path."""
        for name in ("poweroff", "halt", "reboot", "shutdown", "systemctl"):
            for folder in ("/sbin", "/usr/sbin", "/bin", "/usr/bin"):
                program = Path(folder, name)
                if "busybox" in os.path.realpath(program) or not program.exists():
                    continue
                assert "Permission denied[126]" in inside.out(f"{program} --help")

    def test_no_new_rights(self, inside: SshBox) -> None:
        """No program started in the box can gain rights by being set-uid."""
        status = inside.out("grep NoNewPrivs /proc/self/status")
        assert status.split() == ["NoNewPrivs:", "1[0]"]

    @pytest.mark.skipif(not shutil.which("sudo"), reason="no sudo here")
    def test_real_sudo(self, inside: SshBox) -> None:
        """The real sudo, called by its path, gives nothing that was not there."""
        look = "grep CapEff /proc/self/status"
        said = inside.out(f"{shutil.which('sudo')} -n {look}")
        assert said == inside.out(look) or "no new privileges" in said

    def test_capabilities(self, inside: SshBox) -> None:
        """Nobody in the box may reboot, load modules or mount: not even root."""
        status = inside.ssh("grep -E 'CapEff' /proc/self/status").stdout
        effective = int(status.split()[1], 16)
        for capability in (16, 17, 21, 22, 27):
            assert not effective >> capability & 1


class TestNotes:
    def test_said(self, inside: SshBox) -> None:
        """A box says in a sentence each what is and what is not out of reach."""
        said = " ".join(inside.box.notes)
        if ABI >= confine.OLDEST_ABI:
            assert f"Landlock (ABI {ABI}) keeps your files" in said
            assert "Unix sockets" in said
        else:
            assert "nothing keeps the job" in said

    @pytest.mark.parametrize("abi", range(8))
    def test_every_kernel(self, abi: int) -> None:
        """There is a sentence for every kernel, and never a false one."""
        said = " ".join(confine.describe(abi))
        assert ("keeps your files" in said) == (abi >= 2)
        assert ("keeps your files and processes" in said) == (abi >= 6)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_as_ordinary_user(place: Path, keys: Keys) -> None:
    """A box of an ordinary user, without any right of root's, is as confined."""
    python = _python_of_nobody()
    nobody = 65534
    shutil.copytree(keys.directory, place / "keys")
    script = place / "script.py"
    script.write_text(_AS_NOBODY)
    for path in (place, *place.rglob("*")):
        os.chown(path, nobody, nobody)
    above = Path(__file__).resolve().parents[3]
    libraries = [path for path in sys.path if path.endswith("-packages")]
    done = subprocess.run(
        [python, str(script), str(place)],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(place),
            "PYTHONPATH": ":".join([str(above), *libraries]),
        },
        capture_output=True,
        text=True,
        user=nobody,
        group=nobody,
        extra_groups=[],
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "running [] [0, 1, 0, 1, 1]\n"


def _python_of_nobody() -> str:
    """Return an interpreter that an ordinary user can start, with asyncssh."""
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


_AS_NOBODY = """
import sys, time
from pathlib import Path
from onebox.providers.local import Local
from onebox.providers.base import Arming, HostKey, Need, Request, Tags
from tests.providers.sshbox import Keys, SshBox

place = Path(sys.argv[1])
keys = Keys(place / "keys")
local = Local({}, place / "root")
soon = time.time() + 600
request = Request(
    f"box-of-{place.name}",
    Tags("owner", "project", "main", soon, "0"),
    local.sizes(Need("small", 1, 1))[0],
    None,
    keys.public("user"),
    HostKey(keys.private("host"), keys.public("host")),
    Arming(soon, 600, 600, b"import time; time.sleep(600)"),
)
(place / "secret").write_text("secret")
one = SshBox(local, local.create(request), keys)
codes = [
    one.ssh(command).returncode
    for command in (
        "file=$(mktemp /tmp/onebox-XXXXXX) && touch ~/x && rm $file",
        f"cat {place}/secret",
        "python3 -c 'import ssl, json'",
        f"ls {place}",
        "python3 -c 'import os; os.kill(%d, 9)'" % __import__("os").getpid(),
    )
]
state = one.refresh().state
one.close()
local.delete(one.box)
print(state, local.leftovers(one.box.id), [min(code, 1) for code in codes])
"""
