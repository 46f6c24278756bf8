"""Wait until a new box accepts connections, then prepare it for its first job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.errors import BoxFailed
from onebox.providers.values import Box
from onebox.remote import answers
from onebox.remote.answers import Hello
from onebox.remote.channel import AgentError
from onebox.remote.failures import ProxyRefused
from onebox.remote.ssh_script import LONGEST_LINE, ScriptFailed, run_script

if TYPE_CHECKING:
    from onebox.context import BoxContext

POST_BOOT_SECONDS = 60.0
# A restarted box may take this many seconds to apply its new deadline, which it reads
# from the provider while it boots.
DEADLINE_SECONDS = 60.0

Doing = Callable[[str], None]


def finish_boot(context: BoxContext, box: Box, doing: Doing = lambda text: None) -> Box:
    """
    Wait until a new box accepts connections, then prepare it.

    The box's clock is compared with the provider's, the bootstrap host key is replaced,
    and the provider's post-boot script runs.

    Args:
        doing: Called with a text that says what this function waits for.

    Returns:
        The box with its address.

    Raises:
        BoxFailed: The box did not come up (the message quotes its console), or the
            post-boot script failed.
    """
    box = _wait_for_ssh(context, box, doing)
    _warn_of_clock(context, box)
    box = replace_bootstrap_key(context, box)
    _run_post_boot_script(context, box)
    if context.store.record.box == box.id:
        context.store.update(booted=True)
    return box


def has_booted(context: BoxContext, box: Box) -> bool:
    """Return whether a box runs, has an address, and is not recorded as booting."""
    record = context.store.record
    is_booting = record.box == box.id and not record.booted
    return box.state == "running" and box.has_address and not is_booting


def wait_until_reachable(
    context: BoxContext, box: Box | None = None, doing: Doing = lambda text: None
) -> Box:
    """
    Wait until a box accepts connections, and return it.

    An existing box may still be booting if the command that created it was killed.

    Args:
        box: The box to wait for; None means the current box.

    Raises:
        UsageError: There is no box, or it is off.

        BoxFailed: The box did not come up.
    """
    box = box or context.boxes.running()
    if has_booted(context, box):
        return box
    box = _wait_for_ssh(context, box, doing)
    context.boxes.set_current(box)
    return box


def _wait_for_ssh(context: BoxContext, box: Box, doing: Doing) -> Box:
    """Wait until the box accepts a connection and proves that its host key is right."""
    began, seconds = time.monotonic(), context.settings.limits.boot_minutes * 60
    poll_interval = context.provider.poll_interval

    def waited() -> str:
        return f"{time.monotonic() - began:.0f} s"

    try:
        while not box.has_address:
            doing(f"waiting for the address of {box.id}, {waited()}")
            if time.monotonic() - began > seconds:
                raise BoxFailed(f"{box.id} had no address after {seconds:.0f} s")
            time.sleep(max(poll_interval, 0.2))
            box = context.boxes.reload(box)
        context.ssh(box).open_when_up(
            seconds,
            # The checks are spaced out, because each one is an API call.
            _at_most_every(2 * poll_interval, lambda: context.boxes.check_runs(box)),
            lambda: doing(f"waiting for ssh on {box.host}, {waited()}"),
        )
    except BoxFailed as error:
        if isinstance(error.__cause__, ProxyRefused):
            # The box was never reached, so its console does not tell why.
            raise
        console = context.provider.console(box).strip().splitlines()[-5:]
        lines = [f"\n    {printable(line[:LONGEST_LINE])}" for line in console]
        raise BoxFailed(error.message + "".join(lines), next=error.next) from error
    return box


def _warn_of_clock(context: BoxContext, box: Box) -> None:
    """
    Warn if the box's clock differs from the provider's clock.

    The box powers itself off by its own clock, so the difference shifts the deadline.
    """
    ahead = context.ssh(box).clock_ahead
    difference = time.time() + ahead - context.now()
    if abs(difference) > formatting.CLOCK_SECONDS:
        shift = "earlier" if difference > 0 else "later"
        context.screen.warn(
            f"{formatting.clock_differs(ahead)} the box's: {box.id} powers itself off "
            f"{formatting.seconds(abs(difference))} {shift} than max_hours allows; "
            "correct the clock"
        )


def with_armed_deadline(context: BoxContext, box: Box) -> Box:
    """
    Return a restarted box with the deadline at which it will power itself off.

    The box reads its new deadline from the provider while it boots. If the box has not
    applied it within `DEADLINE_SECONDS`, the old deadline stays in force. In this case
    the user is warned, and the returned box has the old deadline.
    """
    until = time.monotonic() + DEADLINE_SECONDS
    while True:
        hello: Hello = context.call_resuming(
            lambda channel: Hello.parse(channel.request("hello")), box
        )
        armed = hello.deadline
        if armed is None or abs(armed - box.deadline) <= formatting.CLOCK_SECONDS:
            return box
        if time.monotonic() > until:
            break
        time.sleep(1.0)
    now = time.time()
    context.screen.warn(
        f"{box.id} did not take over its new deadline: it powers itself off at "
        f"{formatting.clock(armed, now)}, not at {formatting.clock(box.deadline, now)}"
    )
    return replace(box, deadline=armed)


def replace_bootstrap_key(context: BoxContext, box: Box) -> Box:
    """
    Replace the bootstrap host key by one whose private half never leaves the box.

    The private half of the bootstrap key came with the user data, which others may be
    able to read. The new public key is recorded on this machine before the box uses
    it. Until the box's tags hold the new key too, both keys are accepted, so that a
    crash in between does not lock the user out.

    Returns:
        The box with its new key. If the agent refuses to replace the key, the user is
        warned and the box keeps its bootstrap key.
    """
    if not box.bootstrap_key:
        return box
    ssh = context.ssh(box)

    def ask(operation: str, **arguments: str) -> dict[str, Any]:
        # A call is repeated if the connection breaks: another onebox command that
        # finds no agent on the box yet may close the ssh connection that both share.
        return ssh.call_resuming(
            lambda channel: channel.request(operation, **arguments),
            lambda error, attempt: context.boxes.check_runs(box),
        )

    try:
        new_key = answers.public_key(ask("hostkey_new"))
        if box.tags.kind == "box":
            context.store.update(host_key=new_key)
        ssh.expect(replace(box, host_key=f"{box.host_key}\n{new_key}"))
        ask("hostkey_use", public=new_key)
    except AgentError as error:
        context.screen.warn(f"{box.id} keeps its first host key: {error.message}")
        return box
    box = context.provider.set_host_key(box, new_key)
    ssh.expect(box)
    return box


def _run_post_boot_script(context: BoxContext, box: Box) -> None:
    """Run the provider's post-boot script as root; it may contain secrets."""
    script = context.provider.post_boot_script(box)
    if not script:
        return
    try:
        run_script(
            context.ssh(box),
            "sudo -n python3 -I -S -",
            script,
            seconds=POST_BOOT_SECONDS,
            # The script gets an ssh connection of its own, because another command may
            # close the shared one.
            options=["-o", "ControlPath=none"],
        )
    except ScriptFailed as error:
        why = "".join(error.lines[-1:])
        raise BoxFailed(
            f"{box.id} could not be set up to remove itself at its deadline: {why}",
            next="inv run again, or accept_no_watchdog = true",
        ) from error


def _at_most_every(seconds: float, check: Callable[[], None]) -> Callable[[], None]:
    """
    Return a function that calls *check*, but at most once in *seconds*.

    A call that comes earlier does nothing.
    """
    last = time.monotonic()

    def throttled() -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            check()

    return throttled
