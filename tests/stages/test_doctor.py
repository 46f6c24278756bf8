"""The lines of `inv doctor` about this machine."""

from __future__ import annotations

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
