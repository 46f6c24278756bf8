"""The table [map]: parameters, ranges, folders, and what it excludes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toml

from onebox.errors import ConfigError, InputError
from onebox.settings import Settings, load
from onebox.settings.given import given_settings
from onebox.settings.json_schema import json_schema
from onebox.settings.load import check_files
from onebox.settings.map_table import MapTable
from onebox.settings.toml_file import parse
from tests.settings.schema_validator import schema_validator


def read(root: Path, text: str, **flags: object) -> Settings:
    (root / "onebox.toml").write_text(text, encoding="utf-8")
    return load(root, {}, flags)


def message(root: Path, text: str) -> str:
    """Return the message of the error that a file causes."""
    with pytest.raises(ConfigError) as caught:
        read(root, text)
    return caught.value.message


def test_without_the_table_there_are_no_units(tmp_path: Path) -> None:
    """All settings of [map] have defaults."""
    assert load(tmp_path, {}, {}).map == MapTable()
    assert MapTable().outputs == "results/{unit}/"


def test_parameters_are_texts_in_the_order_of_the_file(tmp_path: Path) -> None:
    """A list of several types, a range and a table of lines are read alike."""
    expected = {
        "zeta": ("1", "2", "3"),
        "alpha": ("0.1", "1", "10"),
        "on": ("true", "false", "x y"),
    }
    inline = (
        "[map]\nover = { zeta = '1..3', alpha = [0.1, 1, 10], "
        'on = [true, false, "x y"] }\n'
    )
    lines = (
        "[map.over]\nzeta = [\n  1, # one\n  2,\n  3,\n]\nalpha=[0.1,1,10]\n"
        'on = [true,false,"x y"]\n'
    )
    for text in (inline, lines):
        got = read(tmp_path, text).map.over
        assert got == expected
        assert list(got) == list(expected)


@pytest.mark.parametrize(
    ("typed", "texts"),
    [
        ("1e-5, 0.10, 1.0, +3, -2", ("1e-5", "0.10", "1.0", "+3", "-2")),
        ("1_000, 0x1F, 0o17, 0b11", ("1000", "31", "15", "3")),
        ("inf, -inf, nan", ("inf", "-inf", "nan")),
        ('"a,b", "c # d", \'e]\', 5', ("a,b", "c # d", "e]", "5")),
        ('"",1', ("", "1")),
    ],
)
def test_a_number_stays_as_it_is_typed(
    tmp_path: Path, typed: str, texts: tuple[str, ...]
) -> None:
    """The text of a number in a list of [map] is that of the file, in all profiles."""
    assert read(tmp_path, f"map.over.a = [{typed}]\n").map.over["a"] == texts
    assert read(tmp_path, f"map.over = {{ a = [{typed}] }}").map.over["a"] == texts
    text = f"[profile.p.map.over]\na = [{typed}]\n"
    assert read(tmp_path, text, profile="p").map.over["a"] == texts


def test_lists_of_other_tables_stay_as_they_are() -> None:
    """Only the lists of [map] become lists of strings, and no line moves."""
    text = "[map]\nover = { a = [\n1] }\n[run]\nports = [1, 2]\n[run.env]\nmap = 3\n"
    values = {entry.path: (entry.value, entry.line) for entry in parse(text)}
    assert values[("map", "over", "a")] == (["1"], 2)
    assert values[("run", "ports")] == ([1, 2], 5)
    assert values[("run", "env", "map")] == (3, 7)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1..3", ("1", "2", "3")),
        ("-1..1", ("-1", "0", "1")),
        ("0..10..5", ("0", "5", "10")),
        ("0..9..5", ("0", "5")),
        ("3..1..-1", ("3", "2", "1")),
        ("7..7", ("7",)),
    ],
)
def test_a_range_has_its_last_number(
    tmp_path: Path, text: str, values: tuple[str, ...]
) -> None:
    """A range counts from its first number to its last, in steps."""
    assert read(tmp_path, f'map.over.n = "{text}"').map.over == {"n": values}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('"1..100001"', '"1..100001" has 100,001 values; at most 100,000 are possible'),
        ('"1..900000000000000"', '"1..900000000000000" has 900,000,000,000,000 values'),
        ('"3..1"', '"3..1" is empty'),
        ('"1..5..0"', '"1..5..0" has a step of 0'),
        ('"01..10"', '"01..10": a number begins with 0 or is too long'),
        ('"0.1..0.5"', "expected a list of values, or a range"),
        ('"abc"', 'expected a list of values, or a range such as "1..50", got "abc"'),
        ("5", "expected a list of values, or a range"),
        ("[]", "got an empty list"),
        ("[1, 2, 1]", '"1" is listed twice'),
        ('[1, "1"]', '"1" is listed twice'),
        ("[[1, 2]]", "got a list in it"),
        ('["a\\u0001"]', "contains a control character"),
        ('["a\\u0000"]', "contains a control character"),
    ],
)
def test_wrong_values_are_refused_with_line_and_name(
    tmp_path: Path, value: str, problem: str
) -> None:
    """The error names the parameter and its line."""
    text = message(tmp_path, f"[map.over]\nb = [1]\nn = {value}\n")
    assert text.startswith("onebox.toml:3: [map.over] n: ")
    assert problem in text


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "BASH_ENV",
        "PYTHONPATH",
        "IFS",
        "SHELL",
        "ONEBOX_JOB",
        "onebox_unit",
        "unit",
        "outputs",
        '"a b"',
        '"1"',
        '"a-b"',
        '"ü"',
    ],
)
def test_names_that_no_parameter_can_have(tmp_path: Path, name: str) -> None:
    """A parameter is a placeholder and a variable of its unit."""
    text = message(tmp_path, f"[map.over]\n{name} = [1]\n")
    assert text.startswith("onebox.toml:2: [map.over] ")


def test_all_wrong_parameters_are_reported_at_once(tmp_path: Path) -> None:
    """A message has a line for each mistake."""
    text = message(tmp_path, "[map.over]\nPATH = [1]\nn = 5\nk = []\n")
    assert [line.partition(": [")[0] for line in text.splitlines()] == [
        "onebox.toml:2",
        "onebox.toml:3",
        "onebox.toml:4",
    ]


def test_parameters_of_a_profile_replace_those_of_the_same_name(tmp_path: Path) -> None:
    """Parameters are set one by one, like the variables of a job."""
    text = "[map.over]\na = [1]\nb = [2]\n[profile.p.map.over]\na = [3, 4]\n"
    got = read(tmp_path, text, profile="p")
    assert got.map.over == {"a": ("3", "4"), "b": ("2",)}
    assert got.source("map.over.a") == "profile p (onebox.toml:5)"
    assert got.source("map.over.b") == "onebox.toml:3"


def test_python_code_gives_lists_and_ranges(tmp_path: Path) -> None:
    """A dict of lists, tuples, Python ranges and texts is a value of the setting."""
    flags = {"map.over": {"a": range(3), "b": (0.1, True), "c": "1..2"}}
    assert load(tmp_path, {}, flags).map.over == {
        "a": ("0", "1", "2"),
        "b": ("0.1", "true"),
        "c": ("1", "2"),
    }
    with pytest.raises(ConfigError, match=r"map\.over: b: expected a list"):
        load(tmp_path, {}, {"map.over": {"a": [1], "b": 2}})


def test_a_file_and_a_table_of_parameters_exclude_each_other(tmp_path: Path) -> None:
    """The error names the file's line; an empty name of a file is none."""
    text = '[map]\nparams = "p.csv"\nover = { a = [1] }\n'
    assert message(tmp_path, text) == (
        "onebox.toml:2: [map] params: excludes over: a unit's values have one source"
    )
    assert read(tmp_path, text.replace("p.csv", "")).map.params is None


@pytest.mark.parametrize("key", ["env", "secrets"])
def test_a_parameter_is_no_variable_of_the_job(tmp_path: Path, key: str) -> None:
    """Both would set the same variable of a unit."""
    run = "env = { A = 1 }" if key == "env" else 'secrets = ["A"]'
    text = f"[run]\n{run}\n[map.over]\nb = [1]\nA = [1]\n"
    assert message(tmp_path, text) == (
        f"onebox.toml:5: [map.over] A: A is in [run] {key} too"
    )
    with pytest.raises(ConfigError, match=r"map.over: A is in \[run\]"):
        read(tmp_path, f"[run]\n{run}\n", **{"map.over": {"A": [1]}})


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("/tmp/{unit}", "is not relative to the project"),
        ("~/{unit}", "is not relative to the project"),
        ("../{unit}", "leaves the project"),
        ("a/../b/{unit}", "contains .."),
        ("./{unit}", "contains a . folder"),
        ("{unit}/", "has a placeholder in its first folder"),
        ("run-{unit}/x", "has a placeholder in its first folder"),
        ("results/", 'is the same folder for all units; write "results/{unit}/"'),
        (".git/{unit}", "version control"),
        (".onebox/{unit}", "belongs to onebox"),
        (".venv/{unit}", "is in .venv"),
        ("a/.venv/{unit}", "is in .venv"),
        ("a/*/{unit}", "is a pattern"),
        ("", "is not a path"),
    ],
)
def test_the_folder_of_a_unit_is_below_a_fixed_folder_of_the_project(
    tmp_path: Path, folder: str, problem: str
) -> None:
    """Other folders are refused with their line."""
    text = message(tmp_path, f'[map]\noutputs = "{folder}"\n')
    assert text.startswith("onebox.toml:2: [map] outputs: ")
    assert problem in text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("cpus = 0", "0 is out of range; use 1 to 2048"),
        ("cpus = 1.5", "expected a whole number"),
        ('memory = "10 KB"', "is out of range"),
        ("retries = -1", "out of range; use 0 to 100"),
        ('command = " "', "is empty"),
        ('params = "../p.csv"', "leaves the project"),
        ("over = 5", "expected a table of parameters such as"),
        ('over = "1..5"', "expected a table of parameters such as"),
    ],
)
def test_other_wrong_settings_are_refused(
    tmp_path: Path, line: str, problem: str
) -> None:
    """Each has its line and what is expected."""
    text = message(tmp_path, f"[map]\n{line}\n")
    assert text.startswith("onebox.toml:2: [map] ")
    assert problem in text


def test_the_table_belongs_to_one_project(tmp_path: Path) -> None:
    """A setting for all projects cannot have it."""
    from onebox.settings import Places

    (tmp_path / "config.toml").write_text("[map]\ncpus = 2\n")
    (tmp_path / "config.toml").chmod(0o600)
    with pytest.raises(ConfigError, match="belongs to one project"):
        load(tmp_path, {}, {}, Places(user_file=tmp_path / "config.toml"))


def test_the_file_of_parameters_has_to_exist(tmp_path: Path) -> None:
    """It is checked with the other files of the settings, before anything is made."""
    got = read(tmp_path, '[map]\nparams = "p.csv"\n')
    with pytest.raises(InputError, match=r'2: \[map\] params: "p.csv" does not exist'):
        check_files(got, tmp_path)
    (tmp_path / "p.csv").mkdir()
    with pytest.raises(InputError, match="is not a file"):
        check_files(got, tmp_path)


def test_given_parameters_are_listed_with_their_places(tmp_path: Path) -> None:
    """A long range is shortened."""
    got = read(tmp_path, '[map.over]\nn = "1..1000"\na = [1, 2]\n')
    shown = {one.name: (one.text, one.source) for one in given_settings(got)}
    assert shown["map.over.a"] == ('["1", "2"]', "onebox.toml:3")
    text = shown["map.over.n"][0]
    assert text.startswith('["1", "2", ')
    assert text.endswith('"18", …, "1000"]')


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('[map.over]\na = "1..3"\nb = [1, 2]', True),
        ('[map.over]\na = "1..10..2"', True),
        ('[map.over]\na = "x"', False),
        ("[map.over]\na = 5", False),
        ("[map.over]\na = []", False),
        ("[map.over]\na = [1, 1]", False),
        ('[map.over]\n"a b" = [1]', False),
        ("[map]\ncpus = 0", False),
    ],
)
def test_the_json_schema_has_the_rules_of_parameters(text: str, valid: bool) -> None:
    """An editor marks what onebox would refuse."""
    tree: dict[str, Any] = toml.loads(text)
    validator = schema_validator()(json_schema())
    assert (list(validator.iter_errors(tree)) == []) == valid


def test_units_may_run_onebox_themselves(tmp_path: Path) -> None:
    """The variables of a unit are no unknown settings."""
    names = ("ONEBOX_UNIT", "ONEBOX_UNITS", "ONEBOX_UNIT_OUTPUTS")
    assert load(tmp_path, dict.fromkeys(names, "1"), {}).map == MapTable()
