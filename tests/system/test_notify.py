"""The end of a run: the bell, and `[notify]` command and url."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator

import pytest

from onebox.context import BoxContext
from onebox.errors import JobFailed
from onebox.invocation import Invocation
from onebox.jobs import notify
from tests.conftest import Project
from tests.fakes.hook import TOKEN, Hook
from tests.stages.test_preemption_recovery import write_job
from tests.system.lines import let_job_continue
from tests.system.test_terminal import exit_code, start_in_terminal

COMMAND = "cat > receipt.got; env | grep ^ONEBOX_ | sort > variables.got"
# Its first attempt lasts until the notice, its second one ends at once.
TWICE = "mkdir -p ckpt; [ -e ckpt/seen ] && exit 0; touch ckpt/seen; sleep 600"
WAITS = "echo up; while [ ! -e go ]; do sleep 0.1; done; rm go; echo end; exit 5"


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A server that accepts notifications."""
    server = Hook()
    yield server
    server.close()


def set_notify(project: Project, **keys: str) -> None:
    """Add a [notify] table to onebox.toml."""
    text = project.read("onebox.toml").partition("\n[notify]")[0]
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    project.write("onebox.toml", "\n".join([text, "[notify]", *lines, ""]))


def use(project: Project, hook: Hook) -> None:
    """Let a variable set the URL, as for one with a token."""
    project.environ["ONEBOX_NOTIFY_URL"] = hook.url


class TestClient:
    def test_command_reads_the_receipt_and_gets_variables(
        self, project: Project
    ) -> None:
        """The receipt is the one beside the outputs, after the fetch."""
        project.write("job.sh", "mkdir -p results; echo 1 > results/x; exit 3")
        set_notify(project, command=COMMAND)
        assert 3 == project.inv("run").code
        (path,) = project.root.glob(".onebox/jobs/*/receipt.json")
        got = json.loads(project.read("receipt.got"))

        assert json.loads(path.read_text()) == got
        assert {"files": 1, "bytes": 2} == got["outputs"]
        variables = project.read("variables.got").splitlines()
        assert {
            "ONEBOX_EXIT=3",
            f"ONEBOX_JOB={path.parent.name}",
            "ONEBOX_TITLE=census/main",
            "ONEBOX_CAUSE=exit",
            "ONEBOX_COMMAND=sh job.sh",
        } <= set(variables)

    def test_url_gets_the_receipt(self, project: Project, hook: Hook) -> None:
        """It is posted once, and the token in the URL is nowhere else."""
        use(project, hook)
        done = project.inv("-d", "run", "--keep")
        assert 0 == done.code
        again = project.inv("logs")
        (posted,) = hook.posted

        (path,) = project.root.glob(".onebox/jobs/*/receipt.json")
        assert json.loads(path.read_text()) == posted
        assert TOKEN not in done.out + done.err + again.out + again.err
        files = [*project.root.rglob("*"), *project.home.rglob("*")]
        found = [p for p in files if p.is_file() and TOKEN.encode() in p.read_bytes()]
        assert [] == found

    @pytest.mark.parametrize(
        ("status", "problem", "count"),
        [(500, "HTTP status 500", 2), (0, "no answer within 5 s", 2)],
    )
    def test_failed_notification_is_a_warning(
        self, project: Project, hook: Hook, status: int, problem: str, count: int
    ) -> None:
        """The exit code is the job's, the box is removed, and no URL is printed."""
        hook.status = status
        use(project, hook)
        set_notify(project, command="echo no display >&2; exit 9")
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert [] == project.boxes()
        assert f"[notify] url was not reached: {problem}" in done.err
        assert "[notify] command failed: exit 9: no display" in done.err
        assert TOKEN not in done.err
        assert count == len(hook.posted)

    def test_command_that_hangs_is_ended(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its own children end too."""
        monkeypatch.setattr(notify, "COMMAND_SECONDS", 0.5)
        context = open_context(project)
        marker = project.root / "late"
        problem = notify._run_command(
            context, f"(sleep 2; touch {marker}) & sleep 600", b"{}", {}
        )

        assert problem.startswith("it was ended, because it took more than")
        time.sleep(2.5)
        assert not marker.exists()

    def test_run_that_is_preempted_notifies_once_at_its_end(
        self, project: Project, hook: Hook
    ) -> None:
        """An attempt that is not the last one does not notify."""
        write_job(project, "notice_after = 3\nnotice_seconds = 4", job=TWICE)
        use(project, hook)
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert "attempt 2" in done.err
        (posted,) = hook.posted
        assert 0 == posted["exit"]
        assert 2 == len(posted["attempts"]["jobs"])


class TestBox:
    def test_box_notifies_of_a_detached_job(self, project: Project, hook: Hook) -> None:
        """`logs` and `fetch` do not notify again."""
        use(project, hook)
        project.write("job.sh", WAITS)
        assert 0 == project.inv("run", "--detach").code
        let_job_continue(project)
        hook.until_posted()
        (posted,) = hook.posted

        assert (5, "box") == (posted["exit"], posted["sent_by"])
        assert 5 == project.inv("logs").code
        assert 0 == project.inv("fetch", "teardown").code
        assert [posted] == hook.posted

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_box_notifies_if_the_client_has_gone(
        self, project: Project, hook: Hook, number: int
    ) -> None:
        """It does not matter how the client has ended."""
        use(project, hook)
        project.write("job.sh", WAITS)
        line = project.start("run")
        project.until("up\n")
        line.send_signal(number)
        line.wait(30)
        assert [] == hook.posted
        let_job_continue(project)
        hook.until_posted()
        assert 5 == project.inv("logs").code

        assert ["box"] == [posted.get("sent_by") for posted in hook.posted]

    def test_client_that_attaches_again_notifies_instead_of_the_box(
        self, project: Project, hook: Hook
    ) -> None:
        """`logs` is attached when the job ends."""
        use(project, hook)
        project.write("job.sh", WAITS)
        assert 0 == project.inv("run", "--detach").code
        line = project.start("logs")
        project.until("up\n")
        let_job_continue(project)
        assert 5 == line.wait(60)

        (posted,) = hook.posted
        assert "main" == posted["box"]["name"]


class TestDetached:
    @pytest.mark.parametrize("first", ["status", "logs", "fetch", "teardown", "push"])
    def test_command_runs_once_where_the_end_is_learned(
        self, project: Project, hook: Hook, first: str
    ) -> None:
        """The box has posted to the url. Later commands do not notify again."""
        project.write("job.sh", "mkdir -p results; echo 1 >results/x; exit 5")
        set_notify(project, command="cat >>got; echo $ONEBOX_EXIT >>codes")
        use(project, hook)
        assert 0 == project.inv("run", "--detach").code
        hook.until_posted()
        assert not (project.root / "codes").exists()

        done = project.inv(first)
        # The outputs are not here, so the teardown is refused.
        assert {"logs": 5, "teardown": 73}.get(first, 0) == done.code, done.err
        got = json.loads(project.read("got"))
        assert (5, "sh job.sh") == (got["exit"], got["command"])
        assert "main" == got["box"]["name"]
        for words in (["status"], ["logs"], ["fetch"], ["teardown"]):
            project.inv(*words)

        assert "5\n" == project.read("codes")
        assert ["box"] == [posted.get("sent_by") for posted in hook.posted]

    def test_command_is_left_to_the_run_that_follows_the_job(
        self, project: Project
    ) -> None:
        """It has the receipt with the outputs; `cancel` and `status` have not."""
        project.write("job.sh", "echo up; sleep 600")
        set_notify(project, command="cat >>got; echo $ONEBOX_CAUSE >>causes")
        line = project.start("run")
        project.until("up\n")
        assert 0 == project.inv("cancel").code
        assert 0 == project.inv("status").code
        assert 143 == line.wait(60)

        assert "cancel\n" == project.read("causes")
        assert json.loads(project.read("got"))["stages"]

    def test_command_runs_when_a_detached_job_is_cancelled(
        self, project: Project
    ) -> None:
        """`cancel` is the first command that learns of the end."""
        project.write("job.sh", "sleep 600")
        set_notify(project, command="echo $ONEBOX_CAUSE >>causes")
        assert 0 == project.inv("run", "--detach").code
        assert 0 == project.inv("cancel").code
        assert 0 == project.inv("status").code

        assert "cancel\n" == project.read("causes")

    def test_status_never_takes_the_lock_of_the_box(
        self, project: Project, hook: Hook
    ) -> None:
        """A command that starts at this moment would be refused as busy."""
        project.write("job.sh", "exit 5")
        set_notify(project, command="echo $ONEBOX_EXIT >>codes")
        use(project, hook)
        assert 0 == project.inv("run", "--detach").code
        hook.until_posted()
        project.write(
            "tasks.py",
            "from onebox import *\nfrom onebox.store.box_store import BoxStore\n"
            "def lock(*words):\n    raise RuntimeError('locked')\n"
            "BoxStore.lock = lock\n",
        )
        for _ in range(2):
            done = project.inv("status")
            assert 0 == done.code, done.err

        assert "5\n" == project.read("codes")


class TestBell:
    @pytest.mark.parametrize(("seconds", "keys"), [(0.0, 1), (60.0, 0)])
    def test_bell_rings_in_a_terminal_after_a_long_run(
        self, project: Project, seconds: float, keys: int
    ) -> None:
        """A short run needs no bell."""
        project.write(
            "tasks.py",
            "from onebox import *\nfrom onebox.jobs import notify\n"
            f"notify.BELL_SECONDS = {seconds}\n",
        )
        with start_in_terminal(project, "run") as child:
            assert 0 == exit_code(child)
            assert keys == (child.before or "").count("\a")
        assert "\a" not in project.inv("run").err

    def test_bell_can_be_switched_off(self, project: Project) -> None:
        """With [notify] bell = false, no run rings it."""
        project.write(
            "tasks.py",
            "from onebox import *\nfrom onebox.jobs import notify\n"
            "notify.BELL_SECONDS = 0.0\n",
        )
        project.environ["ONEBOX_NOTIFY_BELL"] = "false"
        with start_in_terminal(project, "run") as child:
            assert 0 == exit_code(child)
            assert "\a" not in (child.before or "")


class TestSettings:
    def test_url_with_a_token_is_refused_in_the_file(self, project: Project) -> None:
        """The message names the variable, and does not repeat the URL."""
        hook = "https://hooks.slack.com/services/T0123456789/B0123/abcdefghijkl"
        set_notify(project, url=hook)
        done = project.inv("plan")

        assert 78 == done.code
        assert "set the variable ONEBOX_NOTIFY_URL instead" in done.err
        assert "abcdefghijkl" not in done.err
        set_notify(project)
        assert 0 == project.inv("plan", env={"ONEBOX_NOTIFY_URL": hook}).code

    @pytest.mark.parametrize("url", [f"ftp://x/{TOKEN}", TOKEN, f"https:///{TOKEN}"])
    def test_url_must_be_http_and_is_not_repeated(
        self, project: Project, url: str
    ) -> None:
        """A wrong URL may contain a token too."""
        done = project.inv("plan", env={"ONEBOX_NOTIFY_URL": url})

        assert 78 == done.code
        assert "is not a URL such as https://example.com/hook" in done.err
        assert TOKEN not in done.err


def test_claim_that_fails_does_not_change_the_exit_code(project: Project) -> None:
    """If the box does not answer, the client notifies."""
    context = open_context(project)
    seen = []
    with pytest.raises(JobFailed), notify.at_end(context):
        notice = context.chain.notice
        assert notice is not None
        notify.gave_up(context)
        seen.append(notice.claimed)
        raise JobFailed(3)
    assert [True] == seen
    assert None is context.chain.notice


def open_context(project: Project) -> BoxContext:
    """Open the project in this process."""
    line = Invocation("inv", ())
    return BoxContext.open(str(project.root), project.environ, {}, line)
