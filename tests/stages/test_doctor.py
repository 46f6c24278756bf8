"""The lines of `inv doctor` about this machine."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests.conftest import Project


@pytest.mark.skipif(sys.platform != "linux", reason="other systems track fewer")
def test_doctor_has_one_line_for_the_owner_and_one_for_the_processes(
    project: Project,
) -> None:
    """The owner's id and its folder are one line."""
    shown = project.inv("doctor").out
    (owner,) = re.findall(r"^owner.*", shown, re.MULTILINE)
    assert re.fullmatch(r"owner +✓ [a-z0-9-]+, in /.*", owner)
    assert re.search(r"^processes +✓ can track daemons$", shown, re.MULTILINE)


def test_missing_onebox_toml_is_said_once_with_what_writes_it(
    project: Project,
) -> None:
    """A file that does not exist is not valid, and cannot lack a command."""
    (project.root / "onebox.toml").unlink()
    project.write("train.py", "")
    done = project.onebox("doctor")
    checks = json.loads(project.onebox("doctor", "--json").out)["checks"]

    assert 0 == done.code, done.err
    assert re.search(
        r"^onebox.toml +! there is no onebox.toml in /", done.out, re.MULTILINE
    )
    assert "next: onebox init" in done.out
    assert "valid" not in done.out
    assert "[run] command" not in done.out
    assert {"onebox.toml": None}.items() <= {c["name"]: c["ok"] for c in checks}.items()
