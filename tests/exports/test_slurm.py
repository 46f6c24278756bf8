"""The exported script does on a node of Slurm what onebox does on a box."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from onebox.errors import UsageError
from tests.exports.runs import (
    HOSTILE,
    JOB,
    environment,
    run_script,
    settings_of,
    settings_with,
    shown,
    slurm_script,
)

MAP = """\
[map]
command = "python3 show.py {seed} {text}; exit {seed}"
over = { seed = [0, 5], text = ["it's", "a b", "x\\ny ü\\u2028 $HOME"] }
cpus = 4
"""
SAVES_AT_SIGTERM = """\
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.5)
    pathlib.Path("saved").write_text("yes")
    sys.exit(9)
signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").touch()
time.sleep(60)
"""


def options(path: Path) -> dict[str, str]:
    """Return the options of sbatch in a script, which stand before its commands."""
    before, _, rest = path.read_text("utf-8").partition("\nset -e\n")
    assert "#SBATCH" not in rest
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", before, re.M))


class TestOptions:
    def test_size_and_limits_become_options(self, tmp_path: Path) -> None:
        """A time is rounded up to minutes, memory is exact."""
        toml = JOB + 'cancel_grace = "90 s"\n[limits]\nmax_hours = 30.01\n'
        found = options(slurm_script(settings_of(tmp_path, toml, vm="large")))

        assert "64" == found["cpus-per-task"]
        assert f"{256 * 1024}M" == found["mem"]
        assert "1-06:01:00" == found["time"]
        assert "B:TERM@90" == found["signal"]
        assert "array" not in found

    def test_name_of_the_job_is_valid_everywhere(self, tmp_path: Path) -> None:
        """It has project and box, without the dashes that SkyPilot refuses."""
        settings = settings_of(tmp_path, f'project = "a---b-"\nname = "gpu-"\n{JOB}')

        assert "a-b-gpu" == options(slurm_script(settings))["job-name"]

    def test_array_has_a_task_for_each_unit(self, tmp_path: Path) -> None:
        """A task has what a unit needs, and as many run at once as on a box."""
        settings = settings_of(tmp_path, MAP, vm="large")
        found = options(slurm_script(settings, units=True))

        assert "1-6%16" == found["array"]
        assert "4" == found["cpus-per-task"]
        # The share of a unit in the memory of the size.
        assert f"{16 * 1024}M" == found["mem"]

        settings = settings_of(tmp_path, MAP + 'memory = "100 GB"\n', vm="large")
        found = options(slurm_script(settings, units=True))
        assert "1-6%2" == found["array"]
        assert f"{100 * 1024}M" == found["mem"]

    def test_many_units_are_submitted_in_parts(self, tmp_path: Path) -> None:
        """The lines of the comment cover each unit once, with indices up to 1000."""
        toml = '[map]\ncommand = "echo {n}"\nover = { n = "1..2300" }\n'
        path = slurm_script(settings_of(tmp_path, toml), units=True)
        lines = re.findall(
            r"^#   UNIT_OFFSET=(\d+) sbatch --array=1-(\d+)%4 job.sbatch$",
            path.read_text(),
            re.M,
        )
        covered = [n + int(a) for a, most in lines for n in range(1, int(most) + 1)]

        assert "1-2300%4" == options(path)["array"]
        assert [*range(1, 2301)] == covered
        assert max(int(most) for _, most in lines) <= 1000
        done = run_script(path, SLURM_ARRAY_TASK_ID="300", UNIT_OFFSET="2000")
        assert 0 == done.returncode, done.stderr
        assert "2300\n" == (tmp_path / "results/2300/unit.log").read_text()

    def test_size_without_cpus_is_refused(self, tmp_path: Path) -> None:
        """A job with a machine type would silently get one CPU."""
        toml = 'provider = "aws"\n' + JOB
        settings = settings_of(tmp_path, toml, vm="m7i.16xlarge")

        with pytest.raises(UsageError, match=r"m7i\.16xlarge is a machine type"):
            slurm_script(settings)
        settings = settings_of(tmp_path, 'provider = "aws"\n' + MAP, vm="m7i.16xlarge")
        # Units name their CPUs themselves.
        assert "1-6" == options(slurm_script(settings, units=True))["array"]


class TestJob:
    def test_variables_arrive_unchanged(self, tmp_path: Path) -> None:
        """So do quotes, line breaks and letters, in any locale."""
        values = {f"V{n}": text for n, text in enumerate(HOSTILE)}
        settings = settings_with(tmp_path, env=values)
        done = run_script(slurm_script(settings), SLURM_CPUS_PER_TASK="3")
        env = shown(tmp_path)["env"]

        assert (0, "shown\n") == (done.returncode, done.stdout), done.stderr
        assert values == {name: env[name] for name in values}
        assert "1" == env["PYTHONUNBUFFERED"]
        assert "3" == env["POLARS_MAX_THREADS"]
        assert "OMP_NUM_THREADS" not in env

    @pytest.mark.parametrize(
        "command",
        [
            "exit 7",
            "false && true || exit 7",
            "echo 'a b'\nfalse\nbash -c 'exit 7'",
            "test \"it's !x\" = 'it'\"'\"'s !x' && exit 7",
        ],
    )
    def test_exit_code_is_that_of_the_command(
        self, tmp_path: Path, command: str
    ) -> None:
        """The command is a line for `bash -c`, as in onebox: no `set -e`."""
        settings = settings_with(tmp_path, command=command)

        assert 7 == run_script(slurm_script(settings)).returncode

    def test_missing_secret_ends_the_job_before_its_command(
        self, tmp_path: Path
    ) -> None:
        """The script has the name of a secret, and never its value."""
        settings = settings_of(tmp_path, f'{JOB}secrets = ["HF_TOKEN"]\n')
        path = slurm_script(settings)
        missing = run_script(path)

        assert 0 != missing.returncode
        assert "HF_TOKEN" in missing.stderr
        assert not (tmp_path / "shown.json").exists()
        assert 0 == run_script(path, HF_TOKEN="hf 'x'").returncode
        assert "hf 'x'" == shown(tmp_path)["env"]["HF_TOKEN"]

    @pytest.mark.parametrize("rest", ["", " && echo never", "; exit 3"])
    def test_sigterm_reaches_the_program_and_it_has_time(
        self, tmp_path: Path, rest: str
    ) -> None:
        """
        Slurm sends it to the script alone, and kills what the script leaves behind.

        This holds too if the program is not the only one of the line.
        """
        settings = settings_of(tmp_path, f'[run]\ncommand = "python3 save.py{rest}"\n')
        (tmp_path / "save.py").write_text(SAVES_AT_SIGTERM)
        (tmp_path / "home").mkdir()
        process = subprocess.Popen(
            ["bash", slurm_script(settings)],
            cwd=tmp_path,
            env=environment(tmp_path),
            start_new_session=True,
        )
        end = time.monotonic() + 60
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)

        assert "yes" == (tmp_path / "saved").read_text()
        assert code in (9, 3, 143)

    def test_environment_is_built_once_for_all_tasks(self, tmp_path: Path) -> None:
        """Tasks that begin at the same time wait for the one that builds it."""
        uv = shutil.which("uv")
        if uv is None:
            pytest.skip("uv is not installed")
        toml = MAP + '[image]\nrequirements = "lists/requirements.txt"\n'
        toml += 'env = { LISTED = "a b" }\n'
        settings = settings_of(tmp_path, toml)
        (tmp_path / "lists").mkdir()
        (tmp_path / "lists/requirements.txt").write_text("# nothing\n")
        # What calls uv is noted.
        (tmp_path / "bin").mkdir()
        noting = tmp_path / "bin" / "uv"
        noting.write_text(
            f'#!/bin/bash\necho "$1 $LISTED" >>"{tmp_path}/calls"\nexec {uv} "$@"\n'
        )
        noting.chmod(0o755)
        path = slurm_script(settings, units=True)
        (tmp_path / "home").mkdir()
        tasks = [
            subprocess.Popen(
                ["bash", path],
                cwd=tmp_path,
                env=environment(
                    tmp_path,
                    SLURM_ARRAY_TASK_ID=str(n),
                    PATH=f"{tmp_path}/bin:{os.environ['PATH']}",
                ),
            )
            for n in (1, 2, 3)
        ]

        assert [0, 0, 0] == [task.wait(120) for task in tasks]
        assert ["venv a b", "pip a b"] == (tmp_path / "calls").read_text().splitlines()
        env = shown(tmp_path / "results/2")["env"]
        assert f"{tmp_path}/.venv-slurm" == env["VIRTUAL_ENV"]
        assert not (tmp_path / ".venv-slurm.lock").exists()


class TestUnits:
    def test_each_unit_gets_its_values_folder_log_and_exit_code(
        self, tmp_path: Path
    ) -> None:
        """The words of a command are quoted as `inv map` quotes them."""
        toml = MAP + '[run]\nenv = { OMP_NUM_THREADS = "2" }\n'
        settings = settings_of(tmp_path, toml)
        path = slurm_script(settings, units=True)
        expected = [(s, t) for s in "05" for t in ("it's", "a b", "x\ny ü\u2028 $HOME")]
        for number, (seed, text) in enumerate(expected, 1):
            done = run_script(path, SLURM_ARRAY_TASK_ID=str(number))
            folder = tmp_path / "results" / str(number)
            found = shown(folder)
            env = found["env"]

            assert (int(seed), "") == (done.returncode, done.stdout), done.stderr
            assert [seed, text] == found["words"]
            assert (seed, text) == (env["seed"], env["text"])
            assert (str(number), "6") == (env["ONEBOX_UNIT"], env["ONEBOX_UNITS"])
            assert str(folder) == env["ONEBOX_UNIT_OUTPUTS"]
            assert ("2", "4") == (env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"])
            assert "shown\n" == (folder / "unit.log").read_text()
            assert f"{seed}\n" == (folder / "unit.exit").read_text()
            # The variables of the script itself are not those of the unit.
            assert not {"ONEBOX_LINE", "ONEBOX_CODE", "ONEBOX_CHILD"} & env.keys()

    @pytest.mark.parametrize("number", ["7", "0", ""])
    def test_task_without_a_unit_fails(self, tmp_path: Path, number: str) -> None:
        """An array that is too long shows in the exit code."""
        path = slurm_script(settings_of(tmp_path, MAP), units=True)

        assert 0 != run_script(path, SLURM_ARRAY_TASK_ID=number).returncode
        assert not (tmp_path / "results").exists()

    def test_parameter_may_have_any_name(self, tmp_path: Path) -> None:
        """The script's own variables have names that no parameter can have."""
        names = ["line", "code", "folder", "name", "i", "child", "UNIT_OFFSET", "n"]
        over = ", ".join(f'{name} = ["{name}!"]' for name in names)
        toml = f'[map]\ncommand = "python3 show.py {{line}}"\nover = {{ {over} }}\n'
        path = slurm_script(settings_of(tmp_path, toml), units=True)
        done = run_script(path, SLURM_ARRAY_TASK_ID="1")
        found = shown(tmp_path / "results/1")

        assert 0 == done.returncode, done.stderr
        assert ["line!"] == found["words"]
        assert [f"{name}!" for name in names] == [found["env"][name] for name in names]


def test_what_has_no_counterpart_is_named(tmp_path: Path) -> None:
    """It stands in comments, before the options."""
    toml = f"""\
{JOB}ports = [8888]
when = "changed"
[image]
packer = "image.pkr.hcl"
[fetch]
checkpoints = ["ckpt/"]
[limits]
max_cost = 20.0
[notify]
command = "notify-send onebox"
"""
    text = slurm_script(settings_of(tmp_path, toml)).read_text()
    before, _, _ = text.partition("#SBATCH")

    assert [
        "[run] ports: ssh -L PORT:NODE:PORT CLUSTER",
        "[image] packer = image.pkr.hcl",
        "[limits] max_cost = 20",
        "[fetch] checkpoints: ckpt/",
        '[run] when = "changed"',
        "[notify]",
        "the outputs are not compared with the copies that you fetch",
    ] == re.findall(r"^# - (.*)$", before, re.M)
