"""The rules of a command line about which box stays and which is deleted."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from onebox.invocation import Invocation

FLAGS = (False, True)


def make_line(
    *stages: str, keep: bool = False, only: bool = False, **more: Any
) -> Invocation:
    """
    Return the line `inv <stages> [--keep] [--only]`, with the flags at the last
    stage.
    """
    line = Invocation("inv", stages, **more)
    for stage in stages:
        last = stage == stages[-1]
        line.begin(stage, only=only and last, keep=keep and last, own_command="")
        with line.as_need():
            for need in ("image", "provision", "push"):
                line.begin(need, only=False, keep=False, own_command="")
    return line


class TestTeardownAtTheEnd:
    @pytest.mark.parametrize(
        ("provision", "run", "teardown", "keep", "only", "made", "earlier"),
        list(product(FLAGS, repeat=7)),
    )
    def test_chain_deletes_the_box_that_it_created_for_itself(
        self,
        provision: bool,
        run: bool,
        teardown: bool,
        keep: bool,
        only: bool,
        made: bool,
        earlier: bool,
    ) -> None:
        """A box that was requested or kept stays."""
        names = [
            *(["provision"] if provision else []),
            *(["run"] if run else []),
        ]
        line = Invocation(
            "inv", tuple(names + ["teardown"] * teardown), created_box=made
        )
        for stage in names:
            line.begin(
                stage,
                only=only and stage == "run",
                keep=keep and stage == "run",
                own_command="",
            )

        if not run or only or keep:
            expected = False
        elif teardown:
            expected = True
        else:
            expected = not provision and (made or earlier)
        assert expected == line.owes_teardown(earlier)

    def test_run_leaves_no_box_but_provision_keep_and_only_do(self) -> None:
        """These are the rules of the README."""
        assert make_line("run", created_box=True).owes_teardown(False)
        assert make_line("push", "run", created_box=True).owes_teardown(False)
        assert not make_line("provision", "run", created_box=True).owes_teardown(False)
        assert not make_line("run", created_box=True, keep=True).owes_teardown(False)
        assert not make_line("run", created_box=True, only=True).owes_teardown(False)
        assert not make_line("push", created_box=True).owes_teardown(False)

    def test_chain_keeps_a_box_that_existed_before(self) -> None:
        """The box of a killed chain is deleted."""
        assert not make_line("run").owes_teardown(False)
        assert make_line("run").owes_teardown(True)

    def test_provision_run_teardown_deletes_the_box(self) -> None:
        """A line that ends with teardown deletes the box although it provisions it."""
        assert make_line("provision", "run", created_box=True).keep is False
        line = make_line("provision", "run", "teardown", created_box=True)
        assert line.owes_teardown(False)

    def test_users_stage_after_its_job_does_not_keep_the_box(self) -> None:
        """The chain still deletes its box."""
        line = Invocation("inv train", created_box=True)
        line.begin("", only=False, keep=False, own_command="")
        line.begin("run", only=False, keep=False, own_command="sh")
        line.begin("fetch", only=True, keep=False, own_command="")

        assert line.owes_teardown(False)

    def test_provision_called_in_python_requests_the_box(self) -> None:
        """The box of a stage that calls `provision(c)` stays."""
        line = Invocation("inv train", created_box=True)
        line.begin("", only=False, keep=False, own_command="")
        line.begin("provision", only=False, keep=False, own_command="")
        line.begin("run", only=False, keep=False, own_command="sh")

        assert not line.owes_teardown(False)


class TestTemporaryBoxes:
    @pytest.mark.parametrize(
        ("keep", "expected", "named"), list(product(FLAGS, repeat=3))
    )
    def test_box_is_temporary_unless_the_user_requests_it(
        self, keep: bool, expected: bool, named: bool
    ) -> None:
        """Every way to request a box counts."""
        line = Invocation(
            "inv", ("provision",) * named, keep=keep, box_requested=expected
        )

        assert (not (keep or expected or named)) == line.creates_temporary_box

    def test_provision_later_on_the_line_requests_the_box(self) -> None:
        """`inv push provision` requests the box before `provision` begins."""
        line = Invocation("inv push provision", ("push", "provision"))
        line.begin("push", only=False, keep=False, own_command="")

        assert not line.creates_temporary_box


class TestStageRequests:
    def test_needed_stage_is_no_request_of_the_user(self) -> None:
        """
        A stage that another one needs does not count as a request; stages on
        the line do.
        """
        line = make_line("run")

        assert (False, True) == (line.box_requested, line.job_requested)
        assert line.creates_temporary_box

    def test_only_holds_for_its_stage(self) -> None:
        """`--only` does not hold for later stages."""
        line = make_line("push", only=True)
        assert line.only
        line.begin("run", only=False, keep=False, own_command="")
        assert not line.only

    def test_keep_holds_to_the_end_of_the_line(self) -> None:
        """`--keep` of one stage holds for the whole line."""
        line = make_line("run", keep=True)
        line.begin("fetch", only=False, keep=False, own_command="")

        assert line.keep

    def test_stage_after_a_failed_need_is_a_request_again(self) -> None:
        """A failed need does not change the following stages."""
        line = Invocation("inv")
        with pytest.raises(KeyError), line.as_need():
            raise KeyError
        line.begin("provision", only=False, keep=False, own_command="")

        assert line.box_requested

    def test_running_stage_knows_whether_a_command_was_given(self) -> None:
        """The command came with the line, or not."""
        line = Invocation("inv run -- x")
        line.begin("run", only=False, keep=False, own_command="sh")
        assert line.own_command
        line.begin("run", only=False, keep=False, own_command="")
        assert not line.own_command
