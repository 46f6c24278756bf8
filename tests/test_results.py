"""Whatever way a job leaves its result, it is here or its box is kept."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from onebox.providers.local import directories

from .conftest import Project


def test_run_brings_what_a_link_in_the_outputs_leads_to(project: Project) -> None:
    """The best checkpoint, linked from the outputs, is here when the box is gone."""
    project.write(
        "job.sh",
        "mkdir -p ckpt results; echo precious >ckpt/epoch9.pt; "
        "ln -s ../ckpt/epoch9.pt results/best.pt",
    )
    done = project.inv("run")

    assert 0 == done.code, done.err
    assert "precious\n" == project.read("results/best.pt")
    assert not (project.root / "ckpt").exists()
    assert [] == project.boxes()


def test_run_brings_outputs_that_are_themselves_a_link(project: Project) -> None:
    """The whole output folder may be a link to another one."""
    project.write(
        "job.sh",
        "rmdir results; mkdir real; ln -s real results; echo precious >results/model",
    )
    done = project.inv("run")

    assert 0 == done.code, done.err
    assert "precious\n" == project.read("results/model")
    assert "outside of the outputs" not in done.err
    assert [] == project.boxes()


@pytest.mark.parametrize(
    "link", ["ln -s real results", "ln -s gone results/best", "ln -s results results"]
)
def test_links_to_nothing_are_no_result(project: Project, link: str) -> None:
    """
    Where they are all that the outputs hold, files elsewhere hold the box.

    The first one is made inside the folder that is there, and so leads to itself.
    """
    project.write("job.sh", f"mkdir real; echo precious >real/model; {link}")
    done = project.inv("run")

    assert 73 == done.code
    assert "nothing in results/: real/model" in done.err
    assert 73 == project.inv("teardown").code
    assert 1 == len(project.boxes())


def test_a_link_out_of_the_job_s_folder_holds_the_box(project: Project) -> None:
    """Its target is named, and teardown agrees; a link to nothing holds nothing."""
    project.write(
        "job.sh",
        "echo precious >../scratch; ln -s ../../scratch results/best; "
        "ln -s ../../gone results/gone",
    )
    done = project.inv("run")

    assert 73 == done.code
    assert "results/best → ../../scratch" in done.err
    assert 73 == project.inv("teardown").code
    assert 0 == project.inv("ssh", "--", "rm work/results/best scratch").code
    done = project.inv("fetch", "teardown")
    assert 0 == done.code, done.err
    assert "links to nothing, left out: results/gone" in done.err
    assert [] == project.boxes()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("echo trained >model.json", "model.json"),
        ("echo more >>model.json", "model.json"),
        ("echo trained >m; ln -sf m model.json", "m"),
        ("echo trained >new.bin", "new.bin"),
        ("mkdir -p deep/er; echo trained >deep/er/new.bin", "deep/er/new.bin"),
    ],
)
def test_a_changed_or_new_file_holds_the_box_when_the_outputs_are_empty(
    project: Project, command: str, named: str
) -> None:
    """It is named; a plain teardown refuses, too, and naming it as output brings it."""
    project.write("model.json", "untrained\n")
    project.write("job.sh", command)
    done = project.inv("run")

    assert 73 == done.code
    assert "on the box, but nothing in results/: " in done.err
    assert named in done.err
    assert 1 == len(project.boxes())
    assert "--discard-outputs" in project.inv("teardown").err
    assert 1 == len(project.boxes())
    project.write(
        "onebox.toml", f'[run]\ncommand = "x"\n[fetch]\noutputs = ["{named}"]\n'
    )
    assert 0 == project.inv("fetch", "teardown").code
    assert "untrained\n" != project.read(named)
    assert [] == project.boxes()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("mkdir ~/out; echo precious >~/out/r", "~/out/r"),
        ("echo old >old; touch -d 2001-01-01 old; cp -p old ~/copy; rm old", "~/copy"),
        (
            "cd; mv work w2; mkdir -p work/results; echo precious >w2/results/r",
            "~/w2/results/r",
        ),
    ],
)
def test_a_new_file_in_the_home_folder_holds_the_box_when_the_outputs_are_empty(
    project: Project, command: str, named: str
) -> None:
    """It is named like one in the work folder; a job that leaves none holds nothing."""
    project.write("job.sh", "cat /dev/null ~/*; true")
    done = project.inv("run", "--keep")
    assert 0 == done.code, done.err
    project.write("job.sh", command)
    done = project.inv("run")

    assert 73 == done.code, done.err
    assert "on the box, but nothing in results/: " in done.err
    assert named in done.err
    assert 1 == len(project.boxes())
    assert 0 == project.inv("teardown", "--discard-outputs", "--yes").code


def test_changed_files_are_named_when_there_are_outputs(project: Project) -> None:
    """What the job changed beside its outputs is named in one line, and given up."""
    project.write("model.json", "untrained\n")
    project.write("same.json", "same\n")
    project.write(
        "job.sh",
        "echo 42 >results/answer; echo trained >model.json; echo same >same.json; "
        "mkdir __pycache__ .pytest_cache; "
        "touch __pycache__/job.pyc .pytest_cache/x; echo new >new.bin",
    )
    done = project.inv("run")

    assert 0 == done.code, done.err
    line = "2 files that the job created or changed outside of the outputs: "
    assert line + "model.json, new.bin\n" in done.err
    assert [] == project.boxes()


def test_files_deleted_here_during_a_run_are_not_the_job_s(project: Project) -> None:
    """The box's files are compared with what was pushed, not with what is here now."""
    for number in range(20):
        project.write(f"data/{number}", "input\n")
    project.write("job.sh", "echo working; until rm ~/go 2>&-; do sleep 0.1; done")
    line = project.start("run")
    project.until("working")
    for number in range(20):
        (project.root / "data" / str(number)).unlink()
    (box,) = project.boxes()
    (project.home / "local/boxes" / box / "disk/home/go").touch()

    assert 0 == line.wait(120), project.err
    assert "created or changed" not in project.err
    assert [] == project.boxes()


def test_a_detached_job_s_result_elsewhere_holds_the_box(project: Project) -> None:
    """Teardown and fetch after a detached job keep the box as the run itself would."""
    project.write("job.sh", "echo precious >model.bin")
    assert 0 == project.inv("run", "--detach").code
    assert 0 == project.inv("logs").code
    for line in (("fetch", "teardown"), ("fetch",), ("teardown",)):
        done = project.inv(*line)
        assert 73 == done.code, line
        assert "model.bin" in done.err
    assert 0 == project.inv("teardown", "--discard-outputs", "--yes").code
    assert [] == project.boxes()


def test_no_push_replaces_the_only_copy_of_a_result(project: Project) -> None:
    """A second run, or a push, is refused until the file is named or given up."""
    project.write("model.json", "untrained\n")
    project.write("job.sh", "echo trained >model.json")
    assert 73 == project.inv("run").code
    for line in (("run",), ("push",)):
        done = project.inv(*line)
        assert 73 == done.code, done.err
        assert "model.json" in done.err
    assert "trained\n" == project.inv("ssh", "--", "cat work/model.json").out
    project.write(
        "onebox.toml", '[run]\ncommand = "sh job.sh"\n[fetch]\noutputs = []\n'
    )
    assert 0 == project.inv("run", "teardown").code
    assert [] == project.boxes()


def test_a_failed_job_s_files_are_named(project: Project) -> None:
    """A job that failed ends its box as always; what it left is named."""
    project.write("job.sh", "echo half >model.bin; exit 3")
    done = project.inv("run")

    assert 3 == done.code
    assert "outside of the outputs: model.bin" in done.err
    assert [] == project.boxes()


@pytest.mark.parametrize("levels", [1_400, 20_000])
def test_a_deep_tree_of_a_job_is_fetched_or_named_and_can_be_removed(
    project: Project, levels: int
) -> None:
    """No depth of folders is a traceback, and none keeps a box from being removed."""
    project.write(
        "job.py",
        "import os\nos.chdir('results')\n"
        f"for _ in range({levels}):\n    os.mkdir('x')\n    os.chdir('x')\n"
        "open('end', 'w').write('precious')\n",
    )
    project.write("job.sh", "python3 job.py")
    try:
        done = project.inv("run")
        assert "Traceback" not in done.err
        if done.code:
            assert 73 == done.code
            assert "File name too long" in done.err
            assert len(done.err) < 10_000
            done = project.inv("teardown", "--discard-outputs", "--yes")
        else:
            end = os.path.join("results", *["x"] * levels, "end")  # noqa: PTH118 -- deep
            assert "precious" == project.read(end)
        assert 0 == done.code, done.err
        assert [] == project.boxes()
        assert 0 == project.inv("status").code
    finally:
        # pytest's own cleaning fails at such a tree.
        directories.remove(project.root / "results")


@pytest.mark.parametrize("line", [("push",), ("plan",), ("--dry", "run")])
def test_a_deep_tree_here_is_named_before_a_box_is_made(
    project: Project, line: tuple[str, ...]
) -> None:
    """A project with paths that no system takes ends with an error, no traceback."""
    fd = os.open(project.root, os.O_RDONLY)
    for _ in range(20_000):
        os.mkdir("x", dir_fd=fd)
        inner = os.open("x", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    try:
        done = project.inv(*line)
    finally:
        directories.remove(project.root / "x")

    assert 70 == done.code
    assert f"onebox: File name too long: {project.root}/x/x" in done.err
    assert len(done.err) < 1_000
    assert [] == project.boxes()


def test_a_deep_tree_beside_the_outputs_is_named(project: Project) -> None:
    """It neither breaks the fetch of the outputs nor passes in silence."""
    project.write(
        "job.py",
        "import os\nopen('results/a', 'w').write('precious')\n"
        "for _ in range(3_000):\n    os.mkdir('x')\n    os.chdir('x')\n",
    )
    project.write("job.sh", "python3 job.py")
    done = project.inv("run")

    assert 0 == done.code, done.err[-3000:]
    assert "1 file that the job created or changed outside of the outputs" in done.err
    assert len(done.err) < 10_000
    assert [] == project.boxes()


def test_a_receipt_in_tracked_outputs_does_not_hold_the_box(project: Project) -> None:
    """It is not pushed: as an output it would differ from the next run's receipt."""
    project.write("results/onebox-receipt.json", "{}")
    project.write("results/kept.txt", "kept")
    project.write(".gitignore", ".onebox\n")
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    subprocess.run(["git", "add", "results"], cwd=project.root, check=True)
    project.write("job.sh", "ls results; date >results/date")
    for _ in range(2):
        done = project.inv("run")

        assert (0, "kept.txt\n") == (done.code, done.out), done.err
        assert [] == project.boxes()
    assert "sh job.sh" in project.read("results/onebox-receipt.json")


@pytest.mark.parametrize("own", ["echo precious >", "mkdir -p "])
def test_an_output_with_the_receipt_s_name_stays_the_job_s(
    project: Project, own: str
) -> None:
    """The receipt is then in `.onebox` only, and a warning says so."""
    project.write(
        "job.sh", f"mkdir -p results; {own}results/onebox-receipt.json; >results/x"
    )
    done = project.inv("run")

    assert 0 == done.code, done.err
    assert "results/onebox-receipt.json is an output of the job" in done.err
    assert [] == project.boxes()
    came = project.root / "results" / "onebox-receipt.json"
    assert came.is_dir() or "precious\n" == came.read_text("utf-8")


def test_read_only_folders_of_a_job_are_fetched_again(project: Project) -> None:
    """A folder is closed here as on the box, but to the next fetch; the code stays."""
    project.write(
        "job.sh",
        "mkdir -p results/inner; date >results/inner/date; date >results/inner/$$; "
        "chmod 500 results/inner results",
    )
    for _ in range(2):
        done = _without_root_s_rights(project, "run")

        assert 0 == done.returncode, done.stderr
        assert "results is read-only" in done.stderr
        assert [] == project.boxes()
        for folder in ("results", "results/inner"):
            assert 0o500 == stat.S_IMODE((project.root / folder).stat().st_mode)
    assert 2 < len(list((project.root / "results" / "inner").iterdir()))


def test_an_output_that_cannot_be_read_is_named_as_that(project: Project) -> None:
    """It is not taken for one that is still being written to."""
    project.write("job.sh", "date >results/closed; chmod 0 results/closed")
    done = _without_root_s_rights(project, "run")

    assert 73 == done.returncode
    assert "not readable on the box: results/closed" in done.stderr
    assert 1 == len(project.boxes())


def _without_root_s_rights(
    project: Project, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run an `inv` line that file modes apply to, whoever runs the tests."""
    argv = project.argv(*words)
    if os.geteuid() == 0:
        lost = "-dac_override,-dac_read_search"
        argv = ["setpriv", "--bounding-set", lost, *argv]
    return subprocess.run(
        argv,
        cwd=project.root,
        env=project.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
