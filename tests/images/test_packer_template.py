"""What onebox must know of a Packer template is found in all three writings."""

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


def test_hcl(tmp_path: Path) -> None:
    """HCL2: blocks of variables and sources, but not what stands in comments."""
    (tmp_path / "t.pkr.hcl").write_text(HCL)
    found = packer_template.read(tmp_path, "t.pkr.hcl")

    assert {"region", "one", "two"} == found.variables
    assert {"amazon-ebs"} == found.builders
    assert found.hcl and not found.on_a_box


def test_json(tmp_path: Path) -> None:
    """JSON, of the older language and of HCL2."""
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
def test_what_cannot_be_built(tmp_path: Path, text: str, message: str) -> None:
    """A template that builds nothing, in two ways, or that cannot find the box."""
    (tmp_path / "t.pkr.hcl").write_text(text)
    with pytest.raises(ConfigError, match=message):
        packer_template.read(tmp_path, "t.pkr.hcl")


def test_unreadable(tmp_path: Path) -> None:
    """A template that is no JSON is named."""
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(InputError, match=r"t\.json cannot be read"):
        packer_template.read(tmp_path, "t.json")


def test_values() -> None:
    """Declared variables alone are passed; the older language gets texts."""
    ours = {"region": "here", "ssh_port": 22, "tags": {"a": "b"}}
    declared = frozenset({"ssh_port", "tags", "mine"})
    new = packer_template.Template("t", True, declared, frozenset())
    told = json.loads(packer_template.variables_file(new, ours, {"mine": "x"}))
    assert {"ssh_port": 22, "tags": {"a": "b"}, "mine": "x"} == told

    old = packer_template.Template("t", False, declared, frozenset())
    told = json.loads(packer_template.variables_file(old, ours, {}))
    assert {"ssh_port": "22", "tags": '{"a": "b"}'} == told
    with pytest.raises(ConfigError, match="declares no variable min, did you mean"):
        packer_template.variables_file(new, ours, {"min": "x"})
