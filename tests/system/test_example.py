"""The example job, set up by its own recipe and run for real at a small scale."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "tpch"
QUERIES = ["q01", "q03", "q05", "q06", "q09", "q10", "q12", "q18"]


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter that setup.sh installs in an empty home, as on a builder box."""
    home = tmp_path_factory.mktemp("home")
    work = home / "work"
    beside = work / "examples" / "tpch"
    beside.mkdir(parents=True)
    for name in ("setup.sh", "requirements.txt"):
        shutil.copy(EXAMPLE / name, beside)
    cache = os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        ["sh", "examples/tpch/setup.sh"],
        cwd=work,
        env={**os.environ, "HOME": str(home), "PIP_CACHE_DIR": cache, "PATH": path},
        check=True,
    )
    return home / ".venv" / "bin" / "python"


@pytest.fixture(scope="session")
def finished_project(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the whole pipeline has run once."""
    project = tmp_path_factory.mktemp("project")
    done = run(python, project, "main.py")
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def project(finished_project: Path, tmp_path: Path) -> Path:
    """A copy of the finished project that a test may change."""
    return Path(shutil.copytree(finished_project, tmp_path / "project"))


def run(
    python: Path, project: Path, script: str, *options: str, scale: str = "0.01"
) -> subprocess.CompletedProcess[str]:
    """Run one script of the example with the project as the current directory."""
    return subprocess.run(
        [python, EXAMPLE / script, *options],
        cwd=project,
        env={**os.environ, "SCALE": scale, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


class TestPipeline:
    def test_every_query_leaves_its_rows_and_its_answer(
        self, finished_project: Path
    ) -> None:
        """Each query has a CSV file with as many rows as its answer says."""
        results = finished_project / "results"
        assert sorted(path.stem for path in results.glob("q*.csv")) == QUERIES
        for name in QUERIES:
            with (results / f"{name}.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            answer = json.loads((results / f"{name}.json").read_text())
            assert answer["name"] == name
            assert answer["rows"] == len(rows)
            assert answer["scale"] == 0.01

    def test_the_report_names_every_query(self, finished_project: Path) -> None:
        """
        The report has a line for each query and shows the known Q6.
        """
        text = (finished_project / "results" / "report.md").read_text()
        assert all(f"[{name}]({name}.csv)" in text for name in QUERIES)
        assert "Q6 is 1,193,053.2253, as it must be" in text

    def test_the_picture_is_well_formed(self, finished_project: Path) -> None:
        """
        The picture is XML and has a cell for each nation and year of Q9.
        """
        picture = ElementTree.parse(
            finished_project / "results" / "report.svg"
        ).getroot()
        titles = picture.findall(".//{http://www.w3.org/2000/svg}title")
        with (finished_project / "results" / "q09.csv").open(newline="") as file:
            assert len(titles) == len(list(csv.DictReader(file)))

    def test_job_writes_only_to_results_and_cache(self, finished_project: Path) -> None:
        """No unfinished data are left."""
        assert {path.name for path in finished_project.iterdir()} == {
            "results",
            ".cache",
        }
        assert [path.name for path in (finished_project / ".cache").iterdir()] == [
            "tpch-sf0.01"
        ]

    def test_second_run_keeps_the_data(self, python: Path, project: Path) -> None:
        """Existing data are not generated again."""
        data = project / ".cache" / "tpch-sf0.01" / "lineitem.parquet"
        before = data.stat()
        assert run(python, project, "main.py").returncode == 0
        after = data.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_one_query_runs_alone(self, python: Path, project: Path) -> None:
        """
        A query run by itself prints one line, and --scale wins over SCALE.
        """
        done = run(python, project, "q05.py", "--scale", "0.01", scale="7")
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        assert line.startswith("q05") and "5 rows" in line


class TestFailures:
    def test_job_fails_if_a_month_of_data_is_missing(
        self, python: Path, project: Path
    ) -> None:
        """A wrong Q6 ends the job with 1, and both numbers are named."""
        data = project / ".cache" / "tpch-sf0.01" / "lineitem.parquet"
        spoil = (
            "import duckdb; line = duckdb.read_parquet('lineitem.parquet');"
            "line.filter(\"l_shipdate not between '1994-03-01' and '1994-03-31'\")"
            ".write_parquet('spoilt')"
        )
        subprocess.run([python, "-c", spoil], cwd=data.parent, check=True)
        (data.parent / "spoilt").replace(data)
        done = run(python, project, "main.py")
        assert done.returncode == 1
        assert "wrong results: Q6 is" in done.stderr
        assert "must be 1,193,053.2253" in done.stderr

    def test_report_fails_for_a_changed_result_file(
        self, python: Path, project: Path
    ) -> None:
        """The report checks the file that is delivered."""
        (project / "results" / "q06.csv").write_text("revenue\n1193053.2254\n")
        done = run(python, project, "report.py")
        assert done.returncode == 1
        assert "Q6 is 1,193,053.2254 but must be 1,193,053.2253" in done.stderr

    def test_report_refuses_answers_of_another_scale(
        self, python: Path, project: Path
    ) -> None:
        """Answers of an earlier run at another scale are not reported."""
        path = project / "results" / "q01.json"
        path.write_text(path.read_text().replace('"scale": 0.01', '"scale": 1.0'))
        done = run(python, project, "report.py")
        assert done.returncode == 1
        assert "not of one scale" in done.stderr

    def test_query_without_data_names_the_script_that_generates_them(
        self, python: Path, tmp_path: Path
    ) -> None:
        """The exit code is not 0."""
        done = run(python, tmp_path, "q01.py")
        assert done.returncode == 1
        assert done.stderr == (
            "q01: no data in .cache/tpch-sf0.01: run make_data.py --scale 0.01 first\n"
        )

    def test_first_failing_script_ends_the_job_with_its_code(
        self, python: Path, tmp_path: Path
    ) -> None:
        """No later script runs."""
        (tmp_path / ".cache" / "tpch-sf0.01").mkdir(parents=True)
        done = run(python, tmp_path, "main.py")
        assert done.returncode == 1
        assert done.stderr.endswith("make_data.py failed: the rest was not run\n")
        assert not (tmp_path / "results").exists()

    @pytest.mark.parametrize("scale", ["0", "-1", "nan", "inf", "big"])
    def test_impossible_scale_is_refused(
        self, python: Path, tmp_path: Path, scale: str
    ) -> None:
        """A scale must be a positive number."""
        done = run(python, tmp_path, "main.py", scale=scale)
        assert done.returncode == 2
        assert "--scale" in done.stderr
        assert not list(tmp_path.iterdir())
