"""The end of a job in words."""

from __future__ import annotations

from typing import Any

import pytest

from onebox.jobs.follow import describe
from onebox.remote.job_answers import ExitRecord


@pytest.mark.parametrize(
    ("record", "printed"),
    [
        ({"cause": "exit", "code": 0}, "exit 0"),
        ({"cause": "exit", "code": 139}, "exit 139 (SIGSEGV)"),
        ({"cause": "signal", "code": 137, "signal": 9}, "exit 137, killed by SIGKILL"),
        (
            {
                "cause": "oom",
                "code": 137,
                "signal": 9,
                "memory_peak": 251 << 30,
                "memory_largest": "python3",
            },
            "exit 137, killed: out of memory at 251 GB (python3)",
        ),
        ({"cause": "oom", "code": 137}, "exit 137, killed: out of memory"),
        ({"cause": "disk-full", "code": 1}, "exit 1, the box's disk is full"),
        ({"cause": "cancel", "code": 143, "signal": 15}, "exit 143, cancelled"),
        (
            {"cause": "exit", "code": 0, "survivors": ("sleep 9",)},
            "exit 0; ended what it left running: sleep 9",
        ),
    ],
)
def test_exit_description_names_code_and_cause(
    record: dict[str, Any], printed: str
) -> None:
    """Code and cause are named, and the process that used the memory if it ran out."""
    assert printed == describe(ExitRecord("j-1", **record))
