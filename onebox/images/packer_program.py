"""Run HashiCorp's Packer, the user's own: find it, follow it, interrupt it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from onebox.errors import ConfigError, OneboxError
from onebox.images import packer_output
from onebox.images.builder import Log
from onebox.signals import held

if TYPE_CHECKING:
    from onebox.context import BoxContext

# HCL2 came with 1.5 and was whole enough with 1.6; older JSON templates than that
# nobody has.
OLDEST = (1, 6, 0)
WITH_INIT = (1, 7, 0)
HOW_TO_GET_IT = "https://developer.hashicorp.com/packer/install, or apt install packer"


def version(context: BoxContext) -> tuple[int, ...]:
    """Return Packer's version. Raises OneboxError if it is missing or too old."""
    try:
        done = subprocess.run(
            [program(context), "version", "-machine-readable"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            env=_environment(context),
        )
        said = done.stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    match = re.search(r",version,([0-9]+)\.([0-9]+)\.([0-9]+)", said)
    if match is None:
        # Others have a program of this name: cracklib's waits for a word list.
        raise OneboxError(
            "[image] packer: the packer in PATH is not HashiCorp's Packer",
            next=HOW_TO_GET_IT,
        )
    found = tuple(int(part) for part in match.groups())
    if found < OLDEST:
        raise OneboxError(
            f"[image] packer: Packer {'.'.join(match.groups())} is too old, "
            f"{'.'.join(map(str, OLDEST))} is the oldest that will do",
            next=HOW_TO_GET_IT,
        )
    return found


def step(context: BoxContext, log: Log, argv: list[str]) -> None:
    """Run one of Packer's short commands; what it says is shown if it fails."""
    done = subprocess.run(
        argv,
        cwd=context.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env=_environment(context),
        start_new_session=True,
    )
    if done.returncode:
        lines = packer_output.parse(done.stdout.decode("utf-8", "replace"))
        for line in lines:
            show(log, line)
        log.close_line()
        raise ConfigError(
            f"[image] packer: packer {argv[1]} refuses {argv[-1]} (see above)",
            next="mend it and run the same command again",
        )


def follow(context: BoxContext, log: Log, argv: list[str], output: Path) -> int:
    """
    Run the build, its words passed on as they come; return its exit code.

    An interrupt is passed on to Packer once, and its clean-up waited for. It has
    a session of its own, so that it gets no other from the terminal.
    """
    process: subprocess.Popen[bytes] | None = None
    began = time.monotonic()
    tail = packer_output.Tail(output)

    def runs() -> bool:
        return process is not None and process.poll() is None

    try:
        # An interrupt in the middle of its start must not leave it to itself.
        with held():
            process = _started(context, argv, output)
        for line in tail.lines(runs):
            show(log, line)
            log.footer("packer", began)
    except BaseException:
        if process is None:
            raise
        if runs():
            context.screen.note("Packer is told to stop, and cleans up")
            # To all of its processes, as a terminal does: the first of them, which
            # watches over the second, ignores it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        for line in tail.lines(runs):
            show(log, line)
        say_leftovers(context, packer_output.read(output))
        raise
    finally:
        log.close_line()
    return process.wait()


def _started(
    context: BoxContext, argv: list[str], output: Path
) -> subprocess.Popen[bytes]:
    fd = packer_output.lock(output)
    try:
        return subprocess.Popen(
            argv,
            cwd=context.root,
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            env=_environment(context),
            start_new_session=True,
        )
    finally:
        os.close(fd)


def say_leftovers(context: BoxContext, lines: list[packer_output.PackerLine]) -> None:
    """Repeat what Packer says that it could not remove."""
    for left in packer_output.leftovers(lines):
        context.screen.warn(f"Packer leaves this to you: {' '.join(left.split())}")


def show(log: Log, line: packer_output.PackerLine) -> None:
    """Pass on what a line says to its reader."""
    if line.text:
        log.add(f"{line.text.rstrip()}\n".encode())


def program(context: BoxContext) -> str:
    """Return where Packer is. Raises OneboxError if it is nowhere in PATH."""
    found = shutil.which("packer", path=context.environ.get("PATH"))
    if found is None:
        raise OneboxError(
            "[image] packer: Packer is not installed here", next=HOW_TO_GET_IT
        )
    return found


def _environment(context: BoxContext) -> dict[str, str]:
    return {
        # All of it: it is the user's own program, and its credentials may be among
        # [run] secrets.
        **context.environ,
        **context.settings.image.env,
        # It would ask its makers for a newer version.
        "CHECKPOINT_DISABLE": "1",
        "PACKER_NO_COLOR": "1",
    }
