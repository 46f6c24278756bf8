"""
Runs the tests, and runs each failed test again, alone.

    python -m tests.rerun [arguments for pytest]

A test that fails twice fails the run. A test that passes alone is printed as
`flaky: NAME` with its first failure: it is a defect of the test or of onebox.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

# More failures are not flaky tests, and running them again would take long.
MOST = 20


class Failures:
    """
    A pytest plugin that notes what fails.

    Attributes:
        texts: The text of each test's first failure, by the test's node id.

        root: The folder that node ids are relative to.
    """

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.root = Path()

    def pytest_configure(self, config: pytest.Config) -> None:
        """Note the root folder."""
        self.root = config.rootpath

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure of a test, of its set-up or of its teardown."""
        if report.failed:
            self.texts.setdefault(report.nodeid, report.longreprtext)


def main(arguments: Sequence[str]) -> int:
    """Run pytest with *arguments*; return the exit code for the shell."""
    failures = Failures()
    code = pytest.main(list(arguments), plugins=[failures])
    if code != pytest.ExitCode.TESTS_FAILED or len(failures.texts) > MOST:
        return int(code)
    again = [name for name in failures.texts if not _passes_alone(name, failures.root)]
    flaky = {name: text for name, text in failures.texts.items() if name not in again}
    for line in summary(flaky, again):
        print(line)
    return int(code) if again or not flaky else 0


def summary(flaky: dict[str, str], failed: Iterable[str]) -> list[str]:
    """Return the lines that name the flaky tests and those that failed twice."""
    lines = []
    for name, text in flaky.items():
        lines += [f"flaky: {name}", *(f"    {line}" for line in text.splitlines())]
    return lines + [f"failed twice: {name}" for name in failed]


def _passes_alone(name: str, root: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", name]
    return subprocess.run(command, cwd=root, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
