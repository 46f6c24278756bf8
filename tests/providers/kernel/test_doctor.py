"""The runner of doctor's checks."""

from __future__ import annotations

import time

import pytest

from onebox.errors import NotAllowed, OneboxError, ProviderError, Throttled
from onebox.providers.kernel.doctor import Step, credentials_line, run, ssh_line
from onebox.providers.kernel.errors import Unanswered
from onebox.providers.kernel.ssh_access import SSHAccess
from onebox.providers.values import Check


def passing(name: str) -> Step:
    """Return a check that passes."""
    return name, lambda: Check(name, True, "well")


def raising(name: str, error: OneboxError) -> Step:
    """Return a check that raises."""

    def look() -> Check:
        raise error

    return name, look


def test_a_failed_group_ends_the_run() -> None:
    """Without credentials nothing else is checked, but the whole group is."""
    lines = run(
        [raising("credentials", NotAllowed("none")), passing("region")],
        [passing("quota")],
    )
    assert [(line.name, line.ok) for line in lines] == [
        ("credentials", False),
        ("region", True),
    ]
    assert lines[0].next


def test_every_check_of_the_last_group_has_a_line() -> None:
    """A check that raises becomes a line, and the others still run."""
    lines = run([passing("token")], [raising("a", ProviderError("no")), passing("b")])
    assert [line.name for line in lines] == ["token", "a", "b"]


@pytest.mark.parametrize(
    ("error", "ok"),
    [
        (NotAllowed("no"), False),
        (ProviderError("no"), False),
        (Unanswered("cut"), None),
        (Throttled("later"), None),
    ],
)
def test_only_a_refusal_is_wrong(error: OneboxError, ok: bool | None) -> None:
    """A question without an answer proves nothing about a box."""
    [line] = run([raising("quota", error)])
    assert line.ok is ok
    assert line.detail.startswith("not known: ") == (ok is None)


def test_the_last_group_can_run_in_parallel() -> None:
    """The client's own way to run several checks is used for the last group."""
    seen: list[str] = []

    def each(steps: object, line: object) -> list[Check]:
        seen.append("each")
        return []

    run([passing("token")], [passing("a")], each=each)
    assert seen == ["each"]


@pytest.mark.parametrize(
    ("hours", "ok"), [(None, True), (-1, False), (1, None), (48, True)]
)
def test_credentials_that_expire_soon_are_worth_a_remark(
    hours: int | None, ok: bool | None
) -> None:
    """Expired credentials are wrong; those for less than a job get a remark."""
    now = time.time()
    expires = None if hours is None else now + hours * 3600
    line = credentials_line("credentials", "a login", expires, now, "log in")
    assert line.ok is ok
    assert line.next or ok


def test_an_open_ssh_port_is_worth_a_remark() -> None:
    """The user has allowed it, so it is not wrong."""

    def line(ssh_cidr: str, private: bool = False) -> Check:
        def my_ip() -> str:
            return "203.0.113.7"

        return ssh_line(SSHAccess(ssh_cidr=ssh_cidr, private=private, my_ip=my_ip))

    assert line("") == Check("ssh", True, "from 203.0.113.7/32")
    assert line("0.0.0.0/0").ok is None
    assert line("", private=True) == Check("ssh", True, "from private networks only")
