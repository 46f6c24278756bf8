"""Run a script on a box over ssh, without the agent."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Sequence

from onebox import subprocess_env
from onebox.agent.file_names import printable
from onebox.errors import BoxFailed, ProtocolError
from onebox.remote.connection import SSHConnection

# Error messages quote at most this many characters of a line that the box printed.
LONGEST_LINE = 400
# A script may print at most this many bytes; the scripts of onebox print far less.
LONGEST_OUTPUT = 1 << 22
CHUNK = 1 << 16


class ScriptFailed(BoxFailed):
    """
    A script on the box failed or did not end in time.

    *exit* is the script's exit code. It is None after a timeout, and 255 also if ssh
    itself failed. *lines* are the last lines of the script's error output, escaped for
    a terminal.
    """

    def __init__(self, message: str, exit: int | None, lines: Sequence[str]) -> None:
        super().__init__(message)
        self.exit = exit
        self.lines = tuple(lines)


def run_script(
    ssh: SSHConnection,
    command: str,
    script: bytes,
    *,
    seconds: float,
    options: Sequence[str] = (),
) -> str:
    """
    Run a script on the box and return its output.

    Args:
        command: The command on the box, which reads the script from its stdin.

        options: Options for ssh.

    Raises:
        ScriptFailed: The exit code is not 0, or the script takes longer than *seconds*.

        ProtocolError: The box sends more than `LONGEST_OUTPUT` bytes.
    """
    try:
        code, output, errors = _run(
            [*ssh.argv(*options), command], script, time.monotonic() + seconds
        )
    except subprocess.TimeoutExpired as error:
        text = f"no answer within {seconds:.0f} s"
        raise ScriptFailed(f"{ssh.box.id}: {text}", None, [text]) from error
    except OverflowError as error:
        raise ProtocolError(
            f"{ssh.box.id} sent more than {LONGEST_OUTPUT >> 20} MiB as the output of "
            "a script, which was discarded",
            next="inv ssh looks at the box; inv teardown --discard-outputs gives it up",
        ) from error
    if code:
        lines = errors.decode("utf-8", "replace").strip().splitlines()[-5:]
        raise ScriptFailed(
            f"{ssh.box.id}: a script failed with exit {code}",
            code,
            [printable(line[:LONGEST_LINE]) for line in lines],
        )
    return output.decode("utf-8", "replace")


def _run(argv: Sequence[str], data: bytes, until: float) -> tuple[int, bytes, bytes]:
    """
    Run a program with *data* as its input; return exit code, output and error output.

    Raises TimeoutExpired at the time *until* (`time.monotonic`), and OverflowError if
    the program prints more than `LONGEST_OUTPUT` bytes.
    """
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=subprocess_env.environment(),
        # ssh runs in a session of its own, so that Ctrl-C does not reach it and
        # onebox handles the interrupt.
        start_new_session=True,
    ) as process:
        try:
            assert process.stdin and process.stdout and process.stderr
            output, errors = bytearray(), bytearray()
            left = memoryview(data)
            with selectors.DefaultSelector() as pipes:
                os.set_blocking(process.stdin.fileno(), False)
                pipes.register(
                    process.stdin, selectors.EVENT_WRITE, (process.stdin, None)
                )
                for pipe, text in ((process.stdout, output), (process.stderr, errors)):
                    pipes.register(pipe, selectors.EVENT_READ, (pipe, text))
                while pipes.get_map():
                    ready = pipes.select(max(until - time.monotonic(), 0))
                    if not ready:
                        raise subprocess.TimeoutExpired(argv, 0)
                    for key, _ in ready:
                        pipe, received = key.data
                        if received is None:
                            left = _send(key.fd, left)
                            ended = not left
                        else:
                            part = os.read(key.fd, CHUNK)
                            received += part
                            ended = not part
                        if ended:
                            pipes.unregister(pipe)
                            pipe.close()
                    if len(output) + len(errors) > LONGEST_OUTPUT:
                        raise OverflowError
            code = process.wait(max(until - time.monotonic(), 0))
        except BaseException:
            process.kill()
            raise
    return code, bytes(output), bytes(errors)


def _send(fd: int, data: memoryview) -> memoryview:
    """Write to a pipe as much as it takes; return the rest, empty if it is closed."""
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[:0]
