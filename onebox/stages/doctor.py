"""Check everything that a run needs on this machine and at the provider."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting, subprocess_env
from onebox.errors import OneboxError, SetupError
from onebox.providers.values import Check
from onebox.settings.given import given_settings
from onebox.stages import data, job_script, preflight
from onebox.store import ssh_sockets
from onebox.store.paths import config_dir, state_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(context: BoxContext) -> None:
    """
    Print one line for each check.

    Raises:
        SetupError: A check failed: a run would fail too.
    """
    checks = [
        *_local_checks(context),
        *context.provider.checks(),
        *_credentials_check(context),
        *data.checks(context),
    ]
    if context.screen.json:
        context.screen.print_json("doctor", {"checks": checks})
    for check in checks if not context.screen.json else ():
        mark = {True: "done", False: "failed", None: "warn"}[check.ok]
        context.screen.check(check.name, mark, check.detail)
        if check.next and check.ok is not True:
            context.screen.check("", "", f"next: {check.next}")
    failed = list(dict.fromkeys(c.name for c in checks if c.ok is False))
    if failed:
        raise SetupError(f"not ready: {', '.join(failed)}")


def print_policy(context: BoxContext) -> None:
    """Print the least permissions that onebox needs at this provider."""
    context.screen.print(context.provider.policy())


def print_settings(context: BoxContext) -> None:
    """Print each setting that is given, with its value and where it comes from."""
    settings = given_settings(context.settings)
    if context.screen.json:
        context.screen.print_json("settings", {"settings": settings})
        return
    if not settings:
        context.screen.print("every setting has its default")
        return
    context.screen.table(
        ("setting", "value", "source"),
        [(one.name, one.text, one.source) for one in settings],
    )


def _credentials_check(context: BoxContext) -> Iterator[Check]:
    """Yield a warning if the credentials expire before a new box's deadline."""
    try:
        end = context.provider.credentials_expire()
    except OneboxError:
        # Missing credentials are reported by the provider's own check.
        return
    if end is None:
        return
    now, hours = time.time(), context.settings.limits.max_hours
    if end < now + hours * 3600:
        yield Check(
            "credentials",
            None,
            f"they expire at {formatting.clock(end, now)}, before the deadline of a "
            f"new box ({hours:g} h from now); a teardown after that needs new ones",
            "log in again just before a long run",
        )


def _local_checks(context: BoxContext) -> Iterator[Check]:
    version = ".".join(str(n) for n in sys.version_info[:3])
    yield Check("python", True, f"{version}, {sys.executable}")
    yield _ssh_check()
    git = shutil.which("git")
    yield Check(
        "git",
        True if git else None,
        git or "not installed; onebox reads .gitignore files without it",
    )
    yield _writable_check("state", state_dir(context.environ))
    identity = config_dir(context.environ)
    yield _writable_check("owner", identity, f"{context.owner}, in {identity}")
    try:
        folder = ssh_sockets.socket_dir(context.environ)
        yield Check("ssh sockets", True, str(folder))
    except OneboxError as error:
        yield Check("ssh sockets", False, error.message, error.next)
    yield from _configuration_checks(context)
    yield from _command_check(context)


def _command_check(context: BoxContext) -> Iterator[Check]:
    """Yield a warning if the job's command is missing, or names missing scripts."""
    command = context.settings.run.command
    if not command:
        file = context.settings.config_file
        # If there is no onebox.toml, another check has reported that.
        if (context.root / file).exists():
            yield Check(
                "command",
                None,
                f"{file} has no [run] command",
                "set it, or inv run -- python train.py",
            )
        return
    absent = job_script.describe_absent(context, command)
    if absent:
        source = context.settings.source("run.command")
        yield Check(
            "command",
            None,
            f"{source}: [run] command: {absent}",
            "correct it, unless the job or its image creates the file",
        )


def _ssh_check() -> Check:
    try:
        version = subprocess.run(
            ["ssh", "-V"],
            capture_output=True,
            text=True,
            check=False,
            env=subprocess_env.environment(),
        ).stderr.strip()
    except FileNotFoundError:
        return Check(
            "ssh", False, "there is no OpenSSH client", "apt install openssh-client"
        )
    return Check("ssh", True, version)


def _writable_check(name: str, path: Path, detail: str = "") -> Check:
    error = preflight.unwritable(path)
    if error is not None:
        return Check(name, False, f"{path}: {error.strerror}")
    return Check(name, True, detail or str(path))


def _configuration_checks(context: BoxContext) -> Iterator[Check]:
    file = context.settings.config_file
    valid = True
    for table, error in preflight.problems(context):
        # The state has a check of its own.
        if table != "state":
            own = table in (preflight.LOCAL, preflight.BOXES)
            name = table if own else file
            valid = valid and name != file
            yield Check(name, False, error.message, error.next)
    if not valid:
        return
    count = formatting.count(len(given_settings(context.settings)), "setting")
    if not (context.root / file).exists():
        yield Check(
            file,
            None,
            f"there is no {file} in {formatting.path(str(context.root))}; {count}",
            "inv init",
        )
        return
    yield Check(
        file,
        True,
        f"valid, and the files it names exist; {count} (inv doctor --settings)",
    )
