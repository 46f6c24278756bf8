"""Who stays and who goes: the rules of a command line, each case of them."""

from __future__ import annotations

from itertools import product

import pytest

from onebox.invocation import Invocation

FLAGS = (False, True)


def begun(
    *stages: str, keep: bool = False, only: bool = False, **more: bool
) -> Invocation:
    """Return the line `inv <stages> [--keep] [--only]`, flags on the last stage."""
    line = Invocation("inv", stages, **more)
    for stage in stages:
        last = stage == stages[-1]
        line.begin(stage, only=only and last, keep=keep and last, own_command=False)
        with line.as_need():
            for need in ("image", "provision", "push"):
                line.begin(need, only=False, keep=False, own_command=False)
    return line


class TestOwesTeardown:
    @pytest.mark.parametrize(
        ("provision", "run", "teardown", "keep", "only", "made", "earlier"),
        list(product(FLAGS, repeat=7)),
    )
    def test_every_case(
        self,
        provision: bool,
        run: bool,
        teardown: bool,
        keep: bool,
        only: bool,
        made: bool,
        earlier: bool,
    ) -> None:
        """
        A chain ends the box it made for itself; one asked for, or kept, stays.
        """
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
                own_command=False,
            )

        if not run or only or keep:
            wanted = False
        elif teardown:
            wanted = True
        else:
            wanted = not provision and (made or earlier)
        assert wanted == line.owes_teardown(earlier)

    def test_the_rules_in_words(self) -> None:
        """
        `inv run` leaves nothing; `provision`, `--keep` and `--only` leave the box.
        """
        assert begun("run", created_box=True).owes_teardown(False)
        assert begun("push", "run", created_box=True).owes_teardown(False)
        assert not begun("provision", "run", created_box=True).owes_teardown(False)
        assert not begun("run", created_box=True, keep=True).owes_teardown(False)
        assert not begun("run", created_box=True, only=True).owes_teardown(False)
        assert not begun("push", created_box=True).owes_teardown(False)

    def test_box_of_another_line(self) -> None:
        """
        A box that was there is not the chain's, unless it is a killed chain's.
        """
        assert not begun("run").owes_teardown(False)
        assert begun("run").owes_teardown(True)

    def test_asked_for_all_the_same(self) -> None:
        """
        `inv provision run teardown` is what it says.
        """
        assert begun("provision", "run", created_box=True).keep is False
        line = begun("provision", "run", "teardown", created_box=True)
        assert line.owes_teardown(False)

    def test_job_of_a_users_stage(self) -> None:
        """
        What a user's own stage does after its job does not excuse the chain.
        """
        line = Invocation("inv train", created_box=True)
        line.begin("", only=False, keep=False, own_command=False)
        line.begin("run", only=False, keep=False, own_command=True)
        line.begin("fetch", only=True, keep=False, own_command=False)

        assert line.owes_teardown(False)

    def test_provisioned_in_python(self) -> None:
        """
        A user's stage that calls `provision(c)` itself has asked for the box.
        """
        line = Invocation("inv train", created_box=True)
        line.begin("", only=False, keep=False, own_command=False)
        line.begin("provision", only=False, keep=False, own_command=False)
        line.begin("run", only=False, keep=False, own_command=True)

        assert not line.owes_teardown(False)


class TestMakesForItself:
    @pytest.mark.parametrize(
        ("keep", "wanted", "named"), list(product(FLAGS, repeat=3))
    )
    def test_every_case(self, keep: bool, wanted: bool, named: bool) -> None:
        """
        A box is the chain's own unless the user has said otherwise, in any way.
        """
        line = Invocation(
            "inv", ("provision",) * named, keep=keep, box_requested=wanted
        )

        assert (not (keep or wanted or named)) == line.creates_temporary_box

    def test_named_later(self) -> None:
        """
        `inv push provision` has asked for the box before `provision` begins.
        """
        line = Invocation("inv push provision", ("push", "provision"))
        line.begin("push", only=False, keep=False, own_command=False)

        assert not line.creates_temporary_box


class TestBegin:
    def test_needs_ask_for_nothing(self) -> None:
        """
        A stage that another one needs is not the user's wish.
        """
        line = begun("run")

        assert (False, True) == (line.box_requested, line.job_requested)
        assert line.creates_temporary_box

    def test_needs_leave_only_alone(self) -> None:
        """
        `--only` speaks of the stage it was said of, not of what comes after it.
        """
        line = begun("push", only=True)
        assert line.only
        line.begin("run", only=False, keep=False, own_command=False)
        assert not line.only

    def test_keep_holds_for_the_line(self) -> None:
        """
        `--keep`, once said, holds to the line's end.
        """
        line = begun("run", keep=True)
        line.begin("fetch", only=False, keep=False, own_command=False)

        assert line.keep

    def test_need_that_fails(self) -> None:
        """
        What comes after a need that failed is the user's wish again.
        """
        line = Invocation("inv")
        with pytest.raises(KeyError), line.as_need():
            raise KeyError
        line.begin("provision", only=False, keep=False, own_command=False)

        assert line.box_requested

    def test_own_command(self) -> None:
        """
        Whether a command came with the line is known to the stage under way.
        """
        line = Invocation("inv run -- x")
        line.begin("run", only=False, keep=False, own_command=True)
        assert line.own_command
        line.begin("run", only=False, keep=False, own_command=False)
        assert not line.own_command
