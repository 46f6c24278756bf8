"""The table of all requests that the complete agent answers."""

from __future__ import annotations

from typing import Dict

from . import host_key, server
from .files import file_ops, striping
from .jobs import job_ops

OPS: Dict[str, server.Op] = {
    **server.OPS,
    **job_ops.OPS,
    **file_ops.OPS,
    **striping.OPS,
    **host_key.OPS,
}
