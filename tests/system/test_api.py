"""`onebox.api` in scripts and in a notebook's kernel, on real local boxes."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import onebox.api
from tests.conftest import Project
from tests.system.lines import finished_stages
from tests.system.scripts import HEAD, PACKAGE, script, shown

CHAIN = ["image", "provision", "push", "run", "fetch", "teardown"]
WAITS = (
    "echo up; until test -e go; do sleep 0.05; done; mkdir -p results; "
    "echo 7 > results/n; echo end"
)


class TestFunctions:
    def test_parameters_have_types_and_a_docstring_each(self) -> None:
        """`help()` shows each parameter of each function, and what it is for."""
        functions = [getattr(onebox.api, name) for name in onebox.api.__all__]
        for function in filter(inspect.isfunction, functions):
            text = inspect.getdoc(function) or ""
            for parameter in inspect.signature(function).parameters.values():
                assert parameter.annotation is not parameter.empty
                assert parameter.name in text or "see `run`" in text
        run = inspect.signature(onebox.api.run).parameters
        text = inspect.getdoc(onebox.api.run) or ""

        assert all(f"    {name}: " in text for name in run)

    def test_import_of_onebox_does_not_import_the_api(self) -> None:
        """`inv --list` does not pay for `onebox.api`."""
        code = "import onebox, sys; sys.exit('onebox.api' in sys.modules)"

        assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


class TestRun:
    def test_each_call_runs_a_whole_chain_and_returns_its_receipt(
        self, project: Project
    ) -> None:
        """Two calls in one process make two boxes, and leave none."""
        done = script(
            project,
            "first = api.run()\n"
            "show(first.exit_code, first.cost, first.outputs.files)\n"
            "show(first.to_dict()['command'], first.seconds >= 0, repr(first)[:16])\n"
            "second = api.run('echo again')\n"
            "show(second.job != first.job, second.box.id != first.box.id)\n",
            as_user=True,
        )

        assert 0 == done.code, done.err
        assert CHAIN * 2 == finished_stages(done.err)
        assert ["0 0.0 1", "sh job.sh True <Receipt of job ", "True True"] == shown(
            done.out
        )
        assert ["working", "again"] == [
            line for line in done.out.splitlines() if line[0] != "="
        ]
        assert [] == project.boxes()
        assert "42\n" == project.read("results/answer.txt")

    def test_receipt_is_that_of_the_file_beside_the_outputs(
        self, project: Project
    ) -> None:
        """`to_dict` is the JSON document of the receipt's file."""
        done = script(project, "import json; show(json.dumps(api.run().to_dict()))")
        (document,) = shown(done.out)

        assert json.loads(document) == json.loads(
            project.read("results/onebox-receipt.json")
        )

    def test_words_reach_the_job_as_they_are(self, project: Project) -> None:
        """They do so even if the words of the script itself look like them."""
        done = script(
            project,
            "api.run(['printf', '%s|', 'a  b', '--dry', ''])\n"
            "api.run(['echo', \"it's\"])\n",
            "--",
            """echo 'it'"'"'s'""",
        )

        assert "a  b|--dry||it's\n" == done.out

    def test_failed_job_raises_its_code_receipt_and_output(
        self, project: Project
    ) -> None:
        """The process continues, and the box is gone."""
        done = script(
            project,
            "try: api.run('seq 30; exit 3')\n"
            "except api.JobFailed as error:\n"
            "    show(error, error.code, error.receipt.exit_code)\n"
            "    show(error.text.split() == [str(n) for n in range(11, 31)])\n",
        )

        assert 0 == done.code, done.err
        assert ["the job ended with exit 3 3 3", "True"] == shown(done.out)
        assert [] == project.boxes()

    def test_unchanged_job_returns_the_receipt_of_its_outputs(
        self, project: Project
    ) -> None:
        """With `when = "changed"`, it is the receipt of the last good job."""
        project.write(
            "onebox.toml",
            '[run]\ncommand = "sh job.sh"\nwhen = "changed"\n'
            '[fetch]\noutputs = ["results/"]\n',
        )
        done = script(
            project,
            "first, second = api.run(), api.run()\nshow(first.job == second.job)\n",
        )

        assert ["True"] == shown(done.out), done.err
        assert "up to date  command, code, data and image unchanged" in done.err

    def test_detached_job_is_followed_fetched_and_removed_by_later_calls(
        self, project: Project
    ) -> None:
        """The calls for single steps do what the tasks of their names do."""
        done = script(
            project,
            "box = api.provision()\n"
            "api.push()\n"
            "show(api.run(detach=True))\n"
            "receipt = api.logs()\n"
            "show(receipt.exit_code, receipt.box.id == box)\n"
            "(box,) = api.status()\n"
            "show(box.job.state)\n"
            "show(api.fetch(into='elsewhere'))\n"
            "api.cancel()\n"
            "api.teardown()\n",
        )

        assert 0 == done.code, done.err
        assert [
            "None",
            "0 True",
            "succeeded",
            "OutputCount(files=1, bytes=3)",
        ] == shown(done.out)
        assert "working\n" in done.out
        assert "42\n" == project.read("elsewhere/results/answer.txt")
        assert [] == project.boxes()

    def test_settings_replace_those_of_the_file(self, project: Project) -> None:
        """They have their names in onebox.toml, and hold for one call."""
        done = script(
            project,
            "api.run('echo $N', settings={'run.env': {'N': '5'}, 'name': 'other'})\n"
            "try: api.run(settings={'limits.max_hours': 'x'})\n"
            "except errors.ConfigError as error: show(error)\n"
            "try: api.run(settings={'limits.hours': 1})\n"
            "except errors.ConfigError as error: show('hours' in str(error))\n",
        )
        first, second = shown(done.out)

        assert "5\n" == done.out.partition("=")[0]
        assert "census/other" in done.err
        assert first.startswith("limits.max_hours: expected a number")
        assert "True" == second


class TestErrors:
    def test_error_names_what_to_do_and_nothing_is_printed(
        self, project: Project
    ) -> None:
        """The text of the exception has the lines that `inv` prints."""
        done = script(
            project,
            "for call in (api.fetch, lambda: api.run(''), lambda: api.run([])):\n"
            "    try: call()\n"
            "    except errors.UsageError as error: show(repr(str(error)))\n",
        )

        assert 0 == done.code
        assert "" == done.err
        assert [
            "'there is no box census/main to fetch from\\n"
            "  next: onebox.api.run() runs the job and fetches its outputs'",
            *["'the command is empty\\n  next: onebox.api.run(\"python job.py\")'"] * 2,
        ] == shown(done.out)

    def test_traceback_shows_no_code_below_the_api(self, project: Project) -> None:
        """A cell shows the line of the user, one of `onebox.api`, and the error."""
        done = script(project, "api.fetch()\n")

        assert 1 == done.code
        assert 2 == done.err.count("  File ")
        assert 1 == done.err.count(f'  File "{onebox.api.calls.__file__}"')

    def test_stage_of_the_user_ends_with_the_code_of_the_job(
        self, project: Project
    ) -> None:
        """A call in a stage of an `inv` line has its own flags and its own box."""
        project.write(
            "tasks.py",
            "import onebox.api\n"
            "@onebox.stage\n"
            "def go(c):\n"
            "    onebox.api.run('echo one; exit 4', name='other')\n",
        )
        done = project.inv("go", "--vm=large")

        assert (4, "one\n") == (done.code, done.out)
        assert "census/other   local   small" in done.err
        assert "Traceback" not in done.err
        assert [] == project.boxes()

    def test_error_names_the_box_that_is_left(self, project: Project) -> None:
        """The text says what still runs, and the command has the box's name."""
        done = script(
            project,
            "api.provision(name='b')\n"
            "try: api.run(name='b', vm='large')\n"
            "except api.OneboxError as error: show(repr(str(error)))\n"
            "api.teardown(name='b')\n",
        )
        (text,) = shown(done.out)

        assert 0 == done.code
        assert "census/b (" in text
        assert "is still up" in text
        assert (
            'next: onebox.api.teardown(name="b"), or another box: name="second"' in text
        )

    def test_folder_without_a_project_is_refused(
        self, project: Project, tmp_path: Path
    ) -> None:
        """The project is found from a folder below it, and can be given."""
        done = script(
            project,
            "os.makedirs('deep/down'); os.chdir('deep/down')\n"
            "show(api.status())\n"
            "root = os.path.abspath('../..')\n"
            f"os.chdir({str(tmp_path)!r})\n"
            "try: api.status()\n"
            "except errors.InputError as error: show(error)\n"
            "show(api.status(project=root))\n"
            "try: api.status(project='no-folder')\n"
            "except errors.InputError as error: show(error)\n",
        )

        assert 0 == done.code, done.err
        assert 2 == done.out.count("= ()\n")
        assert f"no onebox.toml or tasks.py in {tmp_path} or above it" in done.out
        assert "project='no-folder' is not a folder" in done.out


class TestInterrupts:
    def test_interrupted_call_leaves_the_job_running(self, project: Project) -> None:
        """It raises KeyboardInterrupt; later calls follow the job to its end."""
        done = script(
            project,
            "def interrupt(data): os.kill(os.getpid(), signal.SIGINT)\n"
            f"try: api.run({WAITS!r}, output=interrupt)\n"
            "except KeyboardInterrupt as error: show(error)\n"
            "show(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
            "let_jobs_continue()\n"
            "show(api.logs().exit_code, api.fetch().files)\n"
            "api.teardown()\n",
        )
        first, *others = shown(done.out)

        assert 0 == done.code, done.err
        assert first.startswith("detached; job ")
        assert first.endswith("onebox.api.cancel() stops it"), first
        assert ["True", "0 1"] == others
        assert "up\nend\n" in done.out
        assert "7\n" == project.read("results/n")

    def test_term_reaches_the_handler_of_the_script(self, project: Project) -> None:
        """A script without a handler ends by the signal, with the job detached."""
        done = script(
            project,
            "def end(data): os.kill(os.getpid(), signal.SIGTERM)\n"
            f"api.run({WAITS!r}, output=end)\n"
            "show('continued')\n",
        )

        assert (-signal.SIGTERM, "") == (done.code, done.out)
        assert "onebox: detached" in done.err
        assert 1 == len(project.boxes())

    def test_term_ends_the_line_whose_stage_has_made_the_call(
        self, project: Project
    ) -> None:
        """The signal gives the exit code of the `inv` line."""
        project.write(
            "tasks.py",
            "import os, signal, onebox.api\n"
            "def end(data): os.kill(os.getpid(), signal.SIGTERM)\n"
            "@onebox.stage\n"
            "def go(c):\n"
            f"    onebox.api.run({WAITS!r}, name='other', output=end)\n",
        )
        done = project.inv("go")

        assert 143 == done.code, done.err
        assert "onebox: detached" in done.err

    def test_closed_stdout_raises_an_error_after_the_chain(
        self, project: Project
    ) -> None:
        """The job ends, its outputs are here, and its box is gone."""
        ours, theirs = os.pipe()
        os.close(ours)
        code = "try: api.run()\nexcept BrokenPipeError as error: note(error)\n"
        done = subprocess.run(
            [sys.executable, "-c", HEAD + code],
            cwd=project.root,
            env={**project.environ, "PYTHONPATH": PACKAGE},
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(theirs)

        assert ["the reader of stdout is gone; the command has ended"] == shown(
            done.stderr
        )
        assert "42\n" == project.read("results/answer.txt")
        assert [] == project.boxes()


class TestEndOfACall:
    def test_box_is_printed_and_unlocked_at_the_end_of_the_call(
        self, project: Project
    ) -> None:
        """Another process can remove the box while the script goes on."""
        done = script(
            project,
            "api.run(keep=True)\n"
            "note('after the call')\n"
            "line = [sys.executable, '-m', 'invoke', 'teardown']\n"
            "show(subprocess.run(line).returncode)\n",
        )

        assert ["0"] == shown(done.out)
        assert done.err.index("• kept") < done.err.index("= after the call")
        assert 1 == done.err.count("• kept")
        assert [] == project.boxes()


class TestThreads:
    def test_two_threads_run_jobs_under_two_names(self, project: Project) -> None:
        """Each gets the receipt of its own job."""
        done = script(
            project,
            "from concurrent.futures import ThreadPoolExecutor\n"
            "def job(name): return api.run('echo ' + name, name=name, into=name)\n"
            "with ThreadPoolExecutor() as pool:\n"
            "    for receipt in pool.map(job, ['one', 'two']):\n"
            "        show(receipt.box.name, receipt.command)\n",
        )

        assert 0 == done.code, done.err
        assert ["one echo one", "two echo two"] == shown(done.out)
        assert {"one", "two"} <= set(done.out.splitlines())
        assert [] == project.boxes()

    def test_second_thread_is_refused_the_box_of_the_first(
        self, project: Project
    ) -> None:
        """Two threads exclude each other as two processes do."""
        done = script(
            project,
            "up = threading.Event()\n"
            f"def first(): show(api.run({WAITS!r}, output=lambda _: up.set()).exit)\n"
            "thread = threading.Thread(target=first); thread.start(); up.wait()\n"
            "try: api.run()\n"
            "except errors.Busy as error: note(error)\n"
            "finally: let_jobs_continue(); thread.join()\n",
        )
        busy, _ = shown(done.err), shown(done.out)

        assert 0 == done.code, done.err
        assert busy[0].startswith("census/main is busy: \"onebox.api.run('echo up;")
        assert ["0"] == shown(done.out)
        assert [] == project.boxes()


class TestOutput:
    def test_output_goes_to_the_stdout_of_the_moment(self, project: Project) -> None:
        """A replaced `sys.stdout` gets text, a given function gets bytes."""
        done = script(
            project,
            "into, taken = io.StringIO(), []\n"
            "with contextlib.redirect_stdout(into):\n"
            "    api.run(r\"printf '\\303'; sleep 0.3; printf '\\251t\\303\\251'\")\n"
            "api.run('echo bytes', output=taken.append)\n"
            "show(ascii(into.getvalue()), b''.join(taken))\n",
        )

        assert "= '\\xe9t\\xe9' b'bytes\\n'\n" == done.out, done.err
        assert "\x1b" not in done.err

    def test_error_of_the_output_function_is_raised_when_the_job_has_ended(
        self, project: Project
    ) -> None:
        """No result is lost, and the box is gone."""
        done = script(
            project,
            "def fail(data): raise ValueError('mine')\n"
            "try: api.run(output=fail)\n"
            "except ValueError as error: show(error)\n",
        )

        assert ["mine"] == shown(done.out), done.err
        assert "42\n" == project.read("results/answer.txt")
        assert [] == project.boxes()


CELLS = """\
import json, sys
from jupyter_client.manager import KernelManager
kernel = KernelManager()
kernel.start_kernel()
client = kernel.client()
client.start_channels()
client.wait_for_ready(timeout=120)
for code in sys.argv[1:]:
    streams = {"stdout": "", "stderr": "", "error": "", "result": ""}
    cell = client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=240)
        kind, content = message["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") != cell:
            continue
        if kind == "stream":
            streams[content["name"]] += content["text"]
            if code.startswith("# interrupt") and "up" in streams["stdout"]:
                # A second one could meet the kernel while it reports the first.
                kernel.interrupt_kernel()
                code = ""
        elif kind == "error":
            streams["error"] = content["ename"] + ": " + content["evalue"]
            streams["traceback"] = "\\n".join(content["traceback"])
        elif kind == "execute_result":
            streams["result"] = content["data"]["text/plain"]
        elif kind == "status" and content["execution_state"] == "idle":
            break
    print(json.dumps(streams), flush=True)
client.stop_channels()
kernel.shutdown_kernel()
"""


def test_notebook_cell_shows_output_messages_and_errors(project: Project) -> None:
    """
    The output and the messages are in the cell, without control codes; a traceback is
    short. An interrupted cell leaves the job running, and the kernel continues.
    """
    pytest.importorskip("ipykernel")
    cells = [
        "import onebox.api; receipt = onebox.api.run(); receipt",
        f"# interrupt\nonebox.api.run({WAITS!r})",
        "onebox.api.cancel(); onebox.api.logs()",
        "onebox.api.teardown(discard_outputs=True)",
        "onebox.api.run('echo a', into='/proc/no')",
        "onebox.api.teardown(discard_outputs=True); onebox.api.plan()",
    ]
    done = subprocess.run(
        [sys.executable, "-c", CELLS, *cells],
        cwd=project.root,
        env={**project.environ, "PYTHONPATH": PACKAGE},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    first, second, third, fourth, fifth, sixth = map(
        json.loads, done.stdout.splitlines()
    )

    assert "working\n" == first["stdout"]
    assert CHAIN == finished_stages(first["stderr"])
    assert "\x1b" not in first["stderr"]
    assert first["result"].startswith("<Receipt of job ")
    assert "up\n" == second["stdout"]
    assert second["error"].startswith("KeyboardInterrupt: detached; job ")
    assert "JobFailed: the job ended with exit 143" == third["error"]
    assert "" == fourth["error"]
    assert fifth["error"].startswith("OutputsHeld: the outputs cannot be put here")
    # The cell, and the one function below it: not the error of the file system.
    assert 1 == fifth["traceback"].count("calls.py")
    assert 1 == fifth["traceback"].count("Traceback")
    assert "fetch_outputs.py" not in fifth["traceback"]
    assert sixth["result"].startswith("<Plan for census/main: small on local")
    assert [] == project.boxes()
