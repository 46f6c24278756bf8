"""The end of a job is posted to a URL once: by the box, or by a client."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.agent.jobs import notification
from onebox.jobs import receipt
from onebox.remote.channel import AgentChannel
from tests.agent.test_jobs import follow
from tests.fakes.agent_box import AgentBox, read, until
from tests.fakes.hook import TOKEN, Hook


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A server that accepts notifications."""
    server = Hook()
    yield server
    server.close()


def start(box: AgentBox, hook: Hook, shell: str, job: str = "j1") -> None:
    """Start a job whose end the box has to post."""
    with box.connect() as link:
        link.request("start", job=job, shell=shell, notify=hook.url)


def claim(link: AgentChannel, job: str = "j1") -> object:
    """Claim the notification as a client does; return whether the claim succeeded."""
    return link.request("claim", job=job)["claimed"]


def test_box_posts_the_end_of_a_job_that_no_client_follows(
    agent_box: AgentBox, hook: Hook
) -> None:
    """A client that attaches afterwards does not notify again."""
    start(agent_box, hook, "exit 7")
    hook.until_posted()
    (report,) = hook.posted

    assert receipt.HEAD.items() <= report.items()
    assert ("j1", 7, "exit", "box") == (
        report["job"],
        report["exit"],
        report["cause"],
        report["sent_by"],
    )
    assert report["ended"] >= report["started"] > 0
    with agent_box.connect() as link:
        follow(link, "j1")
        assert not claim(link)
    assert 1 == len(hook.posted)


def test_client_claims_the_notification_of_a_job_that_ended_before_it_followed(
    agent_box: AgentBox, hook: Hook
) -> None:
    """The client that has started a short job follows it only after its end."""
    start(agent_box, hook, "true")
    with agent_box.connect() as link:
        until(lambda: link.request("job", job="j1")["state"] == "exited")
        time.sleep(0.3)
        follow(link, "j1")
        assert claim(link)
    assert [] == hook.posted


def test_client_that_has_just_begun_to_follow_claims_the_notification(
    agent_box: AgentBox, hook: Hook
) -> None:
    """At the job's end it has created the file of the followers, but no lock yet."""
    start(agent_box, hook, "while [ ! -e go ]; do sleep 0.05; done")
    (agent_box.root / "jobs/j1/followers").touch()
    (agent_box.work / "go").touch()
    with agent_box.connect() as link:
        until(lambda: link.request("job", job="j1")["state"] == "exited")
        time.sleep(0.3)
        assert claim(link)
    assert [] == hook.posted


def test_client_that_follows_claims_the_notification_before_the_box(
    agent_box: AgentBox, hook: Hook
) -> None:
    """The box then posts nothing; its supervisor ends without that."""
    start(agent_box, hook, "while [ ! -e go ]; do sleep 0.05; done")
    supervisor = pid_of(agent_box)
    with agent_box.connect() as link:
        link.begin("follow", job="j1", offset=0)
        until(lambda: (agent_box.root / "jobs/j1/followers").exists())
        (agent_box.work / "go").touch()
        link.finish()
        assert claim(link)
        assert not claim(link)
        until(lambda: not Path(f"/proc/{supervisor}/exe").exists())
    assert [] == hook.posted


def test_box_posts_if_the_client_that_followed_does_not_claim(
    agent_box: AgentBox, hook: Hook
) -> None:
    """A client may be killed at the moment when the job ends."""
    start(agent_box, hook, "while [ ! -e go ]; do sleep 0.05; done")
    with agent_box.connect() as link:
        link.begin("follow", job="j1", offset=0)
        until(lambda: (agent_box.root / "jobs/j1/followers").exists())
        (agent_box.work / "go").touch()
        link.finish()
        link.process.kill()
    hook.until_posted()
    with agent_box.connect() as link:
        assert not claim(link)


def test_client_notifies_if_the_box_could_not(agent_box: AgentBox, hook: Hook) -> None:
    """The box tries twice; its note on the failure does not contain the URL."""
    hook.status = 500
    start(agent_box, hook, "true")
    trouble = agent_box.root / "jobs/j1/trouble"
    until(lambda: "HTTP status 500" in trouble.read_text())

    assert 2 == len(hook.posted)
    with agent_box.connect() as link:
        assert claim(link)
    stored = [path for path in agent_box.root.rglob("*") if path.is_file()]
    assert [] == [path for path in stored if TOKEN in path.read_text("latin-1")]


def test_url_is_neither_stored_nor_given_to_the_job(
    agent_box: AgentBox, hook: Hook
) -> None:
    """It may contain a token, so only the supervisor's memory has it."""
    start(agent_box, hook, "env; while [ ! -e go ]; do sleep 0.05; done")
    supervisor = pid_of(agent_box)
    stored = [path for path in agent_box.root.rglob("*") if path.is_file()]

    assert [] == [path for path in stored if TOKEN in path.read_text("latin-1")]
    for name in ("cmdline", "environ"):
        assert TOKEN.encode() not in read(f"/proc/{supervisor}/{name}")
    (agent_box.work / "go").touch()
    hook.until_posted()


class TestPost:
    @pytest.mark.parametrize(
        ("status", "problem", "count"),
        [
            (200, "", 1),
            (204, "", 1),
            (404, "HTTP status 404", 1),
            (302, "HTTP status 302", 2),
            (503, "HTTP status 503", 2),
            (0, "no answer within 0.3 s", 2),
        ],
    )
    def test_only_a_failure_that_may_pass_is_tried_once_more(
        self,
        hook: Hook,
        monkeypatch: pytest.MonkeyPatch,
        status: int,
        problem: str,
        count: int,
    ) -> None:
        """A redirect is not followed, and a server that hangs is given up."""
        monkeypatch.setattr(notification, "TIMEOUT", 0.3)
        hook.status = status

        assert problem == notification.post(hook.url, b"{}")
        assert count == len(hook.posted)

    @pytest.mark.parametrize(
        "url",
        [
            f"http://127.0.0.1:1/{TOKEN}",
            f"file:///{TOKEN}",
            f"ftp://127.0.0.1/{TOKEN}",
            f"http://127.0.0.1:x/{TOKEN}",
            f"http://{TOKEN}\n/",
        ],
    )
    def test_problem_never_contains_the_url(self, url: str) -> None:
        """Only http and https are used."""
        problem = notification.post(url, b"{}")

        assert problem
        assert TOKEN not in problem


def pid_of(box: AgentBox) -> str:
    """Return the process id of the job's supervisor."""
    started = json.loads((box.root / "jobs/j1/started.json").read_text())
    return str(started["pid"])


def test_box_notifies_before_it_powers_off_at_its_deadline(
    agent_box: AgentBox, hook: Hook
) -> None:
    """The power-off waits some seconds for the notification."""
    hook.delay = 1.0
    start(agent_box, hook, "sleep 600")
    agent_box.describe(deadline=time.time() - 1)
    watchdog = subprocess.Popen(agent_box.command("watch"))
    try:
        until(agent_box.off.exists)
        (report,) = hook.posted
    finally:
        watchdog.kill()
        watchdog.wait()

    assert "deadline" == report["cause"]
