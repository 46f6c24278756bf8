"""Replace the host key that a box received through its user data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onebox.providers.values import Box
from onebox.remote import answers
from onebox.remote.channel import AgentError

if TYPE_CHECKING:
    from onebox.context import BoxContext


def replace_bootstrap_key(context: BoxContext, box: Box) -> Box:
    """
    Replace the bootstrap host key by one whose private half never leaves the box.

    Others may be able to read the user data that held the first key. The new public
    key is recorded here before the box uses it: until the box's tags have it too,
    both keys are accepted, so a crash in between does not lock the user out.

    Returns:
        The box with its new key. If the agent refuses, the user is warned and the box
        keeps its first key.
    """
    if not box.bootstrap_key:
        return box
    ssh = context.ssh(box)

    def ask(operation: str, **arguments: str) -> dict[str, Any]:
        # Another command that finds no agent yet may close the shared connection.
        return ssh.call_resuming(
            lambda channel: channel.request(operation, **arguments),
            lambda error, attempt: context.liveness.check(box),
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
