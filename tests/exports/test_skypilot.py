"""The exported task is valid, and runs the job as onebox runs it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onebox.errors import UsageError
from tests.exports.runs import (
    HOSTILE,
    JOB,
    environment,
    run_task,
    settings_of,
    settings_with,
    shown,
    sky_task,
    sky_text,
)

# The keys of a task and of its resources, with their types, as in sky/utils/schemas.py
# of SkyPilot 0.14.1; those that an export has.
TASK = {
    "name": str,
    "workdir": str,
    "resources": dict,
    "file_mounts": dict,
    "envs": dict,
    "secrets": dict,
    "setup": str,
    "run": str,
}
MACHINE = {
    "cloud": str,
    "region": str,
    "instance_type": str,
    "cpus": str,
    "memory": str,
    "use_spot": bool,
}
RESOURCES = {
    **MACHINE,
    "disk_size": int,
    "max_hourly_cost": float,
    "autostop": dict,
    "ordered": list,
}
CLOUDS = ("aws", "gcp", "do")
MAP = """\
[map]
command = "python3 show.py {seed} {text}; exit {seed}"
over = { seed = [0, 5], text = ["it's !x", "x\\ny ü\\u2028 $HOME"] }
"""
SIZE = """\
provider = "aws"
vm = "big"
spot = true
[size.big]
cpus = 64
memory = "256 GB"
aws = ["m7i.16xlarge", "m7a.16xlarge"]
max_price = 4.0
disk = "500 GB"
"""


def check(task: dict[str, Any]) -> None:
    """Check a task against the schema that SkyPilot checks it against."""
    _check_types(task, TASK)
    assert {"name", "resources", "run"} <= task.keys()
    resources = task["resources"]
    _check_types(resources, RESOURCES)
    for machine in resources.get("ordered", []):
        _check_types(machine, MACHINE)
    for machine in (resources, *resources.get("ordered", [])):
        assert machine.get("cloud", "aws") in CLOUDS
        assert not {"cpus", "memory"} & machine.keys() or "instance_type" not in machine
    assert {"idle_minutes"} >= resources.get("autostop", {}).keys()
    assert all(isinstance(value, str) for value in task.get("envs", {}).values())
    for target, source in task.get("file_mounts", {}).items():
        assert target.startswith("~/sky_workdir/") and not source.startswith("/")
        assert not target.endswith("/") and not source.endswith("/")


def _check_types(values: dict[str, Any], types: dict[str, Any]) -> None:
    assert {key: type(value) for key, value in values.items()} == {
        key: types[key] for key in values
    }


def resources_of(tmp_path: Path, toml: str, **flags: object) -> dict[str, Any]:
    """Return the resources of a valid task."""
    task = sky_task(settings_of(tmp_path, toml, **flags))
    check(task)
    found = task["resources"]
    assert isinstance(found, dict)
    return found


class TestResources:
    def test_requirements_are_minima(self, tmp_path: Path) -> None:
        """Without a cloud, SkyPilot chooses it."""
        assert {
            "cpus": "64+",
            "memory": "256+",
            "autostop": {"idle_minutes": 30},
        } == resources_of(tmp_path, JOB, vm="large")

    def test_machine_types_are_tried_in_their_order(self, tmp_path: Path) -> None:
        """They belong to the cloud and region of the settings."""
        found = resources_of(tmp_path, f'{SIZE}[aws]\nregion = "eu-west-1"\n{JOB}')

        assert {
            "disk_size": 500,
            "max_hourly_cost": 4.0,
            "ordered": [
                {
                    "cloud": "aws",
                    "region": "eu-west-1",
                    "instance_type": f"m7{maker}.16xlarge",
                    "use_spot": True,
                }
                for maker in "ia"
            ],
        } == found

    def test_fallback_to_on_demand_comes_last(self, tmp_path: Path) -> None:
        """It is used only if no spot machine is available."""
        toml = f'provider = "gcp"\nspot = true\n{JOB}[limits]\nspot_fallback = true\n'
        found = resources_of(tmp_path, toml, vm="large")["ordered"]

        assert [True, False] == [one["use_spot"] for one in found]
        assert {"gcp"} == {one["cloud"] for one in found}
        assert {"64+"} == {one["cpus"] for one in found}

    def test_types_of_other_clouds_are_not_used(self, tmp_path: Path) -> None:
        """Another cloud's machine is chosen by its CPUs and memory."""
        toml = SIZE.replace('provider = "aws"', 'provider = "digitalocean"')
        found = resources_of(tmp_path, toml + JOB)

        assert ("do", "64+") == (found["cloud"], found["cpus"])
        found = resources_of(tmp_path, toml.replace("digitalocean", "hetzner") + JOB)
        assert ("64+", None) == (found["cpus"], found.get("cloud"))

    def test_cloud_of_a_type_is_not_guessed(self, tmp_path: Path) -> None:
        """The names of two clouds' types may look alike; SkyPilot has their lists."""
        found = resources_of(tmp_path, JOB, vm="n2d-standard-64")

        assert "n2d-standard-64" == found["instance_type"]
        assert not {"cloud", "ordered", "cpus"} & found.keys()

    def test_type_that_no_cloud_of_skypilot_has_is_refused(
        self, tmp_path: Path
    ) -> None:
        """Without it, SkyPilot would choose a machine of any size."""
        settings = settings_of(tmp_path, f'provider = "hetzner"\n{JOB}', vm="ccx63")

        with pytest.raises(UsageError, match="ccx63 is a machine type"):
            sky_task(settings)


class TestRun:
    def test_variables_arrive_unchanged(self, tmp_path: Path) -> None:
        """So do those with quotes, line breaks and any letters."""
        values = {f"V{n}": text for n, text in enumerate(HOSTILE)}
        settings = settings_with(tmp_path, env=values)
        task = sky_task(settings)
        check(task)
        done = run_task(task, tmp_path)
        env = shown(tmp_path)["env"]

        assert (0, "shown\n") == (done.returncode, done.stdout), done.stderr
        assert values == task["envs"]
        assert values == {name: env[name] for name in values}

    @pytest.mark.parametrize(
        "command",
        ["exit 7", "test \"a!b\" = a'!'b && exit 7", "\n  false\n\techo x\nexit 7\n\n"],
    )
    def test_exit_code_is_that_of_the_command(
        self, tmp_path: Path, command: str
    ) -> None:
        """SkyPilot's shell is interactive, which would change each "!"."""
        task = sky_task(settings_with(tmp_path, command=command))
        check(task)

        assert task["run"].endswith(f"{command.rstrip()}\n")
        assert 7 == run_task(task, tmp_path).returncode

    def test_variable_of_the_job_comes_before_one_of_onebox(
        self, tmp_path: Path
    ) -> None:
        """Those of onebox are for what the settings leave open."""
        env = {
            "PYTHONUNBUFFERED": "",
            "POLARS_MAX_THREADS": "7",
            "MKL_NUM_THREADS": "3",
        }
        settings = settings_with(tmp_path, env=env)
        assert 0 == run_task(sky_task(settings), tmp_path).returncode
        found = shown(tmp_path)["env"]

        assert env == {name: found[name] for name in env}
        assert int(found["MC_CORES"]) > 0
        units = settings_of(tmp_path, MAP.replace("[0, 5]", "[0]"))
        task = sky_task(replace(units, run=settings.run), units=True)
        assert 0 == run_task(task, tmp_path).returncode
        found = shown(tmp_path / "results/1")["env"]
        assert env == {name: found[name] for name in env}

    def test_secret_has_a_name_and_no_value(self, tmp_path: Path) -> None:
        """`sky launch --secret` gives it."""
        task = sky_task(settings_of(tmp_path, f'{JOB}secrets = ["HF_TOKEN"]\n'))
        check(task)

        assert {"HF_TOKEN": None} == task["secrets"]
        assert "envs" not in task

    def test_identity_of_the_box_is_named_as_left_out(self, tmp_path: Path) -> None:
        """SkyPilot gives its own machines an identity, if any."""
        plain = f'provider = "aws"\n{JOB}'
        named = f'{plain}[aws]\ninstance_profile = "train"\n'

        assert "# - the identity of the box, train\n" in sky_text(
            settings_of(tmp_path, named)
        )
        assert "the identity of" not in sky_text(settings_of(tmp_path, plain))

    def test_setup_is_the_set_up_of_the_image(self, tmp_path: Path) -> None:
        """The script gets `[image] env`; a failure ends the set-up."""
        image = '[image]\nsetup = "set up.sh"\npython = "3.11"\n'
        toml = f'{JOB}{image}env = {{ GREETING = "it\'s !x" }}\n'
        task = sky_task(settings_of(tmp_path, toml))
        check(task)
        (tmp_path / "set up.sh").write_text('printf %s "$GREETING"; exit 3\n')
        done = run_task(task, tmp_path, "setup")

        assert (3, "it's !x") == (done.returncode, done.stdout), done.stderr
        assert "setup" not in sky_task(settings_of(tmp_path, JOB))

    def test_data_that_the_upload_leaves_out_is_mounted(self, tmp_path: Path) -> None:
        """It goes to its place in the folder of the job."""
        settings = settings_of(tmp_path, JOB)
        task = sky_task(settings, data=("data", "more/x y"))
        check(task)

        assert {
            "~/sky_workdir/data": "data",
            "~/sky_workdir/more/x y": "more/x y",
        } == task["file_mounts"]


class TestUnits:
    def test_all_units_run_and_a_failed_one_runs_again(self, tmp_path: Path) -> None:
        """Each has its values, folder, log and exit code; the task fails with them."""
        toml = MAP.replace("; exit", "; echo run >>runs-{unit}; exit") + "retries = 1\n"
        task = sky_task(settings_of(tmp_path, toml), units=True)
        check(task)
        done = run_task(task, tmp_path)

        assert 1 == done.returncode, done.stderr
        assert "failed units: 3 4 " in done.stderr
        expected = [(s, t) for s in "05" for t in ("it's !x", "x\ny ü\u2028 $HOME")]
        for number, (seed, text) in enumerate(expected, 1):
            folder = tmp_path / "results" / str(number)
            found = shown(folder)
            env = found["env"]
            assert [seed, text] == found["words"] == [env["seed"], env["text"]]
            assert (str(number), "4") == (env["ONEBOX_UNIT"], env["ONEBOX_UNITS"])
            assert (str(folder), "1") == (
                env["ONEBOX_UNIT_OUTPUTS"],
                env["OMP_NUM_THREADS"],
            )
            assert "shown\n" == (folder / "unit.log").read_text()
            assert f"{seed}\n" == (folder / "unit.exit").read_text()
            runs = (tmp_path / f"runs-{number}").read_text()
            assert (2 if seed == "5" else 1) == runs.count("run")

    def test_units_that_succeed_make_the_task_succeed(self, tmp_path: Path) -> None:
        """No unit runs twice."""
        toml = MAP.replace("[0, 5]", "[0]").replace("; exit {seed}", " >>all")
        task = sky_task(settings_of(tmp_path, toml + "retries = 3\n"), units=True)
        done = run_task(task, tmp_path)

        assert (0, "") == (done.returncode, done.stdout), done.stderr
        assert "shown\nshown\n" == (tmp_path / "all").read_text()

    @pytest.mark.parametrize(
        ("limit", "most"),
        [("cpus = 1", 2), ("cpus = 2", 1), ('cpus = 1\nmemory = "64 TB"', 1)],
    )
    def test_as_many_units_run_at_once_as_fit(
        self, tmp_path: Path, limit: str, most: int
    ) -> None:
        """The machine has 2 CPUs here, and at least one unit runs."""
        toml = f"""\
[map]
command = "mkdir at-{{n}}; ls -d at-* | wc -l; sleep 0.7; rmdir at-{{n}}"
over = {{ n = "1..4" }}
{limit}
"""
        task = sky_task(settings_of(tmp_path, toml), units=True)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/nproc").write_text('#!/bin/sh\necho "${OMP_NUM_THREADS-2}"\n')
        (tmp_path / "bin/nproc").chmod(0o755)
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        done = run_task(task, tmp_path, PATH=path, OMP_NUM_THREADS="1")
        logs = tmp_path.glob("results/*/unit.log")

        assert 0 == done.returncode, done.stderr
        assert most == max(int(log.read_text()) for log in logs)

    def test_unit_that_is_killed_does_not_stop_the_others(self, tmp_path: Path) -> None:
        """Its script may be killed with it, as for lack of memory."""
        toml = """\
[map]
command = "[ {n} != 1 ] || kill -9 $PPID; echo done"
over = { n = "1..3" }
cpus = 2048
"""
        done = run_task(sky_task(settings_of(tmp_path, toml), units=True), tmp_path)

        assert 1 == done.returncode
        assert "failed units: 1 \n" in done.stderr
        assert "0\n" == (tmp_path / "results/3/unit.exit").read_text()


def test_file_is_the_same_each_time(tmp_path: Path) -> None:
    """It has no date, and nothing of this machine's environment."""
    settings = settings_of(tmp_path, SIZE + JOB)
    text = sky_text(settings)

    assert text == sky_text(settings)
    assert text.startswith("# Made by `inv export --to=skypilot` from onebox.toml.\n")
    assert str(tmp_path) not in text
    assert environment(tmp_path)["PATH"] not in text
