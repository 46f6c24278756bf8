"""Whatever way a job leaves its result, it is fetched or its box is kept."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from onebox.providers.local import directories
from tests.conftest import Project
from tests.providers.sshbox import wait_until


def test_run_fetches_the_target_of_a_link_in_the_outputs(project: Project) -> None:
    """A checkpoint that is linked from the outputs is here when the box is gone."""
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


def test_run_fetches_outputs_that_are_a_link(project: Project) -> None:
    """The whole output folder may be a link to another folder."""
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
def test_dangling_links_are_no_result(project: Project, link: str) -> None:
    """If the outputs have only dangling links, files elsewhere keep the box."""
    project.write("job.sh", f"mkdir real; echo precious >real/model; {link}")
    done = project.inv("run")

    assert 73 == done.code
    assert "nothing in results/: real/model" in done.err
    assert 73 == project.inv("teardown").code
    assert 1 == len(project.boxes())


def test_link_out_of_the_work_folder_keeps_the_box(project: Project) -> None:
    """Its target is named, and teardown agrees; a dangling link keeps no box."""
    project.write(
        "job.sh",
        "echo precious >../scratch; ln -s ../../scratch results/best; "
        "ln -s ../../gone results/gone",
    )
    done = project.inv("run")

    assert 73 == done.code
    assert "results/best → ../../scratch" in done.err
    assert 73 == project.inv("teardown").code
    assert 0 == project.inv("ssh", "--", "rm results/best ~/scratch").code
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
def test_changed_or_new_file_keeps_the_box_if_the_outputs_are_empty(
    project: Project, command: str, named: str
) -> None:
    """
    It is named, teardown is refused too, and the file can be fetched as an output.
    """
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
        ("echo precious >~/best.ckpt", "~/best.ckpt"),
        ("echo old >old; touch -d 2001-01-01 old; cp -p old ~/copy; rm old", "~/copy"),
        (
            "cd; mv work w2; mkdir -p work/results; echo precious >w2/results/r",
            "~/w2/results/r",
        ),
    ],
)
def test_new_file_in_the_home_folder_keeps_the_box_if_the_outputs_are_empty(
    project: Project, command: str, named: str
) -> None:
    """
    It is named like one in the work folder; without such a file the box is deleted.
    """
    project.write("job.sh", "cat /dev/null ~/*; true")
    done = project.inv("run", "--keep")
    assert 0 == done.code, done.err
    project.write("job.sh", command)
    done = project.inv("run")

    assert 73 == done.code, done.err
    assert "on the box, but nothing in results/: " in done.err
    assert 1 == done.err.count(named)
    assert 1 == len(project.boxes())
    assert 0 == project.inv("teardown", "--discard-outputs", "--yes").code


def test_failed_job_without_outputs_leaves_nothing_to_fetch(project: Project) -> None:
    """The empty folder `results/` is onebox's own, and the run has ended."""
    project.write("job.sh", "exit 3")
    assert 0 == project.inv("run", "--detach").code
    wait_until(lambda: "exit 3" in project.inv("status").out)
    done = project.inv("teardown")

    assert 0 == done.code, done.err
    assert "abandoned" not in done.err
    assert [] == project.boxes()


def test_changed_files_are_named_if_there_are_outputs(project: Project) -> None:
    """
    Files changed beside the outputs are named in one line, which says that they are
    removed with the box, or are left on it, and how to keep them.
    """
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
    line += "model.json, new.bin: not fetched, and "
    advice = "to keep such files, add them to [fetch] outputs"
    assert f"{line}removed with the box; {advice}\n" in done.err
    assert [] == project.boxes()
    done = project.inv("run", "--keep")
    assert f"{line}left on the box; {advice}, then inv fetch\n" in done.err
    assert 0 == project.inv("teardown").code


def test_file_deleted_here_during_a_run_is_no_result(project: Project) -> None:
    """
    The box's files are compared with the pushed ones, not with the current local
    ones.
    """
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


def test_result_of_a_detached_job_outside_the_outputs_keeps_the_box(
    project: Project,
) -> None:
    """Teardown and fetch keep the box, as the run itself would."""
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
    """A second run or push is refused until the file is fetched or given up."""
    project.write("model.json", "untrained\n")
    project.write("job.sh", "echo trained >model.json")
    assert 73 == project.inv("run").code
    for line in (("run",), ("push",)):
        done = project.inv(*line)
        assert 73 == done.code, done.err
        assert "model.json" in done.err
    assert "trained\n" == project.inv("ssh", "--", "cat model.json").out
    project.write(
        "onebox.toml", '[run]\ncommand = "sh job.sh"\n[fetch]\noutputs = []\n'
    )
    assert 0 == project.inv("run", "teardown").code
    assert [] == project.boxes()


def test_files_of_a_failed_job_are_named(project: Project) -> None:
    """The box of a failed job is deleted as always; its files are named."""
    project.write("job.sh", "echo half >model.bin; exit 3")
    done = project.inv("run")

    assert 3 == done.code
    assert "outside of the outputs: model.bin" in done.err
    assert [] == project.boxes()


# 1,400 levels exceed Python's recursion limit, and 6,000 the longest path of Linux and
# the number of files that may be open.
@pytest.mark.parametrize("levels", [1_400, 6_000])
def test_deep_tree_of_a_job_is_fetched_or_named_and_can_be_deleted(
    project: Project, levels: int
) -> None:
    """No depth of folders causes a traceback or prevents the deletion of the box."""
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


def test_deep_local_tree_is_refused_before_a_box_is_created(project: Project) -> None:
    """A path that is too long for any system gives an error, and no traceback."""
    fd = os.open(project.root, os.O_RDONLY)
    for _ in range(20_000):
        os.mkdir("x", dir_fd=fd)
        inner = os.open("x", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    try:
        for line in (("push",), ("plan",), ("--dry", "run")):
            done = project.inv(*line)
            assert 70 == done.code, line
            assert f"onebox[70]: File name too long: {project.root}/x/x" in done.err
            assert len(done.err) < 1_000
            assert [] == project.boxes()
    finally:
        directories.remove(project.root / "x")


def test_deep_tree_beside_the_outputs_is_named(project: Project) -> None:
    """It does not break the fetch of the outputs."""
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


def test_receipt_in_tracked_outputs_does_not_keep_the_box(project: Project) -> None:
    """The receipt is not pushed: it would differ from the receipt of the next run."""
    project.write("results/kept.txt", "kept")
    project.write(".gitignore", ".onebox\n")
    project.write("job.sh", "ls results; date >results/date")
    assert 0 == project.inv("run").code
    (project.root / "results" / "date").unlink()
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    subprocess.run(["git", "add", "results"], cwd=project.root, check=True)
    for _ in range(2):
        done = project.inv("run")

        assert (0, "kept.txt\n") == (done.code, done.out), done.err
        assert [] == project.boxes()
    assert "sh job.sh" in project.read("results/onebox-receipt.json")


@pytest.mark.parametrize("own", ["echo precious >", "mkdir -p "])
def test_output_with_the_name_of_the_receipt_is_not_overwritten(
    project: Project, own: str
) -> None:
    """The receipt is then only in `.onebox`, and a warning says so."""
    project.write(
        "job.sh", f"mkdir -p results; {own}results/onebox-receipt.json; >results/x"
    )
    done = project.inv("run")

    assert 0 == done.code, done.err
    assert "results/onebox-receipt.json is an output of the job" in done.err
    assert [] == project.boxes()
    came = project.root / "results" / "onebox-receipt.json"
    assert came.is_dir() or "precious\n" == came.read_text("utf-8")


def test_file_of_the_user_with_the_name_of_the_receipt_is_not_overwritten(
    project: Project,
) -> None:
    """The receipt is then only in `.onebox`, and a warning says so."""
    project.write("results/onebox-receipt.json", "mine")
    project.write("job.sh", "date >results/date")
    done = project.inv("run")

    assert 0 == done.code, done.err
    assert "results/onebox-receipt.json is a file of yours" in done.err
    assert "mine" == project.read("results/onebox-receipt.json")
    # An earlier version wrote this receipt, with other fields.
    project.write("results/onebox-receipt.json", '{"job": "1", "box": {}}')
    assert "of yours" not in project.inv("run").err
    assert "sh job.sh" in project.read("results/onebox-receipt.json")


def test_pipes_and_sockets_in_the_outputs_are_named(project: Project) -> None:
    """They are not fetched and do not keep the box, but a warning names them."""
    project.write("job.sh", "date >results/date; mkfifo results/queue")
    done = project.inv("run")

    assert 0 == done.code, done.err
    assert "results/queue" in done.err
    assert [] == project.boxes()


@pytest.mark.parametrize("line", ["teardown", "push"])
def test_outputs_of_a_job_that_the_box_has_forgotten_are_not_lost(
    project: Project, line: str
) -> None:
    """The record names the job, so its outputs are fetched, or keep the box."""
    project.write("job.sh", "echo precious >results/only")
    assert 0 == project.inv("run", "--detach").code
    project.inv("logs")
    (jobs,) = project.home.glob("local/**/onebox/jobs")
    jobs.rename(jobs.with_name("lost"))
    done = project.inv(line)

    if line == "teardown":
        assert 73 == done.code, done.err
        assert "outputs on" in done.err
        assert "are not fetched" in done.err
        assert 1 == len(project.boxes())
        done = project.inv("fetch", "teardown")
    assert 0 == done.code, done.err
    assert "precious\n" == project.read("results/only")


def test_read_only_output_folders_can_be_fetched_again(project: Project) -> None:
    """A folder is read-only here as on the box, but a later fetch can write to it."""
    project.write(
        "job.sh",
        "mkdir -p results/inner; date >results/inner/date; date >results/inner/$$; "
        "chmod 500 results/inner results",
    )
    for _ in range(2):
        done = inv_without_root_rights(project, "run")

        assert 0 == done.returncode, done.stderr
        assert "results is read-only" in done.stderr
        assert [] == project.boxes()
        for folder in ("results", "results/inner"):
            assert 0o500 == stat.S_IMODE((project.root / folder).stat().st_mode)
    assert 2 < len(list((project.root / "results" / "inner").iterdir()))


def test_unreadable_output_is_named_as_unreadable(project: Project) -> None:
    """It is not reported as a file that keeps changing."""
    project.write("job.sh", "date >results/closed; chmod 0 results/closed")
    done = inv_without_root_rights(project, "run")

    assert 73 == done.returncode
    assert "not readable on the box: results/closed" in done.stderr
    assert 1 == len(project.boxes())


def inv_without_root_rights(
    project: Project, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run an `inv` line for which file modes count, also if the tests run as root."""
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
