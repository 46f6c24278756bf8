"""The supervisor of a local box: power, deadline, crashes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from onebox.errors import ProviderError
from onebox.providers.local import box_processes
from onebox.providers.local.box_supervisor import DEADLINE_MARGIN
from onebox.providers.local.layout import MARK, Layout

from ..sshbox import SshBox, wait_until
from .conftest import OpenBox

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks at processes in /proc"
)

# A daemon that ignores SIGTERM and lacks the mark of its box.
STUBBORN = "(setsid env -i bash -c 'trap \"\" TERM HUP; sleep 299; sleep 299' "
STUBBORN += ">/dev/null 2>&1 </dev/null &)"


class TestStopping:
    def test_a_stubborn_daemon_ends_with_its_box(self, open_box: OpenBox) -> None:
        """
        A daemon that ignores SIGTERM and cleared its environment ends with its box.
        """
        one = open_box()
        one.ssh(STUBBORN)
        stubborn = _tree(one)
        wait_until(lambda: "sleep\x00299" in "".join(_commands(_tree(one))))
        stubborn = _tree(one)
        one.local.delete(one.box)
        assert not [pid for pid in stubborn if _lives(pid)]

    def test_a_job_has_time_to_save_after_sigterm(self, open_box: OpenBox) -> None:
        """A job gets SIGTERM, and time to write a last line."""
        one = open_box()
        one.ssh(
            'bash -c \'trap "sleep 0.3; echo saved > ~/last; exit" TERM;'
            " touch ~/ready; while :; do sleep 0.05; done' >/dev/null 2>&1 &"
        )
        wait_until((one.layout.home / "ready").exists)
        one.local.stop(one.box)
        assert (one.layout.home / "last").read_text() == "saved\n"

    def test_a_suspended_job_handles_sigterm(self, open_box: OpenBox) -> None:
        """A suspended job is continued, so that it handles SIGTERM."""
        one = open_box()
        program = "trap 'echo saved > ~/last; exit' TERM; echo $$ > ~/pid; "
        program += "while :; do sleep 0.05; done"
        one.ssh(f'bash -c "{program.replace("$$", chr(92) + "$$")}" >/dev/null 2>&1 &')
        noted = one.layout.home / "pid"
        wait_until(lambda: noted.exists() and bool(noted.read_text().strip()))
        pid = int(noted.read_text())
        one.ssh(f"kill -STOP {pid}")
        one.local.stop(one.box)
        assert (one.layout.home / "last").read_text() == "saved\n"
        assert not _lives(pid)

    def test_a_box_without_its_supervisor_ends(self, open_box: OpenBox) -> None:
        """
        If the supervisor is killed, the machine ends by itself; a delete finds the
        rest.
        """
        one = open_box()
        one.ssh("sleep 299 >/dev/null 2>&1 &")
        one.ssh(STUBBORN)
        supervisor, everything = _supervisor(one), _tree(one)
        os.kill(supervisor, signal.SIGKILL)
        assert one.wait_for("stopped").state == "stopped"
        one.local.delete(one.box)
        wait_until(lambda: not [pid for pid in everything if _lives(pid)])

    def test_a_supervisor_that_ends_during_an_order_is_no_error(
        self, open_box: OpenBox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A delete succeeds if the supervisor ends while it receives the order."""
        one = open_box()
        supervisor = _supervisor(one)
        write, broken = os.write, []

        def late(handle: int, data: bytes) -> int:
            if data != b"deleted\n":
                return write(handle, data)
            monkeypatch.undo()
            os.kill(supervisor, signal.SIGKILL)
            wait_until(lambda: not _lives(supervisor))
            try:
                return write(handle, data)
            except BrokenPipeError:
                broken.append(handle)
                raise

        monkeypatch.setattr(os, "write", late)
        one.local.delete(one.box)
        assert broken
        assert one.local.get(one.box.id) is None

    def test_delete_finds_orphans_of_a_killed_box(self, open_box: OpenBox) -> None:
        """If supervisor and machine are killed at once, a delete ends the orphans."""
        one = open_box()
        orphan = int(one.ssh("sleep 299 >/dev/null 2>&1 & echo $!").stdout)
        supervisor = _supervisor(one)
        [machine] = box_processes.descendants(supervisor) & _by_word("machine", one)
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(machine, signal.SIGKILL)
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: one.refresh().state == "stopped")
        assert str(orphan) in [left.id for left in one.local.leftovers(one.box.id)]
        one.local.delete(one.box)
        assert not _lives(orphan)

    def test_a_box_without_its_machine_has_crashed(self, open_box: OpenBox) -> None:
        """
        If the machine is killed, the box is stopped as crashed, and nothing is left.
        """
        one = open_box()
        one.ssh("sleep 299 >/dev/null 2>&1 &")
        [machine] = _by_word("machine", one)
        os.kill(machine, signal.SIGKILL)
        box = one.wait_for("stopped")
        assert "crashed" in box.why
        assert not box_processes.marked(box.id)

    def test_a_box_ends_when_its_directory_is_removed(self, open_box: OpenBox) -> None:
        """A box ends by itself when its directory is removed."""
        one = open_box()
        shutil.rmtree(one.layout.path)
        wait_until(lambda: not box_processes.marked(one.box.id))
        assert one.local.get(one.box.id) is None

    def test_the_supervisor_enforces_the_deadline_if_the_agent_does_not(
        self, open_box: OpenBox
    ) -> None:
        """A box whose agent does nothing stops some time after its deadline."""
        one = open_box()
        one.local.stop(one.box)
        # On a slow host the deadline may pass before the box is up.
        with contextlib.suppress(ProviderError):
            one.local.start(one.box, time.time() - DEADLINE_MARGIN + 5.0)
        box = one.wait_for("stopped")
        assert "deadline" in box.why


class TestPower:
    @pytest.mark.parametrize(
        "command",
        [
            "poweroff",
            "sudo poweroff",
            "sudo shutdown -h now",
            "sudo -n /sbin/shutdown -h +0",
            "systemctl poweroff",
            "sudo init 0",
        ],
    )
    def test_power_commands_stop_only_the_box(
        self, open_box: OpenBox, command: str
    ) -> None:
        """
        A command that powers a cloud machine off stops a local box, and only that.
        """
        one = open_box()
        one.ssh(command)
        box = one.wait_for("stopped")
        assert "poweroff" in box.why
        assert one.ssh("true").returncode == 255

    def test_a_delayed_shutdown_can_be_cancelled(self, open_box: OpenBox) -> None:
        """A delayed shutdown can be cancelled; an unsupported time is refused."""
        one = open_box()
        assert one.ssh("shutdown +1").returncode == 0
        assert one.ssh("shutdown -c").returncode == 0
        refused = one.ssh("shutdown -h 23:00")
        assert refused.returncode == 1
        assert b"'+minutes', not '23:00'" in refused.stderr
        assert one.refresh().state == "running"

    def test_sudo_is_refused_for_other_commands(self, open_box: OpenBox) -> None:
        """Any other use of sudo is refused, with a reason and its own exit code."""
        one = open_box()
        done = one.ssh("sudo apt-get install x")
        assert done.returncode == 87
        assert done.stderr == b"sudo: there is no root in the local box\n"
        assert one.ssh("systemctl restart x").returncode == 1

    def test_a_reboot_keeps_disk_port_and_deadline(self, open_box: OpenBox) -> None:
        """A reboot keeps disk, port and deadline, and changes the boot id."""
        one = open_box()
        pid = int(
            one.ssh("echo kept > ~/file; sleep 299 >/dev/null 2>&1 & echo $!").stdout
        )
        before = _agent_json(one)
        one.ssh("sudo reboot")
        wait_until(
            lambda: (
                _agent_json(one)["boot_id"] != before["boot_id"]
                and one.refresh().state == "running"
            )
        )
        assert one.refresh().port == one.box.port
        assert one.ssh("cat ~/file").stdout == b"kept\n"
        assert not _lives(pid)
        assert _agent_json(one)["deadline"] == before["deadline"]


class TestBooting:
    def test_the_agent_starts_with_its_configuration(self, open_box: OpenBox) -> None:
        """The box starts its agent at boot, with a complete box.json."""
        one = open_box()
        wait_until(lambda: "agent.pyz\x00watch" in "".join(_commands(_tree(one))))
        config = _agent_json(one)
        assert config["box"] == one.box.id
        assert config["home"] == str(one.layout.home)
        assert config["work"] == str(one.layout.home / one.box.work)
        assert config["deadline"] == one.box.deadline
        assert (config["setup_grace"], config["idle_grace"]) == (600, 600)
        assert Path(config["poweroff"][0]).exists()
        assert abs(config["armed"] - time.time()) < 600
        assert one.box.agent == str(one.layout.agent / "agent.pyz")

    def test_a_restart_keeps_the_disk_and_removes_old_notices(
        self, open_box: OpenBox
    ) -> None:
        """A restarted box has its disk, a new boot id, and no old notice or lease."""
        one = open_box()
        one.ssh("echo kept > ~/file; touch ~/../onebox/notice ~/../onebox/lease")
        before = _agent_json(one)
        one.local.stop(one.box)
        deadline = time.time() + 1234
        one.box = one.local.start(one.box, deadline)
        after = _agent_json(one)
        assert one.ssh("cat ~/file").stdout == b"kept\n"
        assert after["boot_id"] != before["boot_id"]
        assert after["deadline"] == deadline
        assert not (one.layout.agent / "notice").exists()
        assert not (one.layout.agent / "lease").exists()

    def test_starting_a_running_box_changes_nothing(self, open_box: OpenBox) -> None:
        """Starting a running box changes nothing."""
        one = open_box()
        assert one.local.start(one.box, 0.0) == one.box

    def test_a_box_outlives_the_command_that_created_it(
        self, open_box: OpenBox
    ) -> None:
        """The supervisor is not a child of the command that created the box."""
        one = open_box()
        supervisor = _supervisor(one)
        assert supervisor not in box_processes.descendants(os.getpid())
        assert os.getsid(supervisor) != os.getsid(0)


def _agent_json(one: SshBox) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((one.layout.agent / "box.json").read_bytes())
    return config


def _lives(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def _by_word(word: str, one: SshBox) -> set[int]:
    """Return the processes of a box that run this module."""
    return {
        pid
        for pid in box_processes.marked(one.box.id)
        if f"\x00{word}\x00" in "".join(_commands({pid}))
        and sys.executable in "".join(_commands({pid}))
    }


def _supervisor(one: SshBox) -> int:
    [pid] = _by_word("box_supervisor", one)
    return pid


def _tree(one: SshBox) -> set[int]:
    return box_processes.descendants(_supervisor(one))


def _commands(pids: set[int]) -> list[str]:
    found = []
    for pid in pids:
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace"))
        except OSError:
            continue
    return found


def test_a_longer_box_id_with_the_same_beginning_is_another_box() -> None:
    """A process is found by the exact id of its box, and not by a prefix of it."""
    pid = os.posix_spawn(
        shutil.which("sleep") or "sleep", ["sleep", "30"], {MARK: "box-10"}
    )
    try:
        assert pid in box_processes.marked("box-10")
        assert pid not in box_processes.marked("box-1")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_process_is_found_during_its_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is found even in the moment of its exec."""
    sleep = shutil.which("sleep") or "sleep"

    def listing(_: str) -> list[str]:
        pid = os.posix_spawn(sleep, ["sleep", "30"], {MARK: "box-11"})
        started.append(pid)
        return [str(pid)]

    for _ in range(30):
        started: list[int] = []
        monkeypatch.setattr(os, "listdir", listing)
        found = box_processes.marked("box-11")
        monkeypatch.undo()
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert found == set(started)


def test_leftovers_that_cannot_be_removed_hide_no_box(open_box: OpenBox) -> None:
    """Leftovers of a crash that cannot be removed, as on a full disk, hide no box."""
    one = open_box()
    left = Layout(one.layout.path.with_name(f".new-{one.box.id}"))
    left.lock.mkdir(parents=True)
    try:
        assert [one.box.id] == [box.id for box in one.local.find(one.box.tags.owner)]
    finally:
        shutil.rmtree(left.path)
