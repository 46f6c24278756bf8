"""Find, run, follow and interrupt the user's own Packer."""

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

from onebox.errors import ConfigError, SetupError
from onebox.images import packer_output
from onebox.images.build_log import BuildLog
from onebox.signals import signals_delayed

if TYPE_CHECKING:
    from onebox.context import BoxContext

# Packer 1.5 introduced HCL2, 1.6 made it usable, and 1.7 added `packer init`.
OLDEST = (1, 6, 0)
WITH_INIT = (1, 7, 0)
HOW_TO_GET_IT = "https://developer.hashicorp.com/packer/install, or apt install packer"


def version(context: BoxContext) -> tuple[int, ...]:
    """Return Packer's version. Raises SetupError if it is missing or too old."""
    try:
        output = subprocess.run(
            [program(context), "version", "-machine-readable"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            env=_environment(context),
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        output = ""
    match = re.search(r",version,([0-9]+)\.([0-9]+)\.([0-9]+)", output)
    if match is None:
        # The package cracklib has another program named packer, which waits for a list
        # of words.
        raise SetupError(
            "[image] packer: the packer in PATH is not HashiCorp's Packer",
            next=HOW_TO_GET_IT,
        )
    numbers = tuple(int(part) for part in match.groups())
    if numbers < OLDEST:
        raise SetupError(
            f"[image] packer: Packer {'.'.join(match.groups())} is too old; "
            f"{'.'.join(map(str, OLDEST))} or newer is required",
            next=HOW_TO_GET_IT,
        )
    return numbers


def run_command(context: BoxContext, log: BuildLog, argv: list[str]) -> None:
    """Run a short Packer command; show its output if it fails."""
    process = subprocess.run(
        argv,
        cwd=context.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env=_environment(context),
        start_new_session=True,
    )
    if process.returncode:
        for line in packer_output.parse(process.stdout.decode("utf-8", "replace")):
            show(log, line)
        log.close_line()
        raise ConfigError(
            f"[image] packer: packer {argv[1]} refuses {argv[-1]} (see above)",
            next="fix it, then run the same command again",
        )


def follow(context: BoxContext, log: BuildLog, argv: list[str], output: Path) -> int:
    """
    Run the build and show its output live; return its exit code.

    Packer runs in a session of its own, so that Ctrl-C in the terminal does not reach
    it. After an interrupt this function sends SIGINT to Packer once, waits for its
    clean-up, and raises the interrupt again.
    """
    process: subprocess.Popen[bytes] | None = None
    began = time.monotonic()
    tail = packer_output.Tail(output)

    def running() -> bool:
        return process is not None and process.poll() is None

    try:
        # Signals are delayed during the start. Otherwise an interrupt could leave a
        # running Packer whose process id onebox does not know.
        with signals_delayed():
            process = _start(context, argv, output)
        for line in tail.lines(running):
            show(log, line)
            log.footer("packer", began)
    except BaseException:
        if process is None:
            raise
        if running():
            context.screen.note("stopping Packer; it cleans up")
            # The signal goes to the process group, as a terminal sends it, because
            # Packer's first process ignores it and only supervises the second one.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        for line in tail.lines(running):
            show(log, line)
        warn_of_leftovers(context, packer_output.read(output))
        raise
    finally:
        log.close_line()
    code = process.wait()
    if not code:
        log.note_seconds("packer", time.monotonic() - began)
    return code


def _start(
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


def warn_of_leftovers(
    context: BoxContext, lines: list[packer_output.PackerLine]
) -> None:
    """Print Packer's messages about resources that it could not remove."""
    for message in packer_output.leftovers(lines):
        context.screen.warn(f"Packer left this behind: {' '.join(message.split())}")


def show(log: BuildLog, line: packer_output.PackerLine) -> None:
    """Add the text of a line of Packer's output to the log, if the line has text."""
    if line.text:
        log.add(f"{line.text.rstrip()}\n".encode())


def program(context: BoxContext) -> str:
    """Return Packer's path. Raises SetupError if it is not in PATH."""
    path = shutil.which("packer", path=context.environ.get("PATH"))
    if path is None:
        raise SetupError(
            "[image] packer: Packer is not installed here", next=HOW_TO_GET_IT
        )
    return path


def _environment(context: BoxContext) -> dict[str, str]:
    return {
        # This environment includes the [run] secrets. Packer is the user's own program
        # and may need them as its credentials.
        **context.environ,
        **context.settings.image.env,
        # Without this variable, Packer would ask HashiCorp's server for newer versions.
        "CHECKPOINT_DISABLE": "1",
        "PACKER_NO_COLOR": "1",
    }
