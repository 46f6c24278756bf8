"""Open a shell on the box, or run a command there, in the job's environment."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up
from onebox.errors import Lost, ProtocolError, UsageError
from onebox.jobs import job_environment, ports
from onebox.project_files import configured_outputs
from onebox.remote import answers, ssh_hosts
from onebox.remote.channel import AgentError
from onebox.store.paths import ssh_folder, state_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.providers.values import Box
    from onebox.remote.connection import SSHConnection
    from onebox.settings.ports import PortPair

# A removal that is under way gets this many seconds to end before it is reported.
REMOVAL_SECONDS = 10.0
# ssh exits with this code if its connection breaks.
SSH_FAILED = 255


def perform(
    context: BoxContext, argv: Sequence[str], forward: Sequence[str] = ()
) -> int:
    """
    Attach the terminal to a shell or a command on the box, and return its exit code.

    It runs in the job's folder, with the job's variables and virtual environment. While
    it runs, the idle lease of the box is renewed, so that the box does not power itself
    off.

    Args:
        forward: Ports to forward meanwhile, such as "8888" or "8080:80".

    Raises:
        Lost: Another command of this machine has removed the box meanwhile.
    """
    pairs = ports.of_flag(forward)
    box = bring_up.wait_until_reachable(context)
    note_login_node(context, box)
    with session(context, box, interactive=not argv) as check_not_removed:
        code = _attach(context, box, argv, pairs)
    if was_cut_off(code):
        check_not_removed()
    return code


def note_login_node(context: BoxContext, box: Box) -> None:
    """
    Say on a cluster that what follows runs on the login node, beside others.

    Raises:
        UsageError: The box is no machine, and no login node leads to one.
    """
    if box.is_folder:
        raise UsageError(
            f"{context.title} is a folder of this machine, and has no shell: "
            f"{box.host} runs only its jobs",
            next="inv run, inv logs, inv status",
        )
    if box.user_ssh:
        context.screen.note(
            f"on {box.host}, the login node: heavy work belongs in a job"
        )


def was_cut_off(code: int) -> bool:
    """Return whether a box that goes down could give a session this exit code."""
    # The box ends its processes by a signal, and ssh may or may not report that.
    return code < 0 or code > 128


@contextmanager
def session(
    context: BoxContext, box: Box, *, interactive: bool
) -> Iterator[Callable[[], None]]:
    """
    Make known that a command or a shell of the user's runs on a box during the body.

    Yields:
        A function that raises Lost if another command of this machine has removed the
        box, or is removing it.

    Raises:
        Lost: The box was removed before the session could be made known.
    """
    store = context.store
    recorded = store.record.box == box.id

    def is_being_removed() -> bool:
        return any(
            (intent.action, intent.box) == ("delete", box.id)
            for intent in store.open_intents()
        )

    def check_not_removed() -> None:
        end = time.monotonic() + REMOVAL_SECONDS
        while is_being_removed() and time.monotonic() < end:
            time.sleep(0.2)
        if is_being_removed() or (recorded and store.record.box != box.id):
            context.boxes.invalidate()
            raise Lost(
                f"{context.title} ({box.id}) was removed by another onebox command",
                next="inv status",
            )

    waits_for: list[str] = []

    def note_removal() -> None:
        removed = [one.box for one in store.open_intents() if one.action == "delete"]
        if removed and not waits_for:
            waits_for.append(removed[-1])
            context.screen.note(f"waits for the removal of {removed[-1]}")

    with store.sessions.during(
        context.invocation.command,
        box.id,
        interactive=interactive,
        blocked=note_removal,
    ):
        check_not_removed()
        store.sessions.note_session(box.id, configured_outputs(context))
        yield check_not_removed


def _attach(
    context: BoxContext, box: Box, argv: Sequence[str], pairs: Sequence[PortPair]
) -> int:
    """Attach the terminal to a shell or a command on the box; return its exit code."""
    ssh = context.ssh(box)
    options = ["-t"] if os.isatty(0) and os.isatty(1) else []
    # A single word is a line for the box's shell, as with ssh itself. Several words are
    # the parts of one command, so each is quoted for the shell.
    command = argv[0] if len(argv) == 1 else shlex.join(argv)
    try:
        words = [prepare(context, ssh, command)]
    except (AgentError, ProtocolError) as error:
        # A box whose agent or disk has a problem is still opened, to look at it.
        context.screen.warn(
            f"{error.message}: this session starts in the home folder, without the "
            "job's environment"
        )
        words = [command] if command else []
    with ports.forwarded(context, box, pairs):
        return subprocess.call([*ssh.argv(*options), *words], env=ssh.environment())


def install(context: BoxContext) -> None:
    """Let the user's own ssh, and editors that use it, reach boxes by their names."""
    folder = ssh_folder(context.environ)
    changed = ssh_hosts.install(folder, state_dir(context.environ))
    box = context.find_box()
    if box is not None and bring_up.has_booted(context, box):
        context.ssh(box)
        how = f"ssh {context.alias.name}"
    else:
        how = f"ssh {context.alias.name}, once there is a box"
    path = formatting.path(str(folder / "config"))
    context.screen.print_stage(
        "ssh",
        "done",
        "installed" if changed else "up to date",
        f"one Include line in {path}: {how}",
    )
    if folder != Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ssh":
        context.screen.note(f"HOME is not this account's, so: ssh -F {path} …")
    idle = context.settings.limits.idle_minutes
    context.screen.note(
        "a box counts as idle while only plain ssh or an editor is connected: it "
        f"powers itself off {idle:g} min after the last job or command of onebox; "
        "inv ssh keeps it on"
    )


def uninstall(context: BoxContext) -> None:
    """Take away what `install` has added to the user's ssh configuration."""
    folder = ssh_folder(context.environ)
    changed = ssh_hosts.uninstall(folder, state_dir(context.environ))
    context.screen.print_stage(
        "ssh",
        "done",
        "uninstalled" if changed else "up to date",
        f"{formatting.path(str(folder / 'config'))} has no line of onebox",
    )


def prepare(
    context: BoxContext,
    ssh: SSHConnection,
    command: str,
    *,
    env: dict[str, str] | None = None,
    guard: bool = False,
) -> str:
    """
    Return the command for the box that runs *command* as the job would run it.

    The variables, among them the values of `[run] secrets`, wait in the memory of the
    box. They are given to the first session that runs the returned command while the
    channel is open. The open channel also renews the lease.

    Args:
        command: A line for the login shell; "" stands for an interactive shell.

        env: More variables.

        guard: End the command when its input is closed; see `agent.jobs.session`.
    """
    run, environ = context.settings.run, context.environ
    missing = [name for name in run.secrets if name not in environ]
    if missing:
        context.screen.note(
            f"not in the environment here, so not on the box either: "
            f"{formatting.first_names(missing)}"
        )
    # The ssh server of a box that boots may start anew after it has answered once.
    answer = context.call_resuming(
        lambda channel: channel.request(
            "session",
            env={**job_environment.variables(context), **(env or {})},
            secrets={name: environ[name] for name in run.secrets if name in environ},
            command=command,
            guard=guard,
        ),
        ssh.box,
    )
    return ssh.agent_command(f"session {answers.session_name(answer)}")
