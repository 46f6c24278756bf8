"""Names, help texts and flags of the tasks."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from invoke.program import Program
from invoke.tasks import Task

import onebox
from onebox.plugin import Stage
from tests.system.plugin_lines import OURS, Inv

# Invoke's own flags: one of ours of the same name would hide it.
CORE = {
    name.lstrip("-")
    for argument in (*Program().core_args(), *Program().task_args())
    for name in argument.names
}


class TestTexts:
    @pytest.mark.parametrize("ours", OURS, ids=lambda ours: ours.name)
    def test_flags_have_help_and_hide_none_of_invokes(self, ours: Stage) -> None:
        """No parameter is positional, and no flag is short."""
        for argument in ours.get_arguments():
            (name,) = argument.names
            assert len(name) > 1
            assert not argument.positional
            assert argument.help
            assert re.fullmatch(r"[A-Z`].*[.]", argument.help), argument.help
            # `image --list` is a flag of the stage itself, on purpose.
            assert name not in CORE - {"list"}

    @pytest.mark.parametrize("ours", OURS, ids=lambda ours: ours.name)
    def test_first_docstring_line_of_a_stage_fits_the_list(self, ours: Stage) -> None:
        """It is a whole sentence."""
        assert ours.__doc__
        (line, *_) = ours.__doc__.strip().splitlines()

        assert re.fullmatch(r"[A-Z].*[.]", line)
        assert len(line) <= 80

    @pytest.mark.parametrize("ours", OURS, ids=lambda ours: ours.name)
    def test_every_stage_has_the_shared_flags(self, ours: Stage) -> None:
        """A stage with needs also has --only."""
        names = {name for argument in ours.get_arguments() for name in argument.names}

        assert {"vm", "provider", "name", "spot", "no-spot"} <= names
        assert bool(ours.needs) == ("only" in names)

    def test_list_before_a_task_is_invokes_and_after_it_is_ours(
        self, inv: Inv, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """`inv --list` lists tasks, and `inv image --list` lists images."""
        assert 0 == inv(OURS, "--list")
        theirs = capfd.readouterr().out
        assert 0 == inv(OURS, "image", "--list")
        ours = capfd.readouterr().out

        assert all(re.search(rf"^  {t.name}\b", theirs, re.MULTILINE) for t in OURS)
        assert "no images yet\n" == ours

    def test_help_of_a_stage_shows_its_own_and_the_shared_flags(
        self, inv: Inv, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """`inv --help run` shows both."""
        assert 0 == inv(OURS, "--help", "run")
        shown = capfd.readouterr().out

        for text in ("--detach", "--keep", "--only", "--vm=STRING", "--no-spot"):
            assert f"\n  {text}" in shown

    def test_shell_completion_knows_tasks_and_flags(
        self, inv: Inv, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """`inv --complete` prints them."""
        assert 0 == inv(OURS, "--complete", "--", "inv")
        assert {t.name for t in OURS} <= set(capfd.readouterr().out.split())
        assert 0 == inv(OURS, "--complete", "--", "inv run --")
        flags = set(capfd.readouterr().out.split())
        assert {"--vm", "--spot", "--no-spot", "--only", "--detach"} <= flags


class TestNames:
    def test_all_is_sorted_and_has_every_stage(self) -> None:
        """`__all__` also has what a user needs beside the stages."""
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
        # `exec` is also a function of Python, so it is imported as `exec_`.
        names = {t.body.__name__ for t in OURS}
        assert names == set(onebox.__all__) - {"OneboxError", "collection", "stage"}

    def test_star_import_brings_the_stages(self) -> None:
        """The collection of the importing module is not replaced."""
        names: dict[str, Any] = {}
        exec("from onebox import *", names)

        assert "ns" not in names
        assert {t.body.__name__ for t in OURS} == {
            name for name, value in names.items() if isinstance(value, Task)
        }
