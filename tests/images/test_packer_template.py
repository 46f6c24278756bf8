"""The facts that onebox needs are read from a Packer template in all three formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onebox.errors import ConfigError, InputError
from onebox.images import packer_template

WAY = "".join(f'variable "{name}" {{}}\n' for name in packer_template.SSH_VARIABLES)
HCL = """\
# variable "commented" {}
/* variable "out" {
} */
variable "region" {
  default = "x" // variable "no"
}
variables {
  one = 1
  two = "2"
}
source "amazon-ebs" "it" {}
build { sources = ["source.amazon-ebs.it"] }
"""


def test_hcl_variables_and_sources_are_read(tmp_path: Path) -> None:
    """Blocks in comments are ignored."""
    (tmp_path / "t.pkr.hcl").write_text(HCL)
    found = packer_template.read(tmp_path, "t.pkr.hcl")

    assert {"region", "one", "two"} == found.variables
    assert {"amazon-ebs"} == found.builders
    assert found.hcl and not found.on_a_box


def test_json_templates_of_both_languages_are_read(tmp_path: Path) -> None:
    """JSON of the older language and of HCL2 is read."""
    old = {
        "variables": dict.fromkeys([*packer_template.SSH_VARIABLES, "a"], ""),
        "builders": [{"type": "null"}],
    }
    (tmp_path / "t.json").write_text(json.dumps(old))
    found = packer_template.read(tmp_path, "t.json")
    assert {*packer_template.SSH_VARIABLES, "a"} == found.variables
    assert found.on_a_box and not found.hcl

    new = {"variable": {"a": {}}, "source": {"amazon-ebs": {"it": {}}}}
    (tmp_path / "t.pkr.json").write_text(json.dumps(new))
    found = packer_template.read(tmp_path, "t.pkr.json")
    assert {"a"} == found.variables
    assert {"amazon-ebs"} == found.builders
    assert found.hcl


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no source"),
        (
            WAY + 'source "null" "a" {}\nsource "amazon-ebs" "b" {}',
            "null source and also amazon-ebs",
        ),
        ('source "null" "a" {}', "no variable ssh_host"),
    ],
)
def test_template_that_cannot_be_built_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    """
    A template is refused if it builds nothing, mixes two ways, or cannot reach the
    box.
    """
    (tmp_path / "t.pkr.hcl").write_text(text)
    with pytest.raises(ConfigError, match=message):
        packer_template.read(tmp_path, "t.pkr.hcl")


def test_invalid_json_template_is_named(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(InputError, match=r"t\.json cannot be read"):
        packer_template.read(tmp_path, "t.json")


def test_only_declared_variables_are_passed() -> None:
    """The older language gets all values as text."""
    ours = {"region": "here", "ssh_port": 22, "tags": {"a": "b"}}
    declared = frozenset({"ssh_port", "tags", "mine"})
    new = packer_template.Template("t", True, declared, frozenset())
    data = json.loads(packer_template.variables_file(new, ours, {"mine": "x"}))
    assert {"ssh_port": 22, "tags": {"a": "b"}, "mine": "x"} == data

    old = packer_template.Template("t", False, declared, frozenset())
    data = json.loads(packer_template.variables_file(old, ours, {}))
    assert {"ssh_port": "22", "tags": '{"a": "b"}'} == data
    with pytest.raises(ConfigError, match="declares no variable min, did you mean"):
        packer_template.variables_file(new, ours, {"min": "x"})
