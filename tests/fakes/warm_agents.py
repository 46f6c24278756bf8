"""
Agents of local boxes that are forked from the machine of their box.

An agent needs 0.08 s of CPU to start, and nearly each `inv` line starts one. The
machine forks it instead, if its file is this version of the agent, and if the box's own
python3 would start it. It is a process of its own, with its own command line,
environment and files. The tests of the provider, of the agent and of machines start
agents as for a user, and so does each line with variables of Python.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import pkgutil
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onebox import agent_bundle
from onebox.providers.local import path_shims
from tests.fakes import forked_process

OPTIONS = ["-I", "-S"]
# What Python sets in each new process.
HANDLERS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGPIPE: signal.SIG_IGN,
    signal.SIGXFSZ: signal.SIG_IGN,
}

_posix_spawn = os.posix_spawn


def import_agent() -> None:
    """Import all modules of an agent, which a confined process may not read."""
    package = importlib.import_module("onebox.agent")
    for module in pkgutil.walk_packages(package.__path__, "onebox.agent."):
        if not module.name.startswith("onebox.agent.slurm"):
            importlib.import_module(module.name)


def fork_agents() -> None:
    """Let this process, the machine of a box, fork agents from now on."""
    # The module of the provider that spawns processes has no other name for it.
    vars(os)["posix_spawn"] = _spawn


def _spawn(
    path: str,
    argv: list[str],
    env: Mapping[str, str],
    *,
    file_actions: Sequence[tuple[Any, ...]],
    **options: Any,
) -> int:
    """Fork an agent, or start another program as `os.posix_spawn` does."""
    through_bash = argv[:2] == ["bash", "-c"] and len(argv) == 3
    words = shlex.split(argv[2])[1:] if through_bash else argv
    python = Path(env["PATH"].partition(":")[0], "python3")
    if not _starts_agent(words, python) or (
        through_bash and argv[2] != f"exec {shlex.join(words)}"
    ):
        return _posix_spawn(path, argv, env, file_actions=file_actions, **options)
    pid = os.fork()
    if pid:
        return pid
    environ = {**env, "PWD": str(Path.cwd())}
    if through_bash:
        environ["SHLVL"] = "0"
    _run_agent(words[3:], environ, file_actions)
    return 0


def _starts_agent(words: Sequence[str], python: Path) -> bool:
    """Return whether a command starts this version of the agent."""
    if len(words) != 5 or words[1:3] != OPTIONS or words[4] not in ("serve", "watch"):
        return False
    try:
        return (
            words[0] in ("python3", str(python))
            and python.read_text() == _python()
            and Path(words[3]).read_bytes() == agent_bundle.bundle()
        )
    except OSError:
        return False


@functools.lru_cache(maxsize=1)
def _python() -> str:
    """Return the box's own python3, a script that starts this Python."""
    return f'#!/bin/sh\nexec {shlex.quote(path_shims.base_python())} "$@"\n'


def _run_agent(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    file_actions: Sequence[tuple[Any, ...]],
) -> None:
    """Run the agent in this process, to its end."""
    code = 1
    try:
        # If an object of the machine was deleted here, it would close our files.
        gc.freeze()
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, HANDLERS.get(number, signal.SIG_DFL))
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _arrange(file_actions)
        sys.executable = path_shims.base_python()
        sys.path = [path for path in sys.path if _is_of_python(path)]
        forked_process.become(
            [sys.executable, *OPTIONS, *arguments], arguments, environ
        )
        importlib.import_module("onebox.agent.main").main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    forked_process.end(code)


def _is_of_python(path: str) -> bool:
    """Return whether an entry of the search path is one with -I and -S."""
    return path.startswith(sys.base_prefix) and not path.endswith("site-packages")


def _arrange(actions: Sequence[tuple[Any, ...]]) -> None:
    """Open and copy files as `os.posix_spawn` would, and close all others."""
    for action, *numbers in actions:
        if action == os.POSIX_SPAWN_DUP2:
            os.dup2(*numbers)
        else:
            assert action == os.POSIX_SPAWN_OPEN
            number, *opening = numbers
            os.dup2(os.open(*opening), number)
    forked_process.close_all_but({0, 1, 2})
