"""A project with boxes at two providers lists both."""

from __future__ import annotations

import os

import pytest

from ...conftest import Project
from ...conftest import project as project

TOML = """\
provider = "aws"
vm = "m7i.large"
[aws]
region = "us-east-1"
[run]
command = "true"
"""


@pytest.fixture
def on_aws(aws_environment: str, project: Project) -> Project:
    """A project whose provider is AWS by default."""
    variables = {name: text for name, text in os.environ.items() if name[:4] == "AWS_"}
    project.environ.update(variables)
    project.write("onebox.toml", TOML)
    return project


def test_the_list_and_the_teardown_name_boxes_of_other_providers(
    on_aws: Project,
) -> None:
    """A project may have boxes at two providers."""
    assert 0 == on_aws.inv("provision", "--provider=local", "--name=here").code
    (box,) = on_aws.boxes()

    for line in (["status"], ["teardown", "--all"]):
        done = on_aws.inv(*line)
        assert 0 == done.code, done.err
        output = done.out if line == ["status"] else done.err
        assert f"census/here ({box}) is on local, no charge" in output
        assert "inv teardown --name=here --provider=local" in output
        assert "no box is up" not in done.out
        assert "there is no box" not in done.err
    assert f"census/here   {box}" in on_aws.inv("status", "--name=here").out
    assert box not in on_aws.inv("status", "--name=main").out
    assert [box] == on_aws.boxes()

    assert 0 == on_aws.inv("teardown", "--name=here", "--provider=local").code
    assert [] == on_aws.boxes()
    assert "census: no box is up" in on_aws.inv("status").out
