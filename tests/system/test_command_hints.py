"""Hints name the command that reaches the box, and change no other words."""

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


class TestNamesInHints:
    def test_hints_know_exactly_the_tasks(self) -> None:
        """All tasks of onebox, and no others, are recognized."""
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
            ("inv cleanup --yes, inv doctor", "inv cleanup --yes, inv doctor"),
        ],
    )
    def test_name_is_added_once_to_each_command_about_a_box(
        self, printed: str, spelled: str
    ) -> None:
        """It is at the end of the command."""
        assert spelled == Hints(name="b").spell(printed)
        assert spelled == Hints(name="c").spell(spelled)

    def test_namespace_is_added_once_to_each_task(self) -> None:
        """Each task gets the namespace."""
        spelled = "inv box.fetch --rescue box.teardown --name=b, or inv box.cleanup"
        hints = Hints(BOXED, "b")

        assert spelled == hints.spell("inv fetch --rescue teardown, or inv cleanup")
        assert spelled == hints.spell(spelled)

    @pytest.mark.parametrize(
        "printed",
        [
            'main is busy: "inv run" since 12:00:01 (pid 7)',
            "inv training, inv my.run, inv run-all, inv run.py",
            "results/inv run, my-inv run",
            "invoke run, run, push",
            "3 files: inv, run",
        ],
    )
    def test_other_words_are_not_changed(self, printed: str) -> None:
        """Quoted words, files and other tasks stay unchanged."""
        assert printed == Hints(BOXED, "b").spell(printed)

    def test_default_name_without_a_namespace_adds_nothing(self) -> None:
        """The default box needs no name."""
        assert "inv fetch teardown" == Hints().spell("inv fetch teardown")


class TestHintsOfALine:
    def test_hint_of_a_line_about_another_box_works(self, project: Project) -> None:
        """The printed command has the name of that box."""
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

    def test_name_of_the_file_is_not_added(self, project: Project) -> None:
        """A name in onebox.toml need not be typed."""
        project.write("onebox.toml", 'name = "b"\n[run]\ncommand = "sh job.sh"\n')

        assert "follow it: inv logs   " in project.inv("run", "--detach").err
        other = project.inv("logs", "--name=main")
        assert "inv run --name=main starts a job" in other.err

    @pytest.mark.parametrize("line", ["box.run --detach", "train"])
    def test_hints_of_a_namespace_have_it(self, project: Project, line: str) -> None:
        """Hints of a user's own task have the namespace, too."""
        project.write("tasks.py", TASKS)
        project.write("job.sh", JOB + "exit 3\n")
        begun = project.inv(*line.split())

        assert 0 == begun.code, begun.err
        assert "follow it: inv box.logs     stop it: inv box.cancel" in begun.err
        assert "inv box.fetch box.teardown" in begun.err
        assert "inv box.fetch box.teardown" in project.inv("box.logs").err

    def test_hint_of_a_mistake_in_the_file_has_the_namespace(
        self, project: Project
    ) -> None:
        """The namespace is known before the settings are loaded."""
        project.write("tasks.py", TASKS)
        project.write("onebox.toml", "")
        done = project.inv("box.run")

        assert "in onebox.toml, or inv box.run -- python job.py" in done.err
