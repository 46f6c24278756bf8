"""The plan of units: their commands, folders and values, from settings and flags."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from onebox.agent.units import plan as agent_plan
from onebox.errors import ConfigError, InputError, OneboxError, StateError, UsageError
from onebox.settings import load as load_settings
from onebox.settings.map_table import MapTable
from onebox.units.plan import (
    Unit,
    UnitPlan,
    load,
    make,
    save,
    to_request,
    unit_digest,
)

TABLE = MapTable(
    command="python fit.py --seed {seed} --alpha {alpha}",
    over={"seed": ("1", "2"), "alpha": ("0.1", "1", "10")},
)


def plan_of(root: Path, text: str, **flags: Any) -> UnitPlan:
    """Return the plan of the settings in a file, as the task makes it."""
    (root / "onebox.toml").write_text(text, encoding="utf-8")
    settings = load_settings(root, {}, {})
    reserved = (*settings.run.env, *settings.run.secrets)
    return make(settings.map, root, reserved=reserved, source=settings.source, **flags)


def refusal(
    kind: type[OneboxError], root: Path, table: MapTable, **flags: Any
) -> OneboxError:
    """Return the error that a table and flags cause."""
    with pytest.raises(kind) as caught:
        make(table, root, **flags)
    assert type(caught.value) is kind
    return caught.value


def test_the_last_parameter_varies_fastest(tmp_path: Path) -> None:
    """Units are numbered from 1 in the order of the product."""
    plan = make(TABLE, tmp_path)
    assert plan.names == ("seed", "alpha")
    assert plan.template == TABLE.command
    assert plan.root == "results/"
    assert [unit.values for unit in plan.units] == [
        (seed, alpha) for seed in "12" for alpha in ("0.1", "1", "10")
    ]
    assert plan.units[3] == Unit(
        4, "python fit.py --seed 2 --alpha 0.1", "results/4/", ("2", "0.1")
    )
    assert plan.units[3].describe(plan.names) == "seed=2 alpha=0.1"
    assert plan.units[3].parameters(plan.names) == {"seed": "2", "alpha": "0.1"}


def test_a_description_is_safe_for_a_terminal_and_short() -> None:
    """Control characters are escaped, and a long value is cut."""
    unit = Unit(1, "", "", ("a\x1b[2J\n", "x" * 100))
    assert unit.describe(("a", "b")) == f"a=a\\x1b[2J\\n b={'x' * 39}…"


def test_flags_add_parameters_or_replace_those_of_the_table(tmp_path: Path) -> None:
    """A replaced parameter keeps its place, a new one is the last."""
    plan = make(TABLE, tmp_path, over=["fold=1..2", "seed=7"])
    assert plan.names == ("seed", "alpha", "fold")
    assert [unit.values for unit in plan.units[:3]] == [
        ("7", "0.1", "1"),
        ("7", "0.1", "2"),
        ("7", "1", "1"),
    ]


def test_a_typed_command_replaces_that_of_the_table(tmp_path: Path) -> None:
    """Words stay words, with plain values; a line is quoted for the shell."""
    over = ["name=a b,c"]
    words = make(MapTable(), tmp_path, words=["x", "--n={name}", "{unit}"], over=over)
    assert words.units[0].command == ("x", "--n=a b", "1")
    assert words.template == "x '--n={name}' '{unit}'"
    line = make(TABLE, tmp_path, command="x --n={name} > {outputs}/log", over=over)
    assert line.units[0].command == "x --n='a b' > results/1/log"


def test_a_csv_file_has_the_units(tmp_path: Path) -> None:
    """A line is a unit; parameters that the command does not use are allowed."""
    (tmp_path / "p.csv").write_text("seed,file\n1,a b.csv\n2,c.csv\n")
    text = '[map]\nparams = "p.csv"\ncommand = "fit {file}"\n'
    plan = plan_of(tmp_path, text)
    assert plan.names == ("seed", "file")
    assert [unit.command for unit in plan.units] == ["fit 'a b.csv'", "fit c.csv"]
    with pytest.raises(UsageError, match=r"--over and \[map\] params"):
        plan_of(tmp_path, text, over=["seed=1"])
    with pytest.raises(InputError, match=r"^p\.csv: seed is a variable of \[run\] too"):
        plan_of(tmp_path, text + "[run]\nenv = { seed = 1 }\n")


def test_without_command_or_parameters_there_is_nothing_to_map(tmp_path: Path) -> None:
    """The next step is a line of the settings or of the command line."""
    error = refusal(ConfigError, tmp_path, MapTable(over={"a": ("1",)}))
    assert error.message == "nothing to map: there is no command"
    assert error.next == (
        "set [map] command in onebox.toml, or inv map --over=seed=1..3 -- "
        "python fit.py --seed {seed}"
    )
    error = refusal(ConfigError, tmp_path, MapTable(command="x"))
    assert error.message == "nothing to map: there are no parameters"
    assert error.next.startswith("set [map] over or params in onebox.toml, or inv map")
    refusal(ConfigError, tmp_path, TABLE, words=[" "])


@pytest.mark.parametrize(
    ("over", "problem"),
    [
        (["seed=1", "seed=2"], "--over gives seed twice"),
        (["TOKEN=1"], "--over=TOKEN: TOKEN is a variable of [run] too"),
        (["seed"], "--over=seed: expected NAME=VALUES"),
    ],
)
def test_a_wrong_flag_is_an_error_of_the_command_line(
    tmp_path: Path, over: list[str], problem: str
) -> None:
    """It is not taken for a mistake in onebox.toml."""
    error = refusal(UsageError, tmp_path, TABLE, over=over, reserved=("TOKEN",))
    assert error.message == problem


def test_an_unknown_placeholder_is_an_error_where_it_is_written(tmp_path: Path) -> None:
    """In the file, the line is named; typed, it is a mistake of the command line."""
    text = '[map]\ncommand = "fit {sede}"\nover = { seed = [1] }\n'
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, text)
    assert caught.value.message == (
        "onebox.toml:2: [map] command: {sede} is no parameter, did you mean {seed}?"
    )
    assert caught.value.next == "write {{sede}} for the text {sede}"
    error = refusal(UsageError, tmp_path, TABLE, words=["fit", "{sede}"])
    assert error.message.startswith("the command: {sede} is no parameter, did you mean")
    text = '[map]\noutputs = "r/{outputs}"\ncommand = "x"\nover = { seed = [1] }\n'
    with pytest.raises(
        ConfigError, match=r"^onebox.toml:2: \[map\] outputs: {outputs}"
    ):
        plan_of(tmp_path, text)


def test_too_many_units_are_refused_before_any_is_made(tmp_path: Path) -> None:
    """The error has the product and the limit."""
    values = tuple(map(str, range(100_000)))
    table = MapTable(command="x", over=dict.fromkeys(("a", "b", "c", "d"), values))
    error = refusal(ConfigError, tmp_path, table)
    assert "100,000 x 100,000 x " in error.message
    assert "= 100,000,000,000,000,000,000 units; at most 100,000 are" in error.message
    text = '[map]\ncommand = "x"\nover = { a = "1..400", b = "1..300" }\n'
    with pytest.raises(
        ConfigError, match=r"^onebox.toml:3: \[map\] over: 400 x 300 = "
    ):
        plan_of(tmp_path, text)
    error = refusal(ConfigError, tmp_path, TABLE, over=["seed=1..90000"])
    assert error.message.startswith("--over: 90,000 x 3 = 270,000 units")


def test_a_plan_of_100000_units_is_made(tmp_path: Path) -> None:
    """The limit itself is allowed."""
    table = MapTable(command="x {a}", over={"a": tuple(map(str, range(100_000)))})
    plan = make(table, tmp_path)
    assert plan.units[-1] == Unit(100_000, "x 99999", "results/100000/", ("99999",))


@pytest.mark.parametrize(
    ("outputs", "root", "folder"),
    [
        ("results/{unit}", "results/", "results/1/"),
        ("results//{unit}//", "results/", "results/1/"),
        ("a/b/s-{seed}/x-{alpha}/out", "a/b/", "a/b/s-1/x-0.1/out/"),
        ("r/{seed}_{alpha}", "r/", "r/1_0.1/"),
    ],
)
def test_the_folder_of_a_unit_is_made_from_its_values(
    tmp_path: Path, outputs: str, root: str, folder: str
) -> None:
    """The root is what comes before the first placeholder."""
    plan = make(dataclasses.replace(TABLE, outputs=outputs), tmp_path)
    assert (plan.root, plan.units[0].outputs) == (root, folder)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (("a/b",), 'unit 1 has the value "a/b" of {v}, which names no folder'),
        (("ok", ".."), 'unit 2 has the value ".." of {v}, which names no folder'),
        ((".",), 'unit 1 has the value "." of {v}'),
        (("",), 'unit 1 has the value "" of {v}'),
        (("~root",), 'unit 1 has the value "~root" of {v}'),
        (("a\tb",), "unit 1 has a control character"),
        (("é" * 101,), "unit 1 has a name of more than 200 bytes"),
        ((".git",), "unit 1 has a folder that cannot be used"),
        ((".GIT ",), "unit 1 has a folder that cannot be used"),
        (("git~1",), "unit 1 has a folder that cannot be used"),
        ((".venv",), "unit 1 has a folder in .venv"),
        (("ab", "x", "AB"), 'unit 3 has the same folder "r/AB/" as unit 1'),
        (("é", "e\u0301"), "unit 2 has the same folder"),
    ],
)
def test_a_value_that_is_no_safe_name_of_a_folder_is_refused(
    tmp_path: Path, values: tuple[str, ...], problem: str
) -> None:
    """The error names the unit; with the number as the folder, the value is allowed."""
    table = MapTable(command="x {v}", over={"v": values}, outputs="r/{v}/")
    error = refusal(ConfigError, tmp_path, table)
    assert error.message.startswith(f"[map] outputs: {problem}")
    assert "{unit}" in error.next
    assert make(dataclasses.replace(table, outputs="r/{unit}/"), tmp_path)


@pytest.mark.parametrize("value", ["a b", "*", "-5", "a=b", "ü", ".hidden", "a..b"])
def test_other_values_may_name_a_folder(tmp_path: Path, value: str) -> None:
    """Spaces, patterns and dots in a name are characters like others."""
    table = MapTable(command="x", over={"v": (value,)}, outputs="r/{v}/")
    assert make(table, tmp_path).units[0].outputs == f"r/{value}/"


def test_units_with_one_folder_are_refused(tmp_path: Path) -> None:
    """A unit empties its folder, so no other one may have it."""
    error = refusal(
        ConfigError, tmp_path, dataclasses.replace(TABLE, outputs="r/{seed}")
    )
    assert error.message == (
        '[map] outputs: unit 2 has the same folder "r/1/" as unit 1'
    )


def test_a_folder_outside_the_project_is_refused_also_without_a_file(
    tmp_path: Path,
) -> None:
    """A table that Python code makes is checked like that of a file."""
    for outputs in ("/tmp/{unit}", "../{unit}", "{unit}", "results/"):
        table = dataclasses.replace(TABLE, outputs=outputs)
        error = refusal(ConfigError, tmp_path, table)
        assert error.message.startswith("[map] outputs: ")


def test_texts_that_no_program_can_get_are_refused(tmp_path: Path) -> None:
    """Linux has a limit for an argument, and JSON for characters."""
    over = {"v": ("é" * (8 << 10),)}
    error = refusal(ConfigError, tmp_path, MapTable(command="x", over=over))
    assert "unit 1 has a command and values of more than 48 KB" in error.message
    for word, problem in (("a\0", "NUL"), ("a\udcff", "UTF-8")):
        error = refusal(UsageError, tmp_path, TABLE, words=["x", word])
        assert problem in error.message
    table = MapTable(command='x "$(y "{v}")"', over={"v": ("ok", "a b")})
    error = refusal(ConfigError, tmp_path, table)
    assert error.message.startswith('[map] command: unit 2: the value "a b" of {v}')


def test_the_longest_command_is_accepted_by_the_box(tmp_path: Path) -> None:
    """What is refused there is refused here, before there is a box."""
    others = len(json.dumps({"parameters": {"a": "1"}, "command": ""}))
    line = "x" * (agent_plan.LONGEST - others)
    table = MapTable(command=line, over={"a": ("1",)})
    plan = make(table, tmp_path)
    agent_plan.encode(to_request(plan, [1], run="20261130-120000-abcd", table=table))
    with pytest.raises(ConfigError):
        make(MapTable(command=line + "x", over={"a": ("1",)}), tmp_path)


def test_all_texts_of_a_plan_have_a_limit(tmp_path: Path) -> None:
    """A plan is sent to the box, and kept here for each run."""
    table = MapTable(command="x" * 40_000, over={"a": tuple(map(str, range(900)))})
    error = refusal(ConfigError, tmp_path, table)
    assert error.message == "the commands and values of the units have over 32 MB"


def test_the_request_has_the_chosen_units(tmp_path: Path) -> None:
    """The box gets only the units that the job shall run, but the number of all."""
    table = dataclasses.replace(TABLE, cpus=4, memory=8 << 30, retries=1)
    request = to_request(make(table, tmp_path), [2, 5], run="r1", table=table)
    assert json.loads(json.dumps(request)) == {
        "run": "r1",
        "total": 6,
        "cpus": 4,
        "memory": 8 << 30,
        "retries": 1,
        "names": ["seed", "alpha"],
        "units": [
            [2, "python fit.py --seed 1 --alpha 1", "results/2/", ["1", "1"]],
            [5, "python fit.py --seed 2 --alpha 1", "results/5/", ["2", "1"]],
        ],
    }
    words = make(TABLE, tmp_path, words=["x", "{seed}"])
    sent = to_request(words, [1], run="r1", table=TABLE)
    assert json.loads(json.dumps(sent["units"])) == [
        [1, ["x", "1"], "results/1/", ["1", "0.1"]]
    ]
    assert sent["memory"] == 0


def test_the_digest_differs_if_a_unit_differs(tmp_path: Path) -> None:
    """It is the same for the same units, and has 12 hex digits."""
    digests = {
        make(TABLE, tmp_path).digest,
        make(TABLE, tmp_path, over=["seed=1..3"]).digest,
        make(TABLE, tmp_path, command="x").digest,
        make(dataclasses.replace(TABLE, outputs="r/{unit}"), tmp_path).digest,
    }
    assert len(digests) == 4
    assert all(len(text) == 12 and int(text, 16) >= 0 for text in digests)
    assert make(TABLE, tmp_path).digest in digests
    assert make(dataclasses.replace(TABLE, retries=2), tmp_path).digest in digests


@pytest.mark.parametrize("words", [(), ("x", "ü {seed}", "a\nb\x01")])
def test_a_stored_plan_is_read_back(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The file is private and replaced as a whole."""
    plan = make(TABLE, tmp_path, words=words)
    save(tmp_path / "plan.json", plan)
    save(tmp_path / "plan.json", plan)
    assert load(tmp_path / "plan.json") == plan
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")
    with pytest.raises(StateError):
        save(tmp_path / "missing" / "plan.json", plan)


def damaged(stored: dict[str, Any], path: list[Any], value: object) -> bytes:
    """Return a stored plan with another value in one place."""
    copy = json.loads(json.dumps(stored))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(copy).encode()


def test_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    """The file may be part of a clone: no folder leads out, and all types are right."""
    plan = make(TABLE, tmp_path)
    file = tmp_path / "plan.json"
    save(file, plan)
    stored = json.loads(file.read_bytes())
    for data in (
        b"",
        b"[]",
        b"{}",
        b"null",
        b"[" * 100_000,
        file.read_bytes()[:-9],
        damaged(stored, ["names"], "ab"),
        damaged(stored, ["names", 0], "PATH"),
        damaged(stored, ["units"], []),
        damaged(stored, ["units", 0], []),
        damaged(stored, ["units", 0, 0], 5),
        damaged(stored, ["units", 0, 0], [5]),
        damaged(stored, ["units", 0, 0], "other"),
        damaged(stored, ["units", 0, 2], ["1"]),
        damaged(stored, ["root"], "elsewhere/"),
        damaged(stored, ["root"], None),
        damaged(stored, ["template"], 1),
        *(
            damaged(stored, ["units", 0, 1], folder)
            for folder in ("../x/", "/x/", "results/../../x/", "results/1", "", "~/x/")
        ),
    ):
        file.write_bytes(data)
        with pytest.raises(StateError, match="is damaged: "):
            load(file)


def test_no_folder_of_a_stored_plan_leads_out_of_the_project(tmp_path: Path) -> None:
    """A file with a right digest is checked too."""
    plan = make(TABLE, tmp_path)
    for folder in ("../x/", "/x/", "results/../../x/", "a/.git/", "results/1"):
        units = (dataclasses.replace(plan.units[0], outputs=folder),)
        wrong = dataclasses.replace(
            plan, units=units, root="", digest=unit_digest(plan.names, units)
        )
        save(tmp_path / "plan.json", wrong)
        with pytest.raises(StateError, match="unit 1 is invalid"):
            load(tmp_path / "plan.json")
