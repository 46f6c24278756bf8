"""The cost of a box is shown before its creation, and again if it changes."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest

from onebox.boxes import offers, price_cache
from onebox.context import BoxContext
from onebox.errors import NoCapacity, OneboxError, QuotaExceeded, Unsuitable, UsageError
from onebox.providers.costs import ADDRESS, Cost, disk
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from onebox.providers.values import Box, Offer, Request, Requirements
from onebox.stages import provision, run, teardown
from onebox.store.paths import local_root, state_dir
from tests.conftest import Project
from tests.inprocess import type_line

EXTRAS = (disk(100, 0.01), Cost(ADDRESS, 0.005))
LINK = "ask for more at https://quota.example"


def make_offer(
    type_: str, price: float | None, place: str = "r1-a", **more: object
) -> Offer:
    """Return an offer; its disk and address are billed too."""
    one = Offer("small", type_, 4, 16 << 30, price, price, place=place, extras=EXTRAS)
    return replace(one, **more)  # type: ignore[arg-type] # the test's own keywords


class Market(Local):
    """A cloud with several offers, some of them refused; its boxes are local."""

    def __init__(self, root: Path, *found: Offer) -> None:
        super().__init__(LocalSettings(), root)
        self.found = list(found)
        self.refusals: dict[str, OneboxError] = {}
        self.asked: list[str] = []

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """Return the offers."""
        return self.found

    def egress_rate(self, place: str) -> float | None:
        """Return a price for outputs."""
        return 0.09

    def also_refused(self, offer: Offer, limit: str, other: Offer) -> bool:
        """Apply a limit to its whole region."""
        return offer.place[:2] == other.place[:2]

    def create(self, request: Request) -> Box:
        """Create the box, unless its type or its place is refused."""
        one = request.offer
        self.asked.append(f"{one.type} {one.place}")
        for name in (one.type, one.place):
            if name in self.refusals:
                raise self.refusals[name]
        return super().create(request)


@dataclass
class Line:
    """Command lines of one project on a market, in this process."""

    project: Project
    cloud: Market

    def type(self, *stages: ModuleType) -> BoxContext:
        """Run these stages, as `inv` would."""
        return type_line(self.project, self.cloud, *stages)

    def limit(self, text: str) -> None:
        """Set [limits]."""
        toml = self.project.read("onebox.toml")
        self.project.write("onebox.toml", f"{toml}\n[limits]\nmax_hours = 8\n{text}\n")


class Terminal:
    """A terminal that the line under test reads from and prints to."""

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, text: str) -> None:
        """Type a line before it is requested."""
        os.write(self._master, f"{text}\n".encode())

    def shown(self) -> str:
        """Return all output on one line, because the terminal wraps it."""
        os.close(self.slave)
        self._reader.join(60)
        return " ".join(self._shown.decode(errors="replace").split())

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Make it the input and output of this process for the block."""
        before = sys.stdin, sys.stdout, sys.stderr
        with (
            open(self.slave, closefd=False) as source,
            open(self.slave, "w", closefd=False, buffering=1) as sink,
        ):
            sys.stdin, sys.stdout, sys.stderr = source, sink, sink
            try:
                yield
            finally:
                sys.stdin, sys.stdout, sys.stderr = before

    def _read(self) -> None:
        # On Linux a terminal without any process returns an error.
        with suppress(OSError):
            while data := os.read(self._master, 4096):
                self._shown += data


@pytest.fixture
def line(project: Project) -> Line:
    """A project on a market with two types in two zones."""
    cloud = Market(
        local_root(project.environ),
        make_offer("m6a.xlarge", 0.19),
        make_offer("m6a.xlarge", 0.19, "r1-b"),
        make_offer("m7i.xlarge", 0.25),
    )
    made = Line(project, cloud)
    made.limit("")
    return made


class TestCeiling:
    def test_the_ceiling_names_machine_disk_address_and_the_rate_of_outputs(
        self, line: Line, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """
        Every part that is billed until the deadline is in the sum, with its
        label.
        """
        line.type(provision)
        printed = capsys.readouterr().err
        assert "at most $1.64" in printed
        assert "machine $1.52, 100 GB disk $0.08, public IPv4 $0.04" in printed
        assert "outputs $0.09 a GB at most" in printed
        assert "off, its disk $0.01/h until inv teardown" in printed

    def test_the_ceiling_names_the_dearest_type_that_may_come_instead(
        self, line: Line, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The announced maximum holds for every offer that may be chosen."""
        line.type(provision)
        printed = capsys.readouterr().err
        assert "at most $1.64, or $2.12 if only a dearer type is available:" in printed

    def test_a_dearer_type_that_the_limits_forbid_is_not_in_the_ceiling(
        self, line: Line, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An offer that will be refused does not count for the maximum."""
        line.project.write(
            "onebox.toml",
            line.project.read("onebox.toml") + "max_price = 0.21\n",
        )
        line.type(provision)
        assert "at most $1.64:" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("limit", "enough"), [("max_cost", 1.63), ("max_price", 0.204)]
    )
    def test_limits_count_the_disk_and_the_address(
        self, line: Line, limit: str, enough: float
    ) -> None:
        """A limit may be exceeded by the disk and the address."""
        toml = line.project.read("onebox.toml")
        line.project.write("onebox.toml", f"{toml}{limit} = {enough}\n")
        with pytest.raises(Unsuitable, match=limit):
            line.type(provision)
        assert line.cloud.asked == []

    def test_the_receipt_names_each_part_and_the_outputs(
        self, line: Line, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Disk, address and egress are in the receipt and in its line."""
        line.type(run)
        (path,) = line.project.root.glob(".onebox/jobs/*/receipt.json")
        facts = json.loads(path.read_text())
        assert facts["box"]["extras_per_hour"] == {
            "100 GB disk": 0.01,
            "public IPv4": 0.005,
        }
        costs = facts["costs"]
        assert set(costs) == {"machine", "100 GB disk", "public IPv4", "outputs"}
        assert all(cost > 0 for name, cost in costs.items() if name != "outputs")
        printed = capsys.readouterr().err
        assert "(machine $0.0" in printed
        assert ", 100 GB disk $0.000" in printed


class TestFallback:
    def test_fallback_prints_its_type_price_and_ceiling(
        self, line: Line, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """After a fallback, type, price and new maximum are printed."""
        line.cloud.refusals = {"m6a.xlarge": NoCapacity("none", cause="no capacity")}
        context = line.type(provision)
        printed = capsys.readouterr().err
        box = context.find_box()
        assert box is not None
        assert box.offer.type == "m7i.xlarge"
        after = printed[printed.index("obtained instead: small: m7i.xlarge") :]
        assert "$0.25/h now" in after
        assert "at most $2.12:" in after

    def test_fallback_to_another_zone_at_the_same_price_prints_no_headline(
        self, line: Line, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Same type and same price are what was announced."""
        line.cloud.refusals = {"r1-a": NoCapacity("none", cause="no capacity")}
        line.type(provision)
        printed = capsys.readouterr().err
        assert "obtained instead" not in printed
        assert "m6a.xlarge in r1-a and 1 more" in printed or "in r1-a" in printed

    @pytest.mark.parametrize("limit", ["max_price = 0.21", "max_cost = 1.70"])
    def test_limit_refuses_a_dearer_type_before_its_creation(
        self, line: Line, limit: str
    ) -> None:
        """An offer above the limit is not requested."""
        toml = line.project.read("onebox.toml")
        line.project.write("onebox.toml", f"{toml}{limit}\n")
        line.cloud.refusals = {"m6a.xlarge": NoCapacity("none", cause="no capacity")}
        with pytest.raises(NoCapacity) as caught:
            line.type(provision)
        assert line.cloud.asked == ["m6a.xlarge r1-a", "m6a.xlarge r1-b"]
        assert limit.split()[0] in caught.value.message

    @pytest.mark.parametrize("answer", ["no", "yes"])
    def test_without_a_limit_a_terminal_is_asked_before_a_dearer_type(
        self, line: Line, answer: str
    ) -> None:
        """The question is asked before the create call; no creates nothing."""
        terminal = Terminal()
        terminal.type(answer)
        line.cloud.refusals = {"m6a.xlarge": NoCapacity("none", cause="no capacity")}
        expected = (
            nullcontext()
            if answer == "yes"
            else pytest.raises(UsageError, match="no box was created")
        )
        with expected, terminal.in_use():
            line.type(provision)
        printed = terminal.shown()
        assert printed.count("Type yes to continue with it") == 1
        assert "m7i.xlarge costs $0.27/h instead of $0.21/h" in printed
        assert ("m7i.xlarge r1-a" in line.cloud.asked) == (answer == "yes")

    def test_max_cost_includes_earlier_attempts(self, line: Line) -> None:
        """max_cost holds for all attempts together, also with another type."""
        toml = line.project.read("onebox.toml")
        line.project.write("onebox.toml", f"{toml}max_cost = 2.00\n")
        context = line.type()
        offers.check_price(context, line.cloud.found[0])
        context.chain.spent_before = 0.5
        with pytest.raises(Unsuitable, match="max_cost"):
            offers.check_price(context, line.cloud.found[0])
        context.chain.spent_before = None
        with pytest.raises(Unsuitable, match="is unknown"):
            offers.check_price(context, line.cloud.found[0])


class TestRefusals:
    def test_equal_refusals_are_one_row_with_each_next(
        self, line: Line, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Eight zones without capacity are one row; the quota link is still shown."""
        line.cloud.found = [
            make_offer("m6a.xlarge", 0.19, f"{region}-{zone}")
            for region in ("r1", "r2", "r3")
            for zone in "abcd"
        ]
        for one in line.cloud.found[:8]:
            line.cloud.refusals[one.place] = NoCapacity(
                f"We do not have m6a.xlarge in {one.place} (try others)" + "x" * 200,
                next="later",
                cause="no capacity",
            )
        for one in line.cloud.found[8:]:
            line.cloud.refusals[one.place] = QuotaExceeded("a limit of 4", next=LINK)
        with pytest.raises(NoCapacity) as caught:
            line.type(provision)
        rows = caught.value.message.splitlines()[1:]
        assert rows == [
            "    m6a.xlarge in 8 zones: no capacity",
            "    m6a.xlarge in 4 zones: a limit of 4",
        ]
        assert LINK in caught.value.next
        # The text of the error is printed once.
        assert "no capacity" not in capsys.readouterr().err

    def test_regional_quota_is_tried_once_per_region(self, line: Line) -> None:
        """After one zone refused by a regional limit, its other zones are skipped."""
        line.cloud.found = [
            make_offer("m6a.xlarge", 0.19, f"{region}-{zone}")
            for region in ("r1", "r2")
            for zone in "abcd"
        ]
        for one in line.cloud.found[:4]:
            line.cloud.refusals[one.place] = QuotaExceeded("a limit of 4", next=LINK)
        context = line.type(provision)
        assert context.find_box() is not None
        assert line.cloud.asked == ["m6a.xlarge r1-a", "m6a.xlarge r2-a"]

    def test_refusals_of_one_kind_keep_their_class_and_next(self, line: Line) -> None:
        """
        If every offer is refused by a quota, the error is a quota error with
        its link.
        """
        line.cloud.refusals = {
            one.type: QuotaExceeded("a limit of 4", next=LINK)
            for one in line.cloud.found
        }
        with pytest.raises(QuotaExceeded) as caught:
            line.type(provision)
        assert caught.value.next == LINK
        assert line.cloud.asked == ["m6a.xlarge r1-a"]

    def test_error_that_no_other_offer_can_avoid_is_raised_at_once(
        self, line: Line
    ) -> None:
        """If our own address is unknown, no second offer is tried."""
        error = UsageError("this machine's public address is not certain", next="x")
        line.cloud.refusals = {"m6a.xlarge": error, "m7i.xlarge": error}
        with pytest.raises(UsageError) as caught:
            line.type(provision)
        assert caught.value is error
        assert len(line.cloud.asked) == 1


class TestLastPrices:
    def test_last_known_price_is_used_with_its_age(
        self, line: Line, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """
        If the price list fails, the last price is used, with its age and the
        reason.
        """
        line.type(provision)
        self.make_prices_older(line, 3 * 3600)
        line.type(teardown)
        capsys.readouterr()
        known, line.cloud.found = line.cloud.found, self.without_prices(line)
        line.cloud.unpriced = "the price list cannot be reached"
        line.type(provision)
        printed = capsys.readouterr().err
        assert "$0.19/h 3 h ago" in printed
        assert "at most $1.64" in printed
        assert "prices are 3 h old: the price list cannot be reached" in printed
        assert line.cloud.found != known

    def test_unknown_price_is_a_question_mark_with_its_reason(
        self, line: Line, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An unknown price is not shown as 0."""
        line.cloud.found = self.without_prices(line)
        line.cloud.unpriced = "the price list cannot be reached"
        line.type(provision)
        printed = capsys.readouterr().err
        assert "at most $?" in printed
        assert "$? is not known: the price list cannot be reached" in printed

    def test_limit_with_an_unknown_price_is_refused_with_the_reason(
        self, line: Line
    ) -> None:
        """The refusal names the cause, which the user can fix."""
        toml = line.project.read("onebox.toml")
        line.project.write("onebox.toml", f"{toml}max_cost = 2.00\n")
        line.cloud.found = self.without_prices(line)
        line.cloud.unpriced = "the price list cannot be reached"
        with pytest.raises(Unsuitable, match="cannot be reached"):
            line.type(provision)

    @pytest.mark.parametrize(
        ("spot", "days", "used"),
        [(False, 29, True), (False, 31, False), (True, 0.9, True), (True, 2, False)],
    )
    def test_stored_price_expires(
        self, line: Line, spot: bool, days: float, used: bool
    ) -> None:
        """An on-demand price is valid for a month, a spot price for a day."""
        context = line.type()
        one = make_offer("m6a.xlarge", 0.19, spot=spot)
        price_cache.complete(context, [one])
        self.make_prices_older(line, days * 86400)
        (found,) = price_cache.complete(context, [replace(one, machine_price=None)])
        assert (found.machine_price == 0.19) == used

    def test_damaged_price_file_is_ignored(self, line: Line) -> None:
        """Whatever the file contains, a box can be created."""
        self.price_file(line).parent.mkdir(parents=True, exist_ok=True)
        self.price_file(line).write_text(
            '{"m6a.xlarge, r1-a, on demand": {"price": "x"}}'
        )
        context = line.type()
        one = make_offer("m6a.xlarge", None)
        assert price_cache.complete(context, [one])[0].machine_price is None

    def price_file(self, line: Line) -> Path:
        """Return the file of the last prices."""
        return state_dir(line.project.environ) / "prices" / "local.json"

    def make_prices_older(self, line: Line, seconds: float) -> None:
        """Make all last prices older."""
        facts = json.loads(self.price_file(line).read_text())
        for row in facts.values():
            row["at"] -= seconds
        self.price_file(line).write_text(json.dumps(facts))

    def without_prices(self, line: Line) -> list[Offer]:
        """Return the same offers without prices."""
        extras = tuple(Cost(one.label, None) for one in EXTRAS)
        return [
            replace(one, machine_price=None, machine_on_demand=None, extras=extras)
            for one in line.cloud.found
        ]
