"""Store the plan of a job in a file, for a supervisor on another machine."""

from __future__ import annotations

import json
from typing import Any, Dict

from .. import protocol
from .exec import JobPlan

# The environment and the commands of the job. The supervisor removes the file before
# the job starts, because it may contain secrets.
NAME = "plan.json"


def encode(plan: JobPlan) -> bytes:
    """Return the contents of the file of a plan, without its spec and units."""
    return protocol.dumps(
        {
            "job": plan.job,
            "commands": [[_text(word) for word in words] for words in plan.commands],
            "environment": {
                _text(key): _text(plan.environment[key]) for key in plan.environment
            },
            "grace": plan.grace,
            "max_log": plan.max_log,
            "notify": plan.notify,
        }
    )


def decode(data: bytes) -> JobPlan:
    """Return the plan that `encode` has made. Raises ValueError, KeyError."""
    fields: Dict[str, Any] = json.loads(data)
    return JobPlan(
        job=fields["job"],
        commands=[[_raw(word) for word in words] for words in fields["commands"]],
        environment={
            _raw(key): _raw(value) for key, value in fields["environment"].items()
        },
        grace=float(fields["grace"]),
        max_log=int(fields["max_log"]),
        spec={},
        notify=fields["notify"],
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
