"""Wait until a box lets us in, and see to it that its host key is known to nobody."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onebox import formatting, subprocess_env
from onebox.agent.file_names import printable
from onebox.errors import BoxFailed
from onebox.providers.base import Box
from onebox.remote import answers
from onebox.remote.answers import Hello
from onebox.remote.channel import AgentError

if TYPE_CHECKING:
    from onebox.context import BoxContext

ERRAND_SECONDS = 60.0
# How much of a line is quoted that a box has printed.
LONGEST_LINE = 400
# A box that was started again takes so long at most to learn its new deadline.
DEADLINE_SECONDS = 60.0


def wait(
    context: BoxContext, box: Box, seconds: float, doing: Callable[[str], None]
) -> Box:
    """
    Wait until the box lets us in, and see to all that it needs from then on.

    Returns:
        The box as it is by then, with its address.

    Raises:
        BoxFailed: It did not come up; what its console said last is quoted.
    """
    box = _open(context, box, seconds, doing)
    _compare_clocks(context, box)
    box = secure(context, box)
    _run_errand(context, box)
    if context.store.record.box == box.id:
        context.remember(arrived=True)
    return box


def arrived(context: BoxContext, box: Box) -> bool:
    """Tell whether a box has come up, as far as is known here."""
    record = context.store.record
    has_address = bool(box.host and box.host_key)
    unseen = record.box == box.id and not record.arrived
    return box.state == "running" and has_address and not unseen


def ready(
    context: BoxContext,
    box: Box | None = None,
    doing: Callable[[str], None] = lambda text: None,
) -> Box:
    """
    Return the box once it lets us in: the command that has made it may be gone.

    Raises:
        UsageError: There is none, or it is off.

        BoxFailed: It did not come up.
    """
    box = box or context.running_box()
    if arrived(context, box):
        return box
    boot = context.settings.limits.boot_minutes * 60
    box = _open(context, box, boot, doing)
    context.made_again(box)
    return box


def _open(
    context: BoxContext, box: Box, seconds: float, doing: Callable[[str], None]
) -> Box:
    """Wait until the box lets us in with the host key that it was made with."""
    began = time.monotonic()

    def waited() -> str:
        return f"{time.monotonic() - began:.0f} s"

    try:
        while not (box.host and box.host_key):
            doing(f"waiting for {box.id} to have an address, {waited()}")
            if time.monotonic() - began > seconds:
                raise BoxFailed(f"{box.id} had no address after {seconds:.0f} s")
            time.sleep(max(context.provider.poll_interval, 0.2))
            box = context.look_at(box)
        context.ssh(box).open_when_up(
            seconds,
            _now_and_then(
                context.provider.poll_interval, lambda: context.still_there(box)
            ),
            lambda: doing(f"waiting for ssh on {box.host}, {waited()}"),
        )
    except BoxFailed as error:
        console = context.provider.console(box).strip().splitlines()[-5:]
        said = "".join(f"\n    {printable(line[:LONGEST_LINE])}" for line in console)
        raise BoxFailed(f"{error.message}{said}", next=error.next) from error
    return box


def _compare_clocks(context: BoxContext, box: Box) -> None:
    """Warn of a clock that differs from the box's: its deadline goes by that."""
    ahead = context.ssh(box).ahead
    off = time.time() + ahead - context.now()
    if abs(off) > formatting.CLOCK_SECONDS:
        then = "earlier" if off > 0 else "later"
        context.screen.warn(
            f"{formatting.clock_differs(ahead)} the box's: {box.id} powers itself off "
            f"{formatting.seconds(abs(off))} {then} than max_hours says; set it"
        )


def check_deadline(context: BoxContext, box: Box) -> Box:
    """
    Return a box that was started again with the deadline that it goes by itself.

    It learns its new one while it boots, from its provider. One that does not is
    named: it is what counts.
    """
    until = time.monotonic() + DEADLINE_SECONDS
    while True:
        hello: Hello = context.resuming(
            lambda channel: Hello.parse(channel.ask("hello")), box
        )
        own = hello.deadline
        if own is None or abs(own - box.deadline) <= formatting.CLOCK_SECONDS:
            return box
        if time.monotonic() > until:
            break
        time.sleep(1.0)
    now = time.time()
    context.screen.warn(
        f"{box.id} has not taken its new deadline over: it powers itself off at "
        f"{formatting.clock(own, now)}, not at {formatting.clock(box.deadline, now)}"
    )
    return replace(box, deadline=own)


def secure(context: BoxContext, box: Box) -> Box:
    """
    Have the box answer with a host key that never left it, if it does not yet.

    The first one went through user data, which others may be able to read. The
    new one is written down here before the box uses it, and with the box after:
    so a crash in between locks nobody out.
    """
    if not box.bootstrap_key:
        return box
    ssh = context.ssh(box)

    def ask(op: str, **what: str) -> dict[str, Any]:
        # Another command that finds no agent there yet ends the shared connection.
        return ssh.resuming(
            lambda channel: channel.ask(op, **what),
            lambda error, attempt: context.still_there(box),
        )

    try:
        fresh = answers.public_key(ask("hostkey_new"))
        if box.tags.kind == "box":
            context.remember(host_key=fresh)
        ssh.expect(replace(box, host_key=f"{box.host_key}\n{fresh}"))
        ask("hostkey_use", public=fresh)
    except AgentError as error:
        context.screen.warn(f"{box.id} keeps its first host key: {error.message}")
        return box
    box = context.provider.set_host_key(box, fresh)
    ssh.expect(box)
    return box


def _run_errand(context: BoxContext, box: Box) -> None:
    """Have root do on the box what its provider wants done there, with its secrets."""
    program = context.provider.post_boot_script(box)
    if not program:
        return
    try:
        done = subprocess.run(
            # Alone: another command may end the connection that all share.
            [
                *context.ssh(box).argv("-o", "ControlPath=none"),
                "sudo -n python3 -I -S -",
            ],
            input=program,
            capture_output=True,
            check=False,
            timeout=ERRAND_SECONDS,
            env=subprocess_env.environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise _endless(box, f"no answer within {ERRAND_SECONDS:.0f} s") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise _endless(box, printable("".join(said)[:LONGEST_LINE]))


def _endless(box: Box, why: str) -> BoxFailed:
    return BoxFailed(
        f"{box.id} could not be made to end itself: {why}",
        next="inv run once more, or accept_no_watchdog = true",
    )


def _now_and_then(poll_interval: float, look: Callable[[], None]) -> Callable[[], None]:
    """Return *look*, done at most every few seconds where each look is a call."""
    last = time.monotonic()

    def sometimes() -> None:
        nonlocal last
        if time.monotonic() - last >= 2 * poll_interval:
            last = time.monotonic()
            look()

    return sometimes
