"""Stages as Invoke tasks: each once per line, with the options of the whole line."""

from __future__ import annotations

import ast
import inspect
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.context import Context
from invoke.program import Program
from invoke.tasks import Task, task

import onebox
from onebox.errors import BoxFailed, NoCapacity, OneboxError
from onebox.plugin import Stage, context_of, remainder_of, stage
from onebox.tasks import ns
from tests.conftest import Project

# Invoke's own flags: one of ours of the same name would hide it.
CORE = {
    name.lstrip("-")
    for argument in (*Program().core_args(), *Program().task_args())
    for name in argument.names
}
OURS = [task for task in ns.tasks.values() if isinstance(task, Stage)]

Inv = Callable[..., int]


@pytest.fixture
def inv(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Inv]:
    """A function that runs a line of some tasks in this process: its exit code."""
    monkeypatch.chdir(project.root)
    # Invoke turns it off for the whole process.
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    for name, value in project.environ.items():
        monkeypatch.setenv(name, value)

    def run(tasks: list[Any], *words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["inv", *words])
        try:
            Program(namespace=Collection(*tasks)).run(["inv", *words])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    yield run


class Chain:
    """Three stages of a user's, each needing the one before; *ran* says what ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.settings: list[tuple[str, str, bool | None]] = []

        @stage
        def first(c: Context) -> str:
            """Do the first thing."""
            return self._note(c, "first")

        @stage(first)
        def second(c: Context, often: int = 1) -> str:
            """Do the second thing."""
            return self._note(c, f"second{often}")

        @stage(second)
        def third(c: Context) -> str:
            """Do the third thing."""
            return self._note(c, "third")

        self.first, self.second, self.third = first, second, third
        self.all = [first, second, third]

    def _note(self, c: Context, name: str) -> str:
        self.ran.append(name)
        settings = context_of(c).settings
        self.settings.append((settings.vm, settings.name, settings.spot))
        return f"result of {name}"


@pytest.fixture
def chain() -> Chain:
    """A chain of stages that make no box."""
    return Chain()


ALL = ["first", "second1", "third"]


class TestOnce:
    @pytest.mark.parametrize(
        "line",
        [
            "third",
            "first second third",
            "third second first",
            "second third third",
            "third --vm=large second",
            "first --name=x second --name=x third --name=x",
            "second --often=1 third",
        ],
    )
    def test_each_once_in_order(self, inv: Inv, chain: Chain, line: str) -> None:
        """
        Every stage that a line needs runs once, after what it needs itself.
        """
        assert 0 == inv(chain.all, *line.split())
        assert ALL == chain.ran

    @pytest.mark.parametrize(
        "line", ["after", "second after", "third --vm=large after"]
    )
    def test_as_pre_of_a_plain_task(self, inv: Inv, chain: Chain, line: str) -> None:
        """
        A stage that is also some plain task's `pre` is the same stage.
        """

        @task(pre=[chain.third])
        def after(c: Context) -> None:
            chain.ran.append("after")

        assert 0 == inv([*chain.all, after], *line.split())
        assert [*ALL, "after"] == chain.ran

    def test_other_arguments_are_another(self, inv: Inv, chain: Chain) -> None:
        """
        With other arguments a stage is something else, and runs again.
        """

        @task
        def go(c: Context) -> None:
            chain.third(c)
            chain.second(c, often=2)
            chain.second(c, 2)
            chain.second(c, often=1)

        assert 0 == inv([go], "go")
        assert [*ALL, "second2"] == chain.ran

    def test_other_options_are_another(self, inv: Inv, chain: Chain) -> None:
        """
        For another box everything is done again.
        """

        @task
        def go(c: Context) -> None:
            for name in ("a", "b", "a"):
                chain.second(c, name=name)

        assert 0 == inv([go], "go")
        assert ["first", "second1"] * 2 == chain.ran
        assert ["a", "a", "b", "b"] == [name for _, name, _ in chain.settings]

    def test_result_is_remembered(self, inv: Inv, chain: Chain) -> None:
        """
        Who calls a stage that has run is given its result.
        """
        results: list[Any] = []

        @stage(chain.second)
        def go(c: Context) -> None:
            results.extend((chain.second(c), chain.first(c)))

        assert 0 == inv([go], "go")
        assert ["result of second1", "result of first"] == results
        assert ["first", "second1"] == chain.ran

    def test_failure_is_not_remembered(self, inv: Inv, chain: Chain) -> None:
        """
        A stage that has failed is tried again when it is asked for again.
        """
        tries: list[int] = []

        @stage(chain.first)
        def shaky(c: Context) -> str:
            tries.append(1)
            if len(tries) == 1:
                raise ValueError
            return "done"

        @task
        def go(c: Context) -> None:
            with pytest.raises(ValueError):
                shaky(c)
            chain.ran.append(shaky(c))

        assert 0 == inv([go], "go")
        assert ["first", "done"] == chain.ran

    def test_lines_are_apart(self, inv: Inv, chain: Chain) -> None:
        """
        A second line in one process knows nothing of the first one.
        """
        assert 0 == inv(chain.all, "third", "--vm=large")
        assert 0 == inv(chain.all, "third")
        assert ALL * 2 == chain.ran
        assert ["large"] * 3 == [vm for vm, _, _ in chain.settings[:3]]
        assert "large" not in [vm for vm, _, _ in chain.settings[3:]]

    def test_plain_line_after_it(self, inv: Inv, chain: Chain) -> None:
        """
        Nor does a line without any stage on it, which calls one from Python.
        """

        @task
        def go(c: Context) -> None:
            chain.first(c)

        assert 0 == inv(chain.all, "first", "--vm=large", "--name=other")
        assert 64 == inv(chain.all, "first", "--vm=large", "third", "--vm=small")
        assert 0 == inv([go], "go")
        assert ["other", "main"] == [name for _, name, _ in chain.settings]
        assert "large" != chain.settings[1][0]

    def test_without_a_program(self, inv: Inv, chain: Chain) -> None:
        """
        A stage can be called from Python alone.
        """
        inv([], "--version")

        assert "result of third" == chain.third(Context())
        assert ALL == chain.ran


class TestOnly:
    def test_leaves_needs_out(self, inv: Inv, chain: Chain) -> None:
        """
        `--only` runs the stage alone.
        """
        assert 0 == inv(chain.all, "third", "--only")
        assert ["third"] == chain.ran

    def test_speaks_of_its_stage(self, inv: Inv, chain: Chain) -> None:
        """
        It speaks of the stage it stands at, and of no other on the line.
        """
        assert 0 == inv(chain.all, "second", "--only", "third")
        # What was done alone does not count as done on top of what it needs.
        assert ["second1", "first", "second1", "third"] == chain.ran


class TestShared:
    @pytest.mark.parametrize(
        "line", ["third --vm=large", "first --vm=large third", "first third --vm=large"]
    )
    def test_hold_for_the_line(self, inv: Inv, chain: Chain, line: str) -> None:
        """
        A shared option speaks for every stage, wherever on the line it stands.
        """
        assert 0 == inv(chain.all, *line.split())
        assert ["large"] * 3 == [vm for vm, _, _ in chain.settings]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (
                "first --vm=small third --vm=large",
                "conflicting flags: --vm=small and --vm=large",
            ),
            (
                "first --name=a second --name=b",
                "conflicting flags: --name=a and --name=b",
            ),
            ("third --spot --no-spot", "conflicting flags: --spot and --no-spot"),
            ("third --no-spot --spot", "conflicting flags: --no-spot and --spot"),
            (
                "first --spot third --no-spot",
                "conflicting flags: --spot and --no-spot",
            ),
            ("third --vm --dry", "--vm needs a value, got '--dry'"),
            ("third --vm=", "--vm needs a value, got ''"),
            ("third --provider -e", "--provider needs a value, got '-e'"),
        ],
    )
    def test_a_line_that_contradicts_itself_is_refused_before_anything_runs(
        self,
        inv: Inv,
        chain: Chain,
        capfd: pytest.CaptureFixture[str],
        line: str,
        message: str,
    ) -> None:
        """
        Conflicting flags, or a flag without a value, end the line with exit code 64.
        """
        assert 64 == inv(chain.all, *line.split())
        assert [] == chain.ran
        assert f"onebox: {message}\n" == capfd.readouterr().err

    @pytest.mark.parametrize("twice", ["--vm=large --vm=large", "--vm=a --vm=b"])
    def test_twice_at_one_stage(self, inv: Inv, chain: Chain, twice: str) -> None:
        """
        One option twice at one stage is refused by Invoke: nothing runs.
        """
        assert 1 == inv(chain.all, "third", *twice.split())
        assert [] == chain.ran

    def test_same_option_at_every_stage(self, inv: Inv, chain: Chain) -> None:
        """
        The same option at several stages is no contradiction.
        """
        line = "first --spot --vm=large second --vm=large --spot third"

        assert 0 == inv(chain.all, *line.split())
        assert [("large", "main", True)] * 3 == chain.settings

    def test_python_beats_the_line(self, inv: Inv, chain: Chain) -> None:
        """
        A keyword in Python beats the line, also when it says no; then the line holds.
        """

        @task
        def go(c: Context) -> None:
            chain.first(c, spot=False, vm="small")
            chain.first(c)

        assert 0 == inv([chain.third, go], "third", "--spot", "--vm=large", "go")
        assert ("small", "main", False) == chain.settings[3]
        assert 4 == len(chain.settings)

    def test_needs_take_the_callers(self, inv: Inv, chain: Chain) -> None:
        """
        What a stage needs is done for the box that the stage was asked for.
        """

        @task
        def go(c: Context) -> None:
            chain.third(c, name="second")

        assert 0 == inv([go], "go")
        assert ["second"] * 3 == [name for _, name, _ in chain.settings]

    def test_parameters_of_the_users_own(self, inv: Inv, chain: Chain) -> None:
        """
        A parameter that has a shared option's name is the user's, and only that.
        """
        given: list[Any] = []

        @stage(chain.first)
        def greet(
            c: Context, vm: str = "x", name: str = "bob", only: bool = False
        ) -> None:
            """Greet somebody."""
            given.extend((vm, name, only))

        assert 0 == inv([greet], "greet", "--name=eve", "--vm=bus", "--only")
        assert ["bus", "eve", True] == given
        # The stages it needs are for the usual box.
        assert ["first"] == chain.ran
        assert "main" == chain.settings[0][1]
        assert "bus" != chain.settings[0][0]


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
            NoCapacity("none to be had", next="inv run --vm=small"),
            BoxFailed("it did not come up"),
        ],
    )
    def test_exit_code_and_line(
        self,
        inv: Inv,
        chain: Chain,
        capfd: pytest.CaptureFixture[str],
        error: OneboxError,
    ) -> None:
        """
        An error of ours is one line on stderr and an exit code; the line ends.
        """

        @stage(chain.first)
        def fail(c: Context) -> None:
            raise error

        assert error.code == inv([fail, chain.third], "fail", "third")
        assert ["first"] == chain.ran
        out, err = capfd.readouterr()
        assert "" == out
        expected = [f"onebox: {error.message}"]
        expected += [f"  next: {error.next}"] if error.next else []
        assert expected == err.splitlines()

    def test_within_another(
        self, inv: Inv, chain: Chain, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """
        An error deep in other stages is told once.
        """

        @stage
        def fail(c: Context) -> None:
            raise BoxFailed("once")

        @stage(fail)
        def middle(c: Context) -> None:
            chain.ran.append("never")

        @stage
        def outer(c: Context) -> None:
            middle(c, name="other")

        assert 70 == inv([outer], "outer")
        assert [] == chain.ran
        assert ["onebox: once"] == capfd.readouterr().err.splitlines()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_signal(
        self, inv: Inv, chain: Chain, capfd: pytest.CaptureFixture[str], number: int
    ) -> None:
        """
        A signal ends the line with 128 + its number, and says what is left.
        """
        before = signal.getsignal(number)

        @stage
        def slow(c: Context) -> None:
            signal.raise_signal(number)

        assert 128 + number == inv([slow, chain.first], "slow", "first")
        assert [] == chain.ran
        assert "onebox: stopped; no box is left\n" == capfd.readouterr().err
        assert before == signal.getsignal(number)

    def test_the_users_own(self, inv: Inv, chain: Chain) -> None:
        """
        What a user's task raises reaches the user as it is.
        """

        @stage(chain.first)
        def fail(c: Context) -> None:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            inv([fail], "fail")

    def test_broken_configuration(
        self,
        inv: Inv,
        chain: Chain,
        project: Project,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """
        A mistake in onebox.toml is told before any stage runs.
        """
        project.write("onebox.toml", "[run]\ncomand = 'x'\n")

        assert 78 == inv(chain.all, "third")
        assert [] == chain.ran
        assert capfd.readouterr().err.startswith("onebox: onebox.toml:2: ")


class TestRemainder:
    WORDS = (
        "python",
        "-c",
        "print('a  b')",
        "",
        "it's",
        "$HOME",
        "*",
        "ü\n",
        "--",
        "-x",
    )

    def test_every_word(self, inv: Inv) -> None:
        """
        What stands behind `--` is taken word by word, as it was typed.
        """
        found: list[list[str]] = []

        @stage
        def look(c: Context) -> None:
            found.append(remainder_of(c))

        assert 0 == inv([look], "look", "--vm=large", "--", *self.WORDS)
        assert 0 == inv([look], "look")
        assert [list(self.WORDS), []] == found

    def test_line_from_python(
        self, inv: Inv, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """
        A line that did not come from the shell is split as a shell does, or refused.
        """
        found: list[list[str]] = []

        @task
        def look(c: Context) -> None:
            sys.argv = ["something", "else"]
            found.append(remainder_of(c))

        assert 0 == inv([look], "look", "--", "sh -c", "'echo  x'")
        assert [["sh", "-c", "echo  x"]] == found
        assert 64 == inv([look], "look", "--", "it's")
        assert "onebox: after --: No closing quotation\n" == capfd.readouterr().err


class TestTexts:
    @pytest.mark.parametrize("ours", OURS, ids=lambda ours: ours.name)
    def test_flags(self, ours: Stage) -> None:
        """
        No positional, no short flag, none that hides Invoke's, and each explained.
        """
        for argument in ours.get_arguments():
            (name,) = argument.names
            assert len(name) > 1
            assert not argument.positional
            assert argument.help
            assert re.fullmatch(r"[A-Z`].*[.]", argument.help), argument.help
            # `image --list` is a flag of the stage itself, on purpose.
            assert name not in CORE - {"list"}

    @pytest.mark.parametrize("ours", OURS, ids=lambda ours: ours.name)
    def test_first_line(self, ours: Stage) -> None:
        """
        What `--list` shows of a stage is a whole sentence of a line's length.
        """
        assert ours.__doc__
        (line, *_) = ours.__doc__.strip().splitlines()

        assert re.fullmatch(r"[A-Z].*[.]", line)
        assert len(line) <= 80

    @pytest.mark.parametrize("ours", OURS, ids=lambda ours: ours.name)
    def test_shared_flags(self, ours: Stage) -> None:
        """
        Every stage takes the line's options; one that needs others takes --only.
        """
        names = {name for argument in ours.get_arguments() for name in argument.names}

        assert {"vm", "provider", "name", "spot", "no-spot"} <= names
        assert bool(ours.needs) == ("only" in names)

    def test_two_lists(self, inv: Inv, capfd: pytest.CaptureFixture[str]) -> None:
        """
        `inv --list` is Invoke's, `inv image --list` is ours.
        """
        assert 0 == inv(OURS, "--list")
        theirs = capfd.readouterr().out
        assert 0 == inv(OURS, "image", "--list")
        ours = capfd.readouterr().out

        assert all(re.search(rf"^  {t.name}\b", theirs, re.MULTILINE) for t in OURS)
        assert "no images yet\n" == ours

    def test_help(self, inv: Inv, capfd: pytest.CaptureFixture[str]) -> None:
        """
        `inv --help run` shows its own flags and the line's.
        """
        assert 0 == inv(OURS, "--help", "run")
        shown = capfd.readouterr().out

        for text in ("--detach", "--keep", "--only", "--vm=STRING", "--no-spot"):
            assert f"\n  {text}" in shown

    def test_complete(self, inv: Inv, capfd: pytest.CaptureFixture[str]) -> None:
        """
        A shell's completion knows the tasks and their flags.
        """
        assert 0 == inv(OURS, "--complete", "--", "inv")
        assert {t.name for t in OURS} <= set(capfd.readouterr().out.split())
        assert 0 == inv(OURS, "--complete", "--", "inv run --")
        flags = set(capfd.readouterr().out.split())
        assert {"--vm", "--spot", "--no-spot", "--only", "--detach"} <= flags


class TestNames:
    def test_all(self) -> None:
        """
        `__all__` is sorted, and holds every stage and what a user needs beside them.
        """
        source = Path(inspect.getfile(onebox)).read_text()
        bound = {
            alias.asname or alias.name
            for node in ast.parse(source).body
            if isinstance(node, ast.ImportFrom)
            if str(node.module).startswith("onebox.")
            for alias in node.names
        }

        assert sorted(onebox.__all__) == onebox.__all__
        assert bound - {"ns"} == set(onebox.__all__)
        assert {t.name for t in OURS} == set(onebox.__all__) - {"OneboxError", "stage"}

    def test_star(self) -> None:
        """
        A star import brings the stages, and leaves the module's collection alone.
        """
        names: dict[str, Any] = {}
        exec("from onebox import *", names)

        assert "ns" not in names
        assert {t.name for t in OURS} == {
            name for name, value in names.items() if isinstance(value, Task)
        }


class TestWholeLine:
    """Lines with a box, for real."""

    def test_whole_pipeline(self, project: Project) -> None:
        """
        All six stages on one line are each done once, and leave the outputs only.
        """
        done = project.inv(
            *("image", "provision", "push", "run", "fetch", "teardown", "--vm=large")
        )

        assert (0, "working\n") == (done.code, done.out), done.err
        assert 1 == done.err.count("host key verified")
        assert 1 == done.err.count("image ")
        assert "run has fetched the outputs" in done.err
        assert "42\n" == project.read("results/answer.txt")
        assert [] == project.boxes()

    def test_users_task_fails_after_its_job(self, project: Project) -> None:
        """
        A chain ends its box also when the user's own code fails after the job.
        """
        project.write(
            "tasks.py",
            "from onebox import *\n"
            "@stage(push)\n"
            "def train(c):\n    run(c)\n    raise ValueError('mine')\n",
        )
        done = project.inv("train")

        assert 1 == done.code
        assert "ValueError: mine" in done.err
        assert "42\n" == project.read("results/answer.txt")
        assert [] == project.boxes()

    def test_chains_in_a_row(self, project: Project) -> None:
        """
        Two jobs of a plain task are two chains, also when the second names the box.
        """
        project.write(
            "tasks.py",
            "from onebox import *\nfrom invoke import task\n"
            "@task\ndef go(c):\n"
            "    run(c, command='echo a')\n"
            "    run(c, command='echo b')\n"
            "    run(c, command='echo c', name='main')\n",
        )
        done = project.inv("go")

        assert (0, "a\nb\nc\n") == (done.code, done.out), done.err
        # Each box is announced, with what it may cost.
        assert 3 == done.err.count("onebox  census/main")
        assert [] == project.boxes()

    def test_run_as_pre(self, project: Project) -> None:
        """
        `inv run report`, where report has run as its `pre`, is one job.
        """
        project.write(
            "tasks.py",
            "from onebox import *\nfrom invoke import task\n"
            "@task(pre=[run])\ndef report(c):\n    print('report')\n",
        )
        done = project.inv("run", "report")

        assert (0, "working\nreport\n") == (done.code, done.out), done.err
        assert [] == project.boxes()

    def test_state_of_a_newer_version(self, project: Project) -> None:
        """
        With a newer version's state what looks works, and what changes is refused.
        """
        assert 0 == project.inv("provision").code
        (path,) = project.home.glob("state/projects/*/main/state.json")
        path.write_text('{"format": 99}')
        assert "running" in project.inv("status").out
        for word in ("run", "teardown"):
            done = project.inv(word)
            assert 78 == done.code
            assert "newer onebox" in done.err
            assert "Traceback" not in done.err
        assert '{"format": 99}' == path.read_text()
        assert 1 == len(project.boxes())


@pytest.mark.parametrize("off", [{"PYTHONDONTWRITEBYTECODE": "1"}, {}])
def test_bytecode_is_written_unless_the_user_has_switched_it_off(
    project: Project, off: dict[str, str]
) -> None:
    """
    What a line imports of onebox is compiled once; the user's own word wins.
    """
    cache = project.home / "bytecode"
    cache.mkdir()
    done = project.inv("status", env={"PYTHONPYCACHEPREFIX": str(cache), **off})

    assert 0 == done.code, done.err
    ours = [path for path in cache.rglob("*.pyc") if "onebox" in path.parts]
    assert bool(ours) == (not off)
