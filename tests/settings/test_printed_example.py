"""`inv init --example` prints every setting, made from the declared settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import toml

from onebox.settings import load
from onebox.settings.example import example
from onebox.settings.schema import keys

EVERYTHING = re.sub(r"^# ([a-z_]+ = )", r"\1", example(), flags=re.MULTILINE)


@pytest.mark.parametrize("text", [example(), EVERYTHING], ids=["default", "all"])
def test_the_example_is_a_valid_file(tmp_path: Path, text: str) -> None:
    """As it is, it changes nothing; with every key in force, it is valid too."""
    # Two ways of making an image, or units, or of reaching boxes exclude each other.
    several = r"^(packer|use|vars|params|reach) = .*\n"
    text = re.sub(several, "", text, flags=re.MULTILINE)
    # Only the user's own file may set these.
    own = "|".join(key.name for key in keys().values() if key.of_user)
    text = re.sub(rf"^({own}) = .*\n", "", text, flags=re.MULTILINE)
    (tmp_path / "onebox.toml").write_text(text)
    got = load(tmp_path, {}, {})
    (tmp_path / "onebox.toml").unlink()

    assert (got == load(tmp_path, {}, {})) == ("\nsecrets = " not in text)


def test_the_example_has_every_setting_with_its_help() -> None:
    """No key is missing, and no line is too long for a page."""
    tree = toml.loads(EVERYTHING)
    tree["size"] = {"*": tree["size"]["xlarge"]}
    for path, key in keys().items():
        table = tree
        for name in path.split("."):
            assert name in table, path
            table = table[name]
        assert key.help in example()
    assert max(map(len, example().splitlines())) <= 88
