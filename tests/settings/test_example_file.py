"""onebox.toml.example and the JSON Schema: made from the declared settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toml

from onebox.settings import load
from onebox.settings.fields import Key
from onebox.settings.json_schema import json_schema
from onebox.settings.layers import read_value
from onebox.settings.schema import SIZES, keys
from tests.settings.schema_validator import schema_validator

EXAMPLE = Path(__file__).parents[2] / "onebox.toml.example"
LINE = re.compile(r"(# )?([a-z_.]+) = ([^#]*?) *(?:# (.*))?")
KEYS = list(keys().values())


def example_keys() -> list[tuple[Key, str, bool, str, str]]:
    """Return key, path, whether it is commented out, value and help of each line."""
    found = []
    table, before = "", ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            table = line[1:-1]
        match = LINE.fullmatch(line)
        if match and (match[1] is None or match[2] in {key.name for key in KEYS}):
            path = f"{table}.{match[2]}" if table else match[2]
            key = keys()[re.sub(r"^size\.[a-z]+\.", "size.*.", path)]
            comment = match[4] or before.lstrip("# ")
            found.append((key, path, match[1] is not None, match[3], comment))
        before = line if line.startswith("# ") else ""
    return found


def uncommented() -> str:
    """Return the example with all keys uncommented."""
    names = "|".join(sorted({key.name for key in KEYS}))
    text = EXAMPLE.read_text(encoding="utf-8")
    return re.sub(rf"^# (({names}) = )", r"\1", text, flags=re.MULTILINE)


def test_the_example_shows_every_setting_once() -> None:
    """The example shows every setting, in its table, and nothing else."""
    paths = [path for _, path, _, _, _ in example_keys()]
    assert len(paths) == len(set(paths))
    assert {key.path for key, *_ in example_keys()} == set(keys())


def test_the_values_of_the_example_are_the_defaults() -> None:
    """A key in force shows its default; one without a default is commented out."""
    for key, path, commented_out, text, _ in example_keys():
        value = read_value(key, toml.loads(f"v = {text}")["v"], path, "", file=True)
        if key.table == "size.*" and key.name in ("cpus", "memory"):
            continue
        if commented_out:
            assert key.default in (None, (), ""), path
            assert text == key.example
        else:
            assert value == key.default, path


def test_the_example_has_the_help_of_every_setting() -> None:
    """The comment of a key is its help, on its line or on the line above."""
    seen = set()
    for key, path, _, _, comment in example_keys():
        if key.table == "size.*" and key.path in seen:
            continue
        seen.add(key.path)
        assert comment in (key.help, f"{key.help[:-1]}: {key.example}"), path


@pytest.mark.parametrize("everything", [False, True])
def test_the_example_is_a_valid_file(tmp_path: Path, everything: bool) -> None:
    """The example loads as it is, and with every key in force."""
    text = uncommented() if everything else EXAMPLE.read_text(encoding="utf-8")
    if everything:
        # The example shows these keys, but only the user's own file may set them.
        of_user = {key.path for key in KEYS if key.of_user}
        lines, table = [], ""
        for line in text.splitlines():
            table = line[1:-1] if line.startswith("[") else table
            if f"{table}.{line.partition(' ')[0]}" not in of_user:
                lines.append(line)
        text = "\n".join(lines)
    (tmp_path / "onebox.toml").write_text(text, encoding="utf-8")
    got = load(tmp_path, {}, {})
    if everything:
        assert all(
            got.source(key.path) != "default"
            for key in KEYS
            if key.table != "size.*" and key.default != {} and not key.of_user
        )
    else:
        (tmp_path / "onebox.toml").unlink()
        assert got == load(tmp_path, {}, {})


def test_the_example_shows_the_built_in_sizes(tmp_path: Path) -> None:
    """The sizes of the example are those that exist without it."""
    sizes = toml.loads(EXAMPLE.read_text(encoding="utf-8"))["size"]
    assert list(sizes) == [size.name for size in SIZES]
    (tmp_path / "onebox.toml").write_bytes(EXAMPLE.read_bytes())
    assert load(tmp_path, {}, {}).sizes == load(tmp_path / "no", {}, {}).sizes


def schema_errors(document: dict[str, Any]) -> list[str]:
    """Return the errors of the JSON Schema for a document."""
    validator = schema_validator()(json_schema())
    return [error.json_path for error in validator.iter_errors(document)]


@pytest.mark.parametrize("everything", [False, True])
def test_the_example_follows_the_json_schema(everything: bool) -> None:
    """The JSON Schema itself is valid, and accepts the example."""
    schema_validator().check_schema(json_schema())
    text = uncommented() if everything else EXAMPLE.read_text(encoding="utf-8")
    assert schema_errors(toml.loads(text)) == []
    profile = '[tags]\ncost-center = "42"\n[profile.gpu]\nvm = "large"\n'
    assert (
        schema_errors(toml.loads(f"{profile}[profile.gpu.limits]\nretries = 1")) == []
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('provdier = "aws"', "$"),
        ('provider = "azure"', "$.provider"),
        ("[limits]\nretries = 1.5", "$.limits.retries"),
        ("[limits]\nmax_hours = 1000", "$.limits.max_hours"),
        ('[aws]\nsubnet = "net-1"', "$.aws.subnet"),
        ('[push]\ncode = ["a", "a"]', "$.push.code"),
        ('[size.big]\naws = ["n2-standard-4"]', "$.size.big.aws"),
        ("[size.Big]\ncpus = 4", "$.size"),
        ("[run.env]\nA = [4]", "$.run.env.A"),
        ("[local.rehearse]\nboot_delay = -1", "$.local.rehearse.boot_delay"),
        ("[profile.gpu]\nspot = 1", "$.profile.gpu.spot"),
        ("[profile.gpu.limits]\nretries = 1.5", "$.profile.gpu.limits.retries"),
        ("[profile.gpu.profile.x]\nspot = true", "$.profile.gpu"),
        ("[profile.GPU]\nspot = true", "$.profile"),
    ],
)
def test_the_json_schema_refuses_what_the_settings_refuse(text: str, path: str) -> None:
    """Unknown keys, wrong kinds, ranges, patterns and words are in the schema."""
    assert schema_errors(toml.loads(text)) == [path]


def test_the_module_prints_the_json_schema() -> None:
    """`python -m onebox.settings.json_schema` prints the schema as JSON."""
    command = [sys.executable, "-m", "onebox.settings.json_schema"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout)["properties"]["limits"]["properties"]["max_log"] == {
        "type": ["string", "number"],
        "description": "The box keeps only start and end of a longer log.",
        "default": "5 GB",
    }
