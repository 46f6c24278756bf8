"""The values that `onebox.api` returns, and the texts of its errors, on real boxes."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

import onebox.api
from onebox.python_hints import FUNCTIONS, PythonHints
from tests.conftest import Project
from tests.system.scripts import script, shown

TYPES = [
    value
    for name in onebox.api.__all__
    if isinstance(value := getattr(onebox.api, name), type)
    and dataclasses.is_dataclass(value)
]
PRINT = (
    "import json\n"
    "from onebox.ui.json_document import plain\n"
    "def values(value): print(json.dumps(plain(value)))\n"
)
# A call, the class of its error, the beginning of its text, and the end of its `next`.
ERRORS = [
    (
        "api.run(vm='larg')",
        "ConfigError",
        'vm: there is no size "larg"',
        'vm="large"',
    ),
    (
        "api.run(provider='awz')",
        "ConfigError",
        'provider: "awz" is not one of',
        'provider="aws"',
    ),
    (
        "api.run(spot='x')",
        "ConfigError",
        "spot: expected true or false",
        "for example spot=True",
    ),
    (
        "api.run(settings={'image.setup': 'no.sh'})",
        "InputError",
        "image.setup: ",
        "create it, or correct image.setup",
    ),
    (
        "api.run(settings={'run.secrets': ['HF_TOKEN']})",
        "UsageError",
        "[run] secrets: HF_TOKEN is not in the environment",
        'os.environ["HF_TOKEN"] = "…"',
    ),
    (
        "api.logs(name='b')",
        "UsageError",
        "there is no box census/b",
        'onebox.api.run(name="b") starts a job',
    ),
    (
        "api.history(limit=-1)",
        "UsageError",
        "limit: expected a number of jobs",
        "onebox.api.history(limit=20)",
    ),
]


class TestValues:
    def test_each_type_is_frozen_and_documents_its_fields(self) -> None:
        """`help()` of a type says what each field means."""
        names = {kind.__name__ for kind in TYPES}
        assert {"BoxStatus", "BoxJob", "Plan", "History", "PricedOffer"} <= names
        for kind in TYPES:
            assert vars(kind)["__dataclass_params__"].frozen
            text = inspect.getdoc(kind) or ""
            for field in dataclasses.fields(kind):
                assert field.name in text, f"{kind.__name__}.{field.name}"

    def test_values_are_those_of_the_documents_and_nothing_is_printed(
        self, project: Project
    ) -> None:
        """A plan, the boxes, the jobs and the offers equal those of `--json`."""
        project.inv("run", "--keep")
        done = script(
            project,
            PRINT + "values(api.status()); values(api.history()); values(api.offers())",
        )
        assert (0, "") == (done.code, done.err)
        status, history, offers = map(json.loads, done.out.splitlines())
        lines = [
            json.loads(project.inv(name, "--json").out)
            for name in ("status", "history", "offers")
        ]

        (box,) = lines[0]["boxes"]
        assert [box] == status
        assert ("sh job.sh", "succeeded", 0) == (
            box["job"]["command"],
            box["job"]["state"],
            box["job"]["exit"],
        )
        assert history.items() <= lines[1].items()
        assert lines[2]["offers"] == offers

    def test_plan_is_a_value_also_if_the_run_would_not_start(
        self, project: Project
    ) -> None:
        """A refusal is in the plan, and its next step is a call."""
        done = script(
            project,
            "plan = api.plan('cd / && ls')\n"
            "show(plan.command, plan.exit_code, plan.box.exists)\n"
            "box = api.provision()\n"
            "show(api.plan(vm='large').refusals[0].next)\n"
            "plan = api.plan(settings={'push.data': ['gone/']})\n"
            "show(plan.exit_code, 'gone/' in plan.refusals[0].message)\n"
            "api.teardown()\n",
        )

        assert [
            "cd / && ls 0 False",
            'onebox.api.teardown(name="main"), or another box: name="second"',
            "66 True",
        ] == shown(done.out), done.err
        assert "Plan" not in done.out

    def test_box_at_another_provider_is_not_forgotten(self, project: Project) -> None:
        """A box whose provider does not answer has the state "unknown"."""
        done = script(
            project,
            "import shutil\n"
            "box = api.provision(name='b')\n"
            "(ours,) = pathlib.Path(os.environ['ONEBOX_STATE']).glob('projects/*/b')\n"
            "shutil.copytree(ours, ours.parent / 'c')\n"
            "state = ours.parent / 'c' / 'state.json'\n"
            "state.write_text(state.read_text().replace('\"local\"', '\"azure\"'))\n"
            "for one in api.status():\n"
            "    where = one.provider, one.state\n"
            "    show(one.name, one.id == box, *where, bool(one.error))\n"
            "api.teardown(name='b')\n",
        )

        assert [
            "b True local running False",
            "c True azure unknown True",
        ] == shown(done.out), done.err


class TestErrors:
    def test_frequent_errors_speak_python(self, project: Project) -> None:
        """Text and `next` have calls and parameters, no flags and no `inv` lines."""
        calls = "\n".join(
            f"try: {call}\n"
            "except errors.OneboxError as error:\n"
            "    show(json.dumps([type(error).__name__, str(error), error.next]))"
            for call, *_ in ERRORS
        )
        done = script(project, f"import json\n{calls}\n")

        found = [json.loads(line) for line in shown(done.out)]
        assert len(ERRORS) == len(found), done.err
        for (_, kind, text, next_), (name, said, hint) in zip(ERRORS, found):
            assert (kind, next_) == (name, hint)
            assert said.startswith(text)
            assert "--" not in said
            assert "inv " not in said

    def test_held_outputs_and_a_busy_box_speak_python(self, project: Project) -> None:
        """They name the box, what still runs, and calls that continue."""
        done = script(
            project,
            "def attempt(call):\n"
            "    try: call()\n"
            "    except errors.OneboxError as error: show(repr(str(error)))\n"
            "api.run('until test -e go; do sleep 0.05; done; mkdir results;'\n"
            "    'ln -s /etc results/link', detach=True)\n"
            "attempt(api.run)\n"
            "attempt(api.teardown)\n"
            "let_jobs_continue()\n"
            "api.logs()\n"
            "attempt(api.fetch)\n"
            "attempt(api.teardown)\n"
            "api.teardown(discard_outputs=True)\n",
        )
        busy, runs, link, held = shown(done.out)

        assert 0 == done.code, done.err
        assert "next: onebox.api.run(queue=True) waits for it" in busy
        assert 'onebox.api.run(name="second") runs on another box' in busy
        assert "onebox.api.teardown(discard_outputs=True)" in runs
        assert "`onebox fetch --unsafe-links` in a terminal creates them" in link
        assert "onebox.api.fetch(); onebox.api.teardown(), or" in held
        for text in (busy, runs, held):
            assert "--" not in text

    def test_calls_from_elsewhere_name_the_project(
        self, project: Project, tmp_path: Path
    ) -> None:
        """Each suggested call works from the folder in which the script runs."""
        done = script(
            project,
            f"root = {str(project.root)!r}\n"
            "show(api.run(project=root).exit, api.status(project=root))\n"
            "try: api.fetch(project=root)\n"
            "except errors.UsageError as error: show(error.next)\n",
            cwd=tmp_path,
        )

        assert [
            "0 ()",
            f'onebox.api.run(project="{project.root}") runs the job and fetches its '
            "outputs",
        ] == shown(done.out), done.err
        assert "42\n" == project.read("results/answer.txt")

    def test_traceback_of_the_cause_goes_to_the_log(self, project: Project) -> None:
        """A script sees the error alone; the logger "onebox" has what caused it."""
        call = "api.run('echo a', into='/proc/no', settings={'fetch.outputs': []})\n"
        code = "os.environ['PATH'] = '/nowhere'\n" + call
        quiet = script(project, code)
        loud = script(project, f"import logging; logging.basicConfig(level=10)\n{code}")

        assert 1 == quiet.err.count("Traceback")
        assert "SetupError: there is no OpenSSH client" in quiet.err
        assert "FileNotFoundError" not in quiet.err
        assert "FileNotFoundError" in loud.err

    def test_output_that_is_no_function_is_refused_before_the_job(
        self, project: Project
    ) -> None:
        """No box is created for it."""
        done = script(project, "api.run(output='x')\n")

        assert "UsageError: output: expected a function, got 'x'" in done.err
        assert "provision" not in done.err

    def test_values_of_another_type_are_refused_with_their_parameter(
        self, project: Project
    ) -> None:
        """No box is created, and the text has no setting's value."""
        calls = {
            "api.run(5)": "command: expected a string or a list of strings, got 5",
            "api.plan(['a', 1])": "command: expected a string or a list of strings",
            "api.plan(b'ls')": "command: expected a string or a list of strings",
            "api.run([''])": "the command is empty",
            "api.run(settings=[1])": "settings: expected a dict, got <class 'list'>",
            "api.plan(settings={1: 'hidden'})": "settings: expected names of settings",
            "api.run(keep='x')": "keep: expected True or False, got 'x'",
            "api.fetch(partial=1)": "partial: expected True or False, got 1",
            "api.teardown(all='x')": "all: expected True or False, got 'x'",
            "api.run(into=5)": "into: expected a path, got 5",
            "api.status(project=5)": "project: expected a path, got 5",
        }
        body = "".join(
            f"try: {one}\nexcept onebox.errors.UsageError as e: print(e)\n"
            for one in calls
        )
        done = script(project, f"import onebox.errors\n{body}")

        assert 0 == done.code, done.err
        lines = [
            line for line in done.out.splitlines() if not line.startswith("  next: ")
        ]
        assert len(calls) == len(lines)
        for line, text in zip(lines, calls.values()):
            assert line.startswith(text)
        assert "hidden" not in done.out + done.err
        assert [] == project.boxes()

    def test_value_that_was_meant_is_the_next_step(self, project: Project) -> None:
        """It is spelled as the parameter."""
        done = script(
            project,
            "for given in ({'vm': 'huge'}, {'provider': 'gpc'}):\n"
            "    try: api.plan(**given)\n"
            "    except api.OneboxError as e: show(e.next, e.meant)\n",
        )

        assert ['vm="small" small', 'provider="gcp" gcp'] == shown(done.out)


class TestPythonHints:
    def test_table_has_the_functions_and_their_parameters(self) -> None:
        """A suggested call has no parameter that its function lacks."""
        functions = {
            name: set(inspect.signature(getattr(onebox.api, name)).parameters)
            for name in onebox.api.__all__
            if inspect.isfunction(getattr(onebox.api, name))
        }
        without = {"project", "settings", "output"}

        assert {name: set(names) for name, names in FUNCTIONS.items()} == {
            name: names - without for name, names in functions.items()
        }

    @pytest.mark.parametrize(
        ("text", "spelled"),
        [
            ("inv doctor", "`onebox doctor` in a terminal"),
            (
                "built for the next box, or by inv image",
                "built for the next box, or by `onebox image --name=b` in a terminal",
            ),
            ("inv run --only", "`onebox run --only --name=b` in a terminal"),
            (
                "inv fetch --rescue teardown",
                'onebox.api.fetch(rescue=True, name="b"); '
                'onebox.api.teardown(name="b")',
            ),
            ("inv run --command='a b' x", 'onebox.api.run("a b", name="b") x'),
            ("inv ssh -- top, or", "`onebox ssh --name=b -- top` in a terminal, or"),
            ("a larger --vm", "a larger vm"),
            ("--no-spot", "spot=False"),
            ('"--vm" and `inv run` and a--vm', '"--vm" and `inv run` and a--vm'),
            ("inv --debug shows", 'logging.basicConfig(level="DEBUG") shows'),
        ],
    )
    def test_command_becomes_a_call(self, text: str, spelled: str) -> None:
        """What has no function is a command for a terminal; values stay."""
        hints = PythonHints(name="b")

        assert spelled == hints.spell(text)
        assert spelled == hints.spell(spelled)


def test_streams_need_no_more_than_write(project: Project) -> None:
    """A logger or a tee in place of stdout and stderr gets messages and output."""
    done = script(
        project,
        "class Tee:\n"
        "    def __init__(self, file): self.file = file\n"
        "    def write(self, text): return self.file.write(text)\n"
        "    def flush(self): self.file.flush()\n"
        "sys.stdout, sys.stderr = Tee(sys.stdout), Tee(sys.stderr)\n"
        "api.run()\n",
    )

    assert 0 == done.code, done.err
    assert "working\n" == done.out
    assert "teardown" in done.err


@pytest.mark.fast
@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (r"api.run(['echo', 'a\0b'])", "contains a NUL byte"),
        (r"api.run('echo a\0b')", "contains a NUL byte"),
        (r"api.run(['echo', '\ud800'])", "cannot be encoded"),
        (r"api.run(settings={'run.command': 'a\0b'})", "a control character"),
        (r"api.run(settings={'run.command': '\ud800'})", "not valid UTF-8"),
        (r"api.run(settings={'run.env': {'A': '\ud800'}})", "not valid UTF-8"),
        (r"api.plan('echo a\0b')", "contains a NUL byte"),
    ],
)
def test_command_that_no_program_can_get_is_refused_first(
    project: Project, call: str, problem: str
) -> None:
    """No box is created for it."""
    done = script(
        project,
        f"try: show({call})\nexcept Exception as error: show(type(error), error)",
    )

    assert "UsageError'" in done.out or "ConfigError'" in done.out, done.out + done.err
    assert problem in done.out
    assert [] == project.boxes()
