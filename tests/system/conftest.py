"""Lines of stages that run in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.program import Program

from tests.conftest import Project
from tests.system.plugin_lines import Chain, Inv


@pytest.fixture
def inv(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Inv]:
    """
    A function that runs a line of tasks in this process and returns its exit code.
    """
    monkeypatch.chdir(project.root)
    # Invoke turns it off for the whole process.
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    for name, value in project.environ.items():
        monkeypatch.setenv(name, value)

    def run(tasks: list[Any], *words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["inv", *words])
        try:
            Program(namespace=Collection(*tasks)).run(["inv", *words])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    yield run


@pytest.fixture
def chain() -> Chain:
    """A chain of stages that create no box."""
    return Chain()
