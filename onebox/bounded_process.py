"""Run a program that must not run for ever, nor print without end."""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

from onebox import subprocess_env

CHUNK = 1 << 16
# The size of the error output is looked at once in this many seconds.
LOOK_SECONDS = 1.0


def run(
    argv: Sequence[str],
    data: bytes,
    *,
    seconds: float,
    most: int,
    env: Mapping[str, str] | None = None,
) -> tuple[int, bytes, bytes]:
    """
    Run a program with *data* as its input; return exit code, output and error output.

    The error output goes to a file without a name: a shared connection of ssh that the
    program leaves running may keep it open.

    Raises:
        subprocess.TimeoutExpired: The program has run for *seconds*. It was killed.

        OverflowError: It has printed more than *most* bytes. It was killed.

        FileNotFoundError: There is no such program.
    """
    until = time.monotonic() + seconds
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=subprocess_env.environment() if env is None else env,
            # It runs in a session of its own, so that Ctrl-C does not reach it and
            # onebox handles the interrupt.
            start_new_session=True,
        ) as process,
    ):
        try:
            output = _talk(process, data, until, most, errors.fileno())
            code = process.wait(max(until - time.monotonic(), 0))
        except BaseException:
            process.kill()
            raise
        errors.seek(0)
        return code, output, errors.read(most)


def _talk(
    process: subprocess.Popen[bytes], data: bytes, until: float, most: int, errors: int
) -> bytes:
    """Write *data* to a program, and read its output to the end."""
    assert process.stdin and process.stdout
    output = bytearray()
    left = memoryview(data)
    with selectors.DefaultSelector() as pipes:
        os.set_blocking(process.stdin.fileno(), False)
        for pipe, event in (
            (process.stdin, selectors.EVENT_WRITE),
            (process.stdout, selectors.EVENT_READ),
        ):
            pipes.register(pipe, event, pipe)
        while pipes.get_map():
            wait = until - time.monotonic()
            ready = pipes.select(max(min(wait, LOOK_SECONDS), 0))
            if not ready and wait <= 0:
                raise subprocess.TimeoutExpired(process.args, 0)
            for key, _ in ready:
                if key.data is process.stdin:
                    left = _send(key.fd, left)
                    ended = not left
                else:
                    part = os.read(key.fd, CHUNK)
                    output += part
                    ended = not part
                if ended:
                    pipes.unregister(key.fileobj)
                    key.data.close()
            if len(output) + os.fstat(errors).st_size > most:
                raise OverflowError
    return bytes(output)


def _send(fd: int, data: memoryview) -> memoryview:
    """Write to a pipe as much as it takes; return the rest, empty if it is closed."""
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[:0]
