from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys

import pytest

from onebox.providers.local import processes

from ..sshbox import SshBox, wait_until

# More than every buffer and window on the way together.
BIG = 200 * 10**6


class TestCommands:
    @pytest.mark.parametrize("code", [0, 1, 7, 255])
    def test_exit_code(self, box: SshBox, code: int) -> None:
        """A command's exit code is ssh's."""
        assert box.ssh(f"exit {code}").returncode == code

    def test_killed(self, box: SshBox) -> None:
        """A command that dies of a signal is told apart, as sshd does."""
        done = box.ssh("kill -9 $$")
        assert done.returncode == 255

    def test_streams_apart(self, box: SshBox) -> None:
        """Standard output and standard error arrive each where it belongs."""
        done = box.ssh("echo out; echo err >&2")
        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")

    def test_shell_on_stdin(self, box: SshBox) -> None:
        """Without a command, the shell reads its commands from the client."""
        done = box.ssh(data=b"echo hello\nexit 3\n")
        assert (done.stdout, done.returncode) == (b"hello\n", 3)

    def test_environment(self, box: SshBox) -> None:
        """A command sees the box's environment, and nothing of the user's own."""
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

    def test_starts_at_home(self, box: SshBox) -> None:
        """A command starts in the box's home directory, where `work` is."""
        done = box.ssh("pwd && cd work && pwd")
        home = str(box.layout.home)
        assert done.stdout.decode().split() == [home, f"{home}/work"]

    def test_signals_are_as_usual(self, box: SshBox) -> None:
        """A command that nobody reads from ends quietly, of SIGPIPE."""
        done = box.ssh("yes | head -n 1; echo ${PIPESTATUS[0]}")
        assert done.stdout == b"y\n141\n"
        assert done.stderr == b""

    def test_python(self, box: SshBox) -> None:
        """python3 and python in the box are the interpreter onebox runs by."""
        for name in ("python3", "python"):
            done = box.ssh(f"{name} -c 'import sys; print(sys.version)'")
            assert done.stdout.decode().strip() == sys.version.strip()


class TestBytes:
    def test_both_ways(self, box: SshBox) -> None:
        """200 MB arrive byte for byte, there and back at the same time."""
        piece = os.urandom(10**6)
        data = piece * (BIG // len(piece))
        done = box.ssh("cat", data=data)
        assert done.returncode == 0
        assert len(done.stdout) == BIG
        assert _digest(done.stdout) == _digest(data)

    @pytest.mark.parametrize("size", [(1 << 20) + 9000 * n for n in range(1, 9)])
    def test_slow_reader(self, box: SshBox, size: int) -> None:
        """The end of a big input reaches a command that is late in reading it."""
        slowly = "import os, time; time.sleep(0.2); n = 0\n"
        slowly += "while d := os.read(0, 20000): n += len(d); time.sleep(0.002)\n"
        done = box.ssh(f"python3 -c '{slowly}print(n)'", data=b"x" * size)
        assert int(done.stdout) == size

    def test_output_is_whole(self, box: SshBox) -> None:
        """All of a big output arrives, though its writer has long ended."""
        code = "import os, sys; p = os.urandom(1 << 20); o = sys.stdout.buffer"
        code += "; [o.write(p) for _ in range(50)]; o.flush(); sys.exit(9)"
        done = box.ssh(f"python3 -c '{code}'")
        assert (len(done.stdout), done.returncode) == (50 << 20, 9)

    def test_half_close(self, box: SshBox) -> None:
        """The end of the client's input reaches the command; its answer still comes."""
        done = box.ssh("md5sum; sleep 0.2; echo after", data=b"x" * 10**6)
        assert done.stdout.split()[0].decode() == hashlib.md5(b"x" * 10**6).hexdigest()
        assert done.stdout.endswith(b"after\n")

    def test_unread_input(self, box: SshBox) -> None:
        """A command that does not read what it is sent ends all the same."""
        done = box.ssh("exec <&-; sleep 0.2; echo done; exit 4", data=b"x" * 10**7)
        assert (done.stdout, done.returncode) == (b"done\n", 4)

    def test_background_output(self, box: SshBox) -> None:
        """Output of a child in the background is waited for, as sshd does."""
        done = box.ssh("(sleep 0.3; echo late) & echo early")
        assert done.stdout == b"early\nlate\n"


class TestConnections:
    def test_wrong_user_key(self, box: SshBox) -> None:
        """Nobody gets in with another key."""
        done = box.ssh("echo in", key="stranger")
        assert done.returncode == 255
        assert b"Permission denied" in done.stderr

    def test_wrong_user(self, box: SshBox) -> None:
        """Nobody gets in under another name."""
        done = box.ssh("echo in", options=("-l", "nobody-else"))
        assert done.returncode == 255

    def test_wrong_host_key(self, box: SshBox) -> None:
        """A client that expects another host key goes no further."""
        done = box.ssh("echo in", host_key="stranger")
        assert done.returncode == 255
        assert b"HOST IDENTIFICATION HAS CHANGED" in done.stderr

    def test_shared(self, box: SshBox) -> None:
        """Several sessions at once run over one shared connection."""
        subprocess.run(
            box.argv(options=("-M", "-N", "-f")), check=True, stdin=subprocess.DEVNULL
        )
        running = [
            subprocess.Popen(
                box.argv(f"sleep 0.2; echo {number}"), stdout=subprocess.PIPE
            )
            for number in range(5)
        ]
        said = [process.communicate()[0] for process in running]
        assert said == [f"{number}\n".encode() for number in range(5)]
        assert box.ssh("exit 5").returncode == 5
        box.ssh(options=("-O", "exit"))

    def test_break(self, box: SshBox) -> None:
        """When the connection breaks, a command is not killed: its pipes close."""
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

    def test_client_killed(self, box: SshBox) -> None:
        """When a client is gone, its command loses its pipes, whatever it has read."""
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

    def test_detached(self, box: SshBox) -> None:
        """What was started in the background lives on after its session."""
        pid = int(box.ssh("sleep 300 >/dev/null 2>&1 </dev/null & echo $!").stdout)
        wait_until(lambda: pid in processes.marked(box.box.id))
        box.ssh(f"kill {pid}")

    def test_forward(self, box: SshBox) -> None:
        """A port can be forwarded, for a notebook on the box."""
        target = f"127.0.0.1:{box.box.port}"
        done = box.ssh(options=("-W", target), data=b"")
        assert done.stdout.startswith(b"SSH-2.0-")


class TestTerminal:
    def test_command(self, box: SshBox) -> None:
        """With a terminal, a command has one, and its exit code counts."""
        done = box.ssh("test -t 0 && test -t 1 && tty; exit 6", options=("-tt",))
        assert done.stdout.startswith(b"/dev/")
        assert done.returncode == 6

    def test_is_controlling(self, box: SshBox) -> None:
        """The terminal is the command's controlling one: Ctrl-C works."""
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

    def test_shell(self, box: SshBox) -> None:
        """A shell on a terminal is interactive, and keeps the box's own PATH."""
        done = box.ssh(options=("-tt",), data=b"echo $-; command -v poweroff; exit 8\n")
        assert done.returncode == 8
        assert str(box.layout.bin / "poweroff").encode() in done.stdout

    def test_login_shell(self, box: SshBox) -> None:
        """A login shell too finds the box's own commands first."""
        done = box.ssh("bash -l -c 'command -v poweroff'")
        assert done.stdout.decode().strip() == str(box.layout.bin / "poweroff")

    def test_background(self, box: SshBox) -> None:
        """A terminal session ends with its command, whatever still holds it."""
        held = box.layout.home / "held"
        loop = f"touch {held}.on; while [ ! -e {held} ]; do sleep 0.05; done; rm {held}"
        # It must not be hung up on before it has said that it does not care.
        waits = f"while [ ! -e {held}.on ]; do sleep 0.05; done"
        done = box.ssh(f"(trap '' HUP; {loop}) & {waits}; echo over", options=("-tt",))
        # It is here although the loop, which ends only now, holds the terminal.
        assert b"over" in done.stdout
        held.touch()
        wait_until(lambda: not held.exists())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
