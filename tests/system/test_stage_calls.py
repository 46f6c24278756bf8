"""Each stage runs once for a line, with the flags of the whole line."""

from __future__ import annotations

import signal
import sys
from typing import Any

import pytest
from invoke.context import Context
from invoke.tasks import task

from onebox.errors import BoxFailed, NoCapacity, OneboxError
from onebox.parser import remainder_of
from onebox.plugin import stage
from tests.conftest import Project
from tests.system.plugin_lines import Chain, Inv

ALL = ["first", "second1", "third"]


@pytest.mark.fast
class TestEachStageRunsOnce:
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
    def test_each_stage_runs_once_after_what_it_needs(
        self, inv: Inv, chain: Chain, line: str
    ) -> None:
        """All needed stages run, in order."""
        assert 0 == inv(chain.all, *line.split())
        assert ALL == chain.ran

    @pytest.mark.parametrize(
        "line", ["after", "second after", "third --vm=large after"]
    )
    def test_pre_of_a_plain_task_is_the_same_stage(
        self, inv: Inv, chain: Chain, line: str
    ) -> None:
        """A stage that is also some task's `pre` runs once."""

        @task(pre=[chain.third])
        def after(c: Context) -> None:
            chain.ran.append("after")

        assert 0 == inv([*chain.all, after], *line.split())
        assert [*ALL, "after"] == chain.ran

    def test_stage_runs_again_with_other_arguments(
        self, inv: Inv, chain: Chain
    ) -> None:
        """Other arguments make another call."""

        @task
        def go(c: Context) -> None:
            chain.third(c)
            chain.second(c, often=2)
            chain.second(c, 2)
            chain.second(c, often=1)

        assert 0 == inv([go], "go")
        assert [*ALL, "second2"] == chain.ran

    def test_stages_run_again_for_another_box(self, inv: Inv, chain: Chain) -> None:
        """Other shared flags make another chain."""

        @task
        def go(c: Context) -> None:
            for name in ("a", "b", "a"):
                chain.second(c, name=name)

        assert 0 == inv([go], "go")
        assert ["first", "second1"] * 2 == chain.ran
        assert ["a", "a", "b", "b"] == [name for _, name, _ in chain.settings]

    def test_second_call_of_a_stage_returns_the_first_result(
        self, inv: Inv, chain: Chain
    ) -> None:
        """The stage does not run twice."""
        results: list[Any] = []

        @stage(chain.second)
        def go(c: Context) -> None:
            results.extend((chain.second(c), chain.first(c)))

        assert 0 == inv([go], "go")
        assert ["result of second1", "result of first"] == results
        assert ["first", "second1"] == chain.ran

    def test_failed_stage_runs_again_when_it_is_called_again(
        self, inv: Inv, chain: Chain
    ) -> None:
        """A failure is not cached."""
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

    def test_second_line_in_one_process_starts_without_results(
        self, inv: Inv, chain: Chain
    ) -> None:
        """Each line has its own results."""
        assert 0 == inv(chain.all, "third", "--vm=large")
        assert 0 == inv(chain.all, "third")
        assert ALL * 2 == chain.ran
        assert ["large"] * 3 == [vm for vm, _, _ in chain.settings[:3]]
        assert "large" not in [vm for vm, _, _ in chain.settings[3:]]

    def test_line_without_a_stage_starts_without_results(
        self, inv: Inv, chain: Chain
    ) -> None:
        """A stage called from Python runs again."""

        @task
        def go(c: Context) -> None:
            chain.first(c)

        assert 0 == inv(chain.all, "first", "--vm=large", "--name=other")
        assert 64 == inv(chain.all, "first", "--vm=large", "third", "--vm=small")
        assert 0 == inv([go], "go")
        assert ["other", "main"] == [name for _, name, _ in chain.settings]
        assert "large" != chain.settings[1][0]

    def test_stage_can_be_called_without_a_command_line(
        self, inv: Inv, chain: Chain
    ) -> None:
        """Python code can call a stage directly."""
        inv([], "--version")

        assert "result of third" == chain.third(Context())
        assert ALL == chain.ran


@pytest.mark.fast
class TestOnlyFlag:
    def test_only_runs_the_stage_without_its_needs(
        self, inv: Inv, chain: Chain
    ) -> None:
        """`--only` skips the needed stages."""
        assert 0 == inv(chain.all, "third", "--only")
        assert ["third"] == chain.ran

    def test_only_holds_for_its_stage(self, inv: Inv, chain: Chain) -> None:
        """Other stages on the line run with their needs."""
        assert 0 == inv(chain.all, "second", "--only", "third")
        # What was done alone does not count as done on top of what it needs.
        assert ["second1", "first", "second1", "third"] == chain.ran


@pytest.mark.fast
class TestSharedFlags:
    @pytest.mark.parametrize(
        "line", ["third --vm=large", "first --vm=large third", "first third --vm=large"]
    )
    def test_shared_flag_holds_for_every_stage_of_the_line(
        self, inv: Inv, chain: Chain, line: str
    ) -> None:
        """Its position on the line does not matter."""
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
            ("third --vm --dry", "--vm needs a value, for example --vm=large"),
            ("third --vm=", "--vm needs a value, for example --vm=large"),
            (
                "third --provider -e",
                "--provider needs a value, for example --provider=aws",
            ),
        ],
    )
    def test_contradicting_flags_are_refused_before_anything_runs(
        self,
        inv: Inv,
        chain: Chain,
        capfd: pytest.CaptureFixture[str],
        line: str,
        message: str,
    ) -> None:
        """
        Conflicting flags, or a flag without a value, end the line with exit
        code 64.
        """
        assert 64 == inv(chain.all, *line.split())
        assert [] == chain.ran
        assert f"onebox[64]: {message}\n" == capfd.readouterr().err

    @pytest.mark.parametrize("twice", ["--vm=large --vm=large", "--vm=a --vm=b"])
    def test_flag_given_twice_at_one_stage_is_refused(
        self, inv: Inv, chain: Chain, twice: str
    ) -> None:
        """Nothing runs."""
        assert 64 == inv(chain.all, "third", *twice.split())
        assert [] == chain.ran

    def test_same_flag_at_every_stage_is_no_contradiction(
        self, inv: Inv, chain: Chain
    ) -> None:
        """One flag with one value may be at several stages."""
        line = "first --spot --vm=large second --vm=large --spot third"

        assert 0 == inv(chain.all, *line.split())
        assert [("large", "main", True)] * 3 == chain.settings

    def test_keyword_in_python_precedes_the_flag_of_the_line(
        self, inv: Inv, chain: Chain
    ) -> None:
        """
        A keyword precedes the flag even if it is False; afterwards the flag
        holds again.
        """

        @task
        def go(c: Context) -> None:
            chain.first(c, spot=False, vm="small")
            chain.first(c)

        assert 0 == inv([chain.third, go], "third", "--spot", "--vm=large", "go")
        assert ("small", "main", False) == chain.settings[3]
        assert 4 == len(chain.settings)

    def test_needed_stages_get_the_flags_of_their_caller(
        self, inv: Inv, chain: Chain
    ) -> None:
        """They run for the same box."""

        @task
        def go(c: Context) -> None:
            chain.third(c, name="second")

        assert 0 == inv([go], "go")
        assert ["second"] * 3 == [name for _, name, _ in chain.settings]

    def test_users_parameter_with_the_name_of_a_flag_is_not_shared(
        self, inv: Inv, chain: Chain
    ) -> None:
        """It is passed to the user's stage only."""
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


@pytest.mark.fast
class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
            NoCapacity("none to be had", next="inv run --vm=small"),
            BoxFailed("it did not come up"),
        ],
    )
    def test_error_is_one_line_and_an_exit_code(
        self,
        inv: Inv,
        chain: Chain,
        capfd: pytest.CaptureFixture[str],
        error: OneboxError,
    ) -> None:
        """An OneboxError is printed on stderr, and the line ends."""

        @stage(chain.first)
        def fail(c: Context) -> None:
            raise error

        assert error.code == inv([fail, chain.third], "fail", "third")
        assert ["first"] == chain.ran
        out, err = capfd.readouterr()
        assert "" == out
        expected = [f"onebox[{error.code}]: {error.message}"]
        expected += [f"  next: {error.next}"] if error.next else []
        assert expected == err.splitlines()

    def test_error_in_a_needed_stage_is_printed_once(
        self, inv: Inv, chain: Chain, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The stages that need it do not print it again."""

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
        assert ["onebox[70]: once"] == capfd.readouterr().err.splitlines()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_signal_ends_the_line_with_128_and_its_number(
        self, inv: Inv, chain: Chain, capfd: pytest.CaptureFixture[str], number: int
    ) -> None:
        """The message says which box is left."""
        before = signal.getsignal(number)

        @stage
        def slow(c: Context) -> None:
            signal.raise_signal(number)

        assert 128 + number == inv([slow, chain.first], "slow", "first")
        assert [] == chain.ran
        assert "onebox: stopped; no box is left\n" == capfd.readouterr().err
        assert before == signal.getsignal(number)

    def test_exception_of_a_users_task_is_not_changed(
        self, inv: Inv, chain: Chain
    ) -> None:
        """It is raised as it is."""

        @stage(chain.first)
        def fail(c: Context) -> None:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            inv([fail], "fail")

    def test_mistake_in_onebox_toml_is_reported_before_a_stage_runs(
        self,
        inv: Inv,
        chain: Chain,
        project: Project,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """The error is one line."""
        project.write("onebox.toml", "[run]\ncomand = 'x'\n")

        assert 78 == inv(chain.all, "third")
        assert [] == chain.ran
        assert capfd.readouterr().err.startswith("onebox[78]: onebox.toml:2: ")


@pytest.mark.fast
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

    def test_words_behind_two_dashes_are_passed_unchanged(self, inv: Inv) -> None:
        """No word is split or joined."""
        found: list[list[str]] = []

        @stage
        def look(c: Context) -> None:
            found.append(remainder_of(c))

        assert 0 == inv([look], "look", "--vm=large", "--", *self.WORDS)
        assert 0 == inv([look], "look")
        assert [list(self.WORDS), []] == found

    def test_remainder_from_python_is_split_as_by_a_shell(
        self, inv: Inv, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """An unclosed quote is refused."""
        found: list[list[str]] = []

        @task
        def look(c: Context) -> None:
            sys.argv = ["something", "else"]
            found.append(remainder_of(c))

        assert 0 == inv([look], "look", "--", "sh -c", "'echo  x'")
        assert [["sh", "-c", "echo  x"]] == found
        assert 64 == inv([look], "look", "--", "it's")
        assert "onebox[64]: after --: No closing quotation\n" == capfd.readouterr().err


@pytest.mark.parametrize("off", [{"PYTHONDONTWRITEBYTECODE": "1"}, {}])
def test_bytecode_is_written_unless_the_user_disables_it(
    project: Project, off: dict[str, str]
) -> None:
    """Modules of onebox are compiled once."""
    cache = project.home / "bytecode"
    cache.mkdir()
    done = project.inv("status", env={"PYTHONPYCACHEPREFIX": str(cache), **off})

    assert 0 == done.code, done.err
    ours = [path for path in cache.rglob("*.pyc") if "onebox" in path.parts]
    assert bool(ours) == (not off)
