"""Load the operation `download` when it is requested."""

from __future__ import annotations

from typing import Any, Dict

from .. import protocol
from ..box import BoxConfig


def download(
    channel: protocol.Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Carry out the operation that `conversation` describes."""
    # Its modules need ssl and http.client, which would make each agent's start longer.
    from . import conversation

    return conversation.download(channel, box, request)


OPS = {"download": download}
