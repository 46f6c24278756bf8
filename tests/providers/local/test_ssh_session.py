"""Commands, terminals and connections of the ssh server of a local box."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys

import pytest

from onebox.providers.local import box_processes

from ..sshbox import SshBox, wait_until

# More bytes than all buffers and windows between the two ends can hold.
BIG = 200 * 10**6


class TestCommands:
    @pytest.mark.parametrize("code", [0, 1, 7, 255])
    def test_ssh_exits_with_the_commands_code(self, box: SshBox, code: int) -> None:
        """ssh exits with the exit code of the command."""
        assert box.ssh(f"exit {code}").returncode == code

    def test_a_command_killed_by_a_signal_is_reported_as_by_sshd(
        self, box: SshBox
    ) -> None:
        """A command that dies of a signal is reported as sshd does."""
        done = box.ssh("kill -9 $$")
        assert done.returncode == 255

    def test_stdout_and_stderr_are_separate(self, box: SshBox) -> None:
        """Standard output and standard error arrive separately."""
        done = box.ssh("echo out; echo err >&2")
        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")

    def test_without_a_command_the_shell_reads_stdin(self, box: SshBox) -> None:
        """Without a command, the shell reads commands from standard input."""
        done = box.ssh(data=b"echo hello\nexit 3\n")
        assert (done.stdout, done.returncode) == (b"hello\n", 3)

    def test_a_command_has_the_boxs_environment_only(self, box: SshBox) -> None:
        """A command has the box's environment, and nothing of the user's."""
        os.environ["AWS_SECRET_ACCESS_KEY"] = "secret"
        try:
            done = box.ssh("env -0")
        finally:
            del os.environ["AWS_SECRET_ACCESS_KEY"]
        found = dict(
            line.split("=", 1) for line in done.stdout.decode().split("\0") if line
        )
        assert found["HOME"] == str(box.layout.home)
        assert found["TMPDIR"] == str(box.layout.tmp)
        assert found["ONEBOX_BOX"] == box.box.id
        assert found["PATH"].startswith(f"{box.layout.bin}:")
        assert set(found) <= {
            *("HOME", "PATH", "SHELL", "USER", "LOGNAME", "LANG", "TMPDIR"),
            *("ONEBOX_BOX", "PWD", "SHLVL", "_", "OLDPWD"),
        }

    def test_a_command_starts_in_the_home_directory(self, box: SshBox) -> None:
        """A command starts in the box's home directory, which contains `work`."""
        done = box.ssh("pwd && cd work && pwd")
        home = str(box.layout.home)
        assert done.stdout.decode().split() == [home, f"{home}/work"]

    def test_a_command_has_default_signal_handlers(self, box: SshBox) -> None:
        """A command whose output is not read ends quietly of SIGPIPE."""
        done = box.ssh("yes | head -n 1; echo ${PIPESTATUS[0]}")
        assert done.stdout == b"y\n141\n"
        assert done.stderr == b""

    def test_python_in_the_box_is_the_interpreter_of_onebox(self, box: SshBox) -> None:
        """python3 and python in the box are the interpreter that runs onebox."""
        for name in ("python3", "python"):
            done = box.ssh(f"{name} -c 'import sys; print(sys.version)'")
            assert done.stdout.decode().strip() == sys.version.strip()


class TestBytes:
    def test_200_mb_arrive_unchanged_in_both_directions(self, box: SshBox) -> None:
        """200 MB arrive byte for byte, in both directions at the same time."""
        piece = os.urandom(10**6)
        data = piece * (BIG // len(piece))
        done = box.ssh("cat", data=data)
        assert done.returncode == 0
        assert len(done.stdout) == BIG
        assert _digest(done.stdout) == _digest(data)

    @pytest.mark.parametrize("size", [(1 << 20) + 9000 * n for n in range(1, 9)])
    def test_a_slow_reader_gets_the_end_of_its_input(
        self, box: SshBox, size: int
    ) -> None:
        """The end of a large input reaches a command that reads slowly."""
        slowly = "import os, time; time.sleep(0.2); n = 0\n"
        slowly += "while d := os.read(0, 20000): n += len(d); time.sleep(0.002)\n"
        done = box.ssh(f"python3 -c '{slowly}print(n)'", data=b"x" * size)
        assert int(done.stdout) == size

    def test_all_output_arrives_after_the_command_has_ended(self, box: SshBox) -> None:
        """All of a large output arrives, even if the command has ended long before."""
        code = "import os, sys; p = os.urandom(1 << 20); o = sys.stdout.buffer"
        code += "; [o.write(p) for _ in range(50)]; o.flush(); sys.exit(9)"
        done = box.ssh(f"python3 -c '{code}'")
        assert (len(done.stdout), done.returncode) == (50 << 20, 9)

    def test_output_continues_after_the_end_of_the_input(self, box: SshBox) -> None:
        """
        The end of the client's input reaches the command, and its output still arrives.
        """
        done = box.ssh("md5sum; sleep 0.2; echo after", data=b"x" * 10**6)
        assert done.stdout.split()[0].decode() == hashlib.md5(b"x" * 10**6).hexdigest()
        assert done.stdout.endswith(b"after\n")

    def test_a_command_that_reads_no_input_ends(self, box: SshBox) -> None:
        """A command that does not read its input still ends."""
        done = box.ssh("exec <&-; sleep 0.2; echo done; exit 4", data=b"x" * 10**7)
        assert (done.stdout, done.returncode) == (b"done\n", 4)

    def test_output_of_a_background_child_arrives(self, box: SshBox) -> None:
        """The output of a child in the background is read to its end, as with sshd."""
        done = box.ssh("(sleep 0.3; echo late) & echo early")
        assert done.stdout == b"early\nlate\n"


class TestConnections:
    def test_another_key_is_refused(self, box: SshBox) -> None:
        """A login with another key is refused."""
        done = box.ssh("echo in", key="stranger")
        assert done.returncode == 255
        assert b"Permission denied" in done.stderr

    def test_another_user_is_refused(self, box: SshBox) -> None:
        """A login as another user is refused."""
        done = box.ssh("echo in", options=("-l", "nobody-else"))
        assert done.returncode == 255

    def test_a_client_with_another_known_host_key_disconnects(
        self, box: SshBox
    ) -> None:
        """A client that expects another host key disconnects."""
        done = box.ssh("echo in", host_key="stranger")
        assert done.returncode == 255
        assert b"HOST IDENTIFICATION HAS CHANGED" in done.stderr

    def test_sessions_share_a_connection(self, box: SshBox) -> None:
        """Several sessions run at the same time over one shared connection."""
        subprocess.run(
            box.argv(options=("-M", "-N", "-f")), check=True, stdin=subprocess.DEVNULL
        )
        running = [
            subprocess.Popen(
                box.argv(f"sleep 0.2; echo {number}"), stdout=subprocess.PIPE
            )
            for number in range(5)
        ]
        outputs = [process.communicate()[0] for process in running]
        assert outputs == [f"{number}\n".encode() for number in range(5)]
        assert box.ssh("exit 5").returncode == 5
        box.ssh(options=("-O", "exit"))

    def test_a_broken_connection_closes_the_pipes_of_its_command(
        self, box: SshBox
    ) -> None:
        """When the connection breaks, a command is not killed; its pipes are closed."""
        witness = box.layout.home / "witness"
        command = f"cat; echo $? > {witness}"
        client = subprocess.Popen(
            box.argv(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(b"x")
            client.stdin.flush()
            assert client.stdout.read(1) == b"x"
            client.send_signal(signal.SIGKILL)
        wait_until(witness.exists)

    def test_a_killed_client_closes_the_pipes_of_its_command(self, box: SshBox) -> None:
        """
        When a client is killed, its command's pipes are closed, whatever was read
        before.
        """
        witness = box.layout.home / "killed"
        command = "trap '' PIPE; while echo x; do sleep 0.05; done 2>/dev/null"
        subprocess.run(
            box.argv(options=("-M", "-N", "-f")), check=True, stdin=subprocess.DEVNULL
        )
        client = subprocess.Popen(
            box.argv(f"{command}; touch {witness}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(b"x" * (3 << 20))
            client.stdin.flush()
            assert client.stdout.read(1) == b"x"
            client.send_signal(signal.SIGKILL)
        wait_until(witness.exists)
        assert "BrokenPipeError" not in box.layout.log.read_text()
        box.ssh(options=("-O", "exit"))

    def test_a_background_process_outlives_its_session(self, box: SshBox) -> None:
        """A process in the background outlives its session."""
        pid = int(box.ssh("sleep 300 >/dev/null 2>&1 </dev/null & echo $!").stdout)
        wait_until(lambda: pid in box_processes.marked(box.box.id))
        box.ssh(f"kill {pid}")

    def test_a_port_can_be_forwarded(self, box: SshBox) -> None:
        """A port can be forwarded, for example for a notebook on the box."""
        target = f"127.0.0.1:{box.box.port}"
        done = box.ssh(options=("-W", target), data=b"")
        assert done.stdout.startswith(b"SSH-2.0-")


class TestTerminal:
    def test_a_command_with_a_terminal_returns_its_exit_code(self, box: SshBox) -> None:
        """A command can have a terminal, and ssh exits with its exit code."""
        done = box.ssh("test -t 0 && test -t 1 && tty; exit 6", options=("-tt",))
        assert done.stdout.startswith(b"/dev/")
        assert done.returncode == 6

    def test_ctrl_c_reaches_the_command(self, box: SshBox) -> None:
        """The terminal is the command's controlling terminal, so Ctrl-C works."""
        script = "trap 'echo caught; exit 3' INT; echo ready; read x; sleep 9"
        client = subprocess.Popen(
            box.argv(script, options=("-tt",)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with client:
            assert client.stdin is not None
            assert client.stdout is not None
            assert client.stdout.readline() == b"ready\r\n"
            client.stdin.write(b"\x03")
            client.stdin.flush()
            assert b"caught" in client.stdout.read()
        assert client.returncode == 3

    def test_a_shell_on_a_terminal_is_interactive(self, box: SshBox) -> None:
        """A shell on a terminal is interactive and has the box's PATH."""
        done = box.ssh(options=("-tt",), data=b"echo $-; command -v poweroff; exit 8\n")
        assert done.returncode == 8
        assert str(box.layout.bin / "poweroff").encode() in done.stdout

    def test_a_login_shell_finds_the_boxs_commands_first(self, box: SshBox) -> None:
        """A login shell too finds the box's own commands first."""
        done = box.ssh("bash -l -c 'command -v poweroff'")
        assert done.stdout.decode().strip() == str(box.layout.bin / "poweroff")

    def test_a_terminal_session_ends_with_its_command(self, box: SshBox) -> None:
        """
        A terminal session ends with its command, even if another process uses the
        terminal.
        """
        held = box.layout.home / "held"
        loop = f"touch {held}.on; while [ ! -e {held} ]; do sleep 0.05; done; rm {held}"
        # The hang-up must not come before the process ignores SIGHUP.
        waits = f"while [ ! -e {held}.on ]; do sleep 0.05; done"
        done = box.ssh(f"(trap '' HUP; {loop}) & {waits}; echo over", options=("-tt",))
        # ssh has returned although the loop, which ends only now, holds the terminal.
        assert b"over" in done.stdout
        held.touch()
        wait_until(lambda: not held.exists())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
