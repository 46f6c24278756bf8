"""Hints name the command that reaches the box, and leave all other words alone."""

from __future__ import annotations

import pytest

from onebox.command_hints import OWN, Hints
from onebox.tasks import ns
from tests.conftest import JOB, Project

BOXED = {name: f"box.{name}" for name in OWN}
TASKS = (
    "import onebox\nfrom invoke import Collection, task\n"
    "@task\ndef train(c):\n    onebox.run(c, detach=True)\n"
    "ns = Collection(train, box=onebox.ns)\n"
)


class TestSpell:
    def test_every_task(self) -> None:
        """
        It knows all of our tasks, and no others.
        """
        assert set(OWN) == set(ns.tasks)

    @pytest.mark.parametrize(
        ("printed", "spelled"),
        [
            ("inv logs", "inv logs --name=b"),
            ("then: inv fetch teardown", "then: inv fetch teardown --name=b"),
            (
                "follow it: inv logs     stop it: inv cancel",
                "follow it: inv logs --name=b     stop it: inv cancel --name=b",
            ),
            (
                "inv fetch --rescue teardown, or inv teardown --discard-outputs",
                "inv fetch --rescue teardown --name=b, or "
                "inv teardown --discard-outputs --name=b",
            ),
            (
                "inv run -- python job.py, or inv init",
                "inv run --name=b -- python job.py, or inv init",
            ),
            ("inv logs follows it", "inv logs --name=b follows it"),
            ("(inv teardown before it: x)", "(inv teardown --name=b before it: x)"),
            ("`inv status`, `inv logs`", "`inv status --name=b`, `inv logs --name=b`"),
            ("inv fetch --into=DIR puts", "inv fetch --into=DIR --name=b puts"),
            ("inv teardown --name=a", "inv teardown --name=a"),
            ("inv sweep --yes, inv doctor", "inv sweep --yes, inv doctor"),
        ],
    )
    def test_name(self, printed: str, spelled: str) -> None:
        """
        The name stands at the end of each command that is about a box, once.
        """
        assert spelled == Hints(name="b").spell(printed)
        assert spelled == Hints(name="c").spell(spelled)

    def test_namespace(self) -> None:
        """
        Each task has its namespace, and each of them is put there once.
        """
        spelled = "inv box.fetch --rescue box.teardown --name=b, or inv box.sweep"
        hints = Hints(BOXED, "b")

        assert spelled == hints.spell("inv fetch --rescue teardown, or inv sweep")
        assert spelled == hints.spell(spelled)

    @pytest.mark.parametrize(
        "printed",
        [
            'busy: pid 7 "inv run" since 12:00:01',
            "inv training, inv my.run, inv run-all, inv run.py",
            "results/inv run, my-inv run",
            "invoke run, run, push",
            "3 files: inv, run",
        ],
    )
    def test_others_words(self, printed: str) -> None:
        """
        What is quoted, a file or somebody's own task stays as it is.
        """
        assert printed == Hints(BOXED, "b").spell(printed)

    def test_plain(self) -> None:
        """
        The usual box under the usual names needs nothing more.
        """
        assert "inv fetch teardown" == Hints().spell("inv fetch teardown")


class TestLine:
    def test_other_box(self, project: Project) -> None:
        """
        What a line about another box says to type is about that box, and works.
        """
        begun = project.inv("run", "--name=b", "--detach")

        assert "follow it: inv logs --name=b     stop it: inv cancel --name=b" in (
            begun.err
        )
        assert "inv fetch teardown --name=b" in begun.err
        assert "working\n" == project.inv("logs", "--name=b").out
        again = project.inv("teardown", "--name=b")
        assert "next: inv fetch teardown --name=b, or inv teardown " in again.err
        everything = project.inv("teardown", "--all")
        assert 73 == everything.code
        assert "next: inv fetch teardown --name=b, or inv teardown " in everything.err

    def test_said_in_the_file(self, project: Project) -> None:
        """
        A name that onebox.toml gives needs not be typed.
        """
        project.write("onebox.toml", 'name = "b"\n[run]\ncommand = "sh job.sh"\n')

        assert "follow it: inv logs   " in project.inv("run", "--detach").err
        other = project.inv("logs", "--name=main")
        assert "next: inv provision --name=main, or" in other.err

    @pytest.mark.parametrize("line", ["box.run --detach", "train"])
    def test_namespaced(self, project: Project, line: str) -> None:
        """
        Under a namespace the hints have it, also what a user's own task says.
        """
        project.write("tasks.py", TASKS)
        project.write("job.sh", JOB + "exit 3\n")
        begun = project.inv(*line.split())

        assert 0 == begun.code, begun.err
        assert "follow it: inv box.logs     stop it: inv box.cancel" in begun.err
        assert "inv box.fetch box.teardown" in begun.err
        assert "inv box.fetch box.teardown" in project.inv("box.logs").err

    def test_namespaced_mistake(self, project: Project) -> None:
        """
        So has what is said before there is any session.
        """
        project.write("tasks.py", TASKS)
        project.write("onebox.toml", "")
        done = project.inv("box.run")

        assert "next: inv box.run -- python job.py, or inv box.init" in done.err
