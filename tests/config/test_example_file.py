"""onebox.toml.example: every key, its default, its sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import toml

from onebox.config import load
from onebox.config.key import Key
from onebox.config.layers import accept
from onebox.config.schema import BY_PATH, KEYS, SIZES

EXAMPLE = Path(__file__).parents[2] / "onebox.toml.example"
LINE = re.compile(r"(# )?([a-z_.]+) = ([^#]*?) *(?:# (.*))?")


def shown() -> list[tuple[Key, str, bool, str, str]]:
    """Return key, path, whether commented out, the value and the comment."""
    found = []
    table, before = "", ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            table = line[1:-1]
        match = LINE.fullmatch(line)
        if match and (match[1] is None or match[2] in {k.name for k in KEYS}):
            path = f"{table}.{match[2]}" if table else match[2]
            path = "vm" if path == "vm.default" else path
            key = BY_PATH[re.sub(r"^vm\.[a-z]+\.", "vm.*.", path)]
            comment = match[4] or before.lstrip("# ")
            found.append((key, path, match[1] is not None, match[3], comment))
        before = line if line.startswith("# ") else ""
    return found


def uncommented() -> str:
    """Return the file with every key that it shows in force."""
    keys = "|".join(sorted({key.name for key in KEYS}))
    text = EXAMPLE.read_text(encoding="utf-8")
    return re.sub(rf"^# (({keys}) = )", r"\1", text, flags=re.MULTILINE)


def test_every_key_and_no_other() -> None:
    """The example shows every key of the schema, once, in its table."""
    paths = [path for _, path, _, _, _ in shown()]
    assert len(paths) == len(set(paths))
    assert {key.path for key, *_ in shown()} == set(BY_PATH)


def test_values_are_the_defaults() -> None:
    """A key in force shows its default; one without a default is commented out."""
    for key, path, out, text, _ in shown():
        value = accept(key, toml.loads(f"v = {text}")["v"], path, "", file=True)
        if key.table == "vm.*" and key.name in ("cpus", "memory"):
            continue
        if out:
            assert key.default in (None, ()), path
            assert text == key.example
        else:
            assert value == key.default, path


def test_every_key_has_its_sentence() -> None:
    """The comment of a key is the schema's help, on its line or the one above."""
    seen = set()
    for key, path, _, _, comment in shown():
        if key.table == "vm.*" and key.path in seen:
            continue
        seen.add(key.path)
        assert comment in (key.help, f"{key.help[:-1]}: {key.example}"), path


@pytest.mark.parametrize("all_of_it", [False, True])
def test_example_is_a_valid_file(tmp_path: Path, all_of_it: bool) -> None:
    """The example is TOML and loads, also with every key in force."""
    text = uncommented() if all_of_it else EXAMPLE.read_text(encoding="utf-8")
    (tmp_path / "onebox.toml").write_text(text, encoding="utf-8")
    toml.loads(text)
    got = load(tmp_path, {}, {})
    if all_of_it:
        assert all(
            got.source(key.path) != "default"
            for key in KEYS
            if key.table != "vm.*" and key.default != {}
        )
    else:
        (tmp_path / "onebox.toml").unlink()
        assert got == load(tmp_path, {}, {})


def test_sizes_are_the_built_in_ones(tmp_path: Path) -> None:
    """The sizes that the example shows are those there are without it."""
    data = toml.loads(EXAMPLE.read_text(encoding="utf-8"))["vm"]
    assert data.pop("default") == "small"
    assert list(data) == [name for name, _, _ in SIZES]
    (tmp_path / "onebox.toml").write_bytes(EXAMPLE.read_bytes())
    assert load(tmp_path, {}, {}).sizes == load(tmp_path / "no", {}, {}).sizes
