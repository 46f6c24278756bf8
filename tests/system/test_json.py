"""`--json` prints one document for scripts, also for an error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Done, Project


def document(done: Done) -> Any:
    """Return the document on stdout."""
    found = json.loads(done.out)
    assert 1 == found["schema_version"]
    return found


class TestDocuments:
    """stdout is one document; messages stay on stderr."""

    def test_offers(self, project: Project) -> None:
        """An offer has the machine's size and its prices."""
        found = document(project.inv("offers", "--json"))

        assert ("offers", "local", 1) == (
            found["kind"],
            found["provider"],
            found["count"],
        )
        assert 0 == found["offers"][0]["hourly_usd"]
        assert found["offers"][0]["cpus"] >= 1

    def test_plan(self, project: Project) -> None:
        """The document has what the lines of `inv plan` say."""
        found = document(project.inv("plan", "--json"))

        actions = {step["name"]: step["action"] for step in found["steps"]}
        assert ("plan", 0, "sh job.sh") == (
            found["kind"],
            found["exit"],
            found["command"],
        )
        assert ("run", "up to date") == (actions["push"], actions["image"])
        assert found["push"]["files"] > 0
        assert 0 == found["box"]["at_most_usd"]

    def test_plan_of_a_run_that_would_not_start(self, project: Project) -> None:
        """The refusals are in the document, and the exit code is that of `run`."""
        project.write("onebox.toml", '[push]\ndata = ["gone/"]\n')

        done = project.inv("plan", "--json")
        found = document(done)
        assert (66, 66) == (done.code, found["exit"])
        assert "gone/" in found["refusals"][0]["message"]

    @pytest.mark.fast
    def test_a_step_that_would_refuse_says_so(self, project: Project) -> None:
        """The action and the reason are those of the text."""
        found = document(project.inv("plan", "--json", "--", "python", "gone.py"))

        (step,) = (step for step in found["steps"] if step["name"] == "run")
        assert "refuse" == step["action"]
        assert step["reason"] == found["refusals"][0]["message"]

    @pytest.mark.fast
    def test_settings_have_their_values(self, project: Project) -> None:
        """A number is a number, a list a list; a secret stays hidden."""
        project.write(
            "onebox.toml",
            '[run]\ncommand = "true"\n[push]\ndata = ["a b/"]\n'
            "[limits]\nmax_hours = 2.5\n",
        )
        env = {"ONEBOX_NOTIFY_URL": "https://example.com/s3cret"}
        done = project.inv("doctor", "--settings", "--spot", "--json", env=env)
        found = {one["name"]: one["value"] for one in document(done)["settings"]}

        assert (2.5, ["a b/"], True, "true") == (
            found["limits.max_hours"],
            found["push.data"],
            found["spot"],
            found["run.command"],
        )
        assert "s3cret" not in done.out
        assert "(hidden)" == found["notify.url"]

    def test_images(self, project: Project) -> None:
        """An image saved by hand is listed."""
        assert [] == document(project.inv("image", "--list", "--json"))["images"]
        project.inv("provision")
        project.inv("image", "--from-box", "--as=geo", "--yes")

        (image,) = document(project.inv("image", "--list", "--json"))["images"]
        assert ("geo", False, 0) == (
            image["name"],
            image["by_recipe"],
            image["monthly_usd"],
        )

    def test_status(self, project: Project) -> None:
        """A box comes with its job."""
        assert [] == document(project.inv("status", "--json"))["boxes"]
        project.inv("run", "--keep")

        (box,) = document(project.inv("status", "--json"))["boxes"]
        assert ("main", "running", "succeeded", "fetched") == (
            box["name"],
            box["state"],
            box["job"]["state"],
            box["outputs"],
        )

    def test_history(self, project: Project) -> None:
        """A failed job has its exit code."""
        assert 0 == document(project.inv("history", "--json"))["count"]
        project.inv("run", "--command=exit 3")

        (job,) = document(project.inv("history", "--json"))["entries"]
        assert ("exit 3", 3, 0) == (job["command"], job["exit"], job["cost_usd"])

    def test_doctor(self, project: Project) -> None:
        """Each check has its result; the settings come with their sources."""
        checks = document(project.inv("doctor", "--json"))["checks"]
        assert {"python", "ssh", "onebox.toml"} <= {
            c["name"] for c in checks if c["ok"]
        }

        done = project.inv("doctor", "--settings", "--vm=large", "--json")
        assert {"name": "vm", "value": "large", "source": "--vm"} in (
            document(done)["settings"]
        )

    def test_cleanup(self, project: Project) -> None:
        """A live box is listed, and not expired."""
        project.inv("provision")

        found = document(project.inv("cleanup", "--yes", "--json"))
        (box,) = found["boxes"]
        assert ("local", "running", False) == (
            box["provider"],
            box["state"],
            box["expired"],
        )
        assert [] == found["removed"]


class TestErrors:
    """An error is a document too, with the exit code of the command."""

    @pytest.mark.parametrize(
        ("words", "kind", "code"),
        [
            (["offers", "--limit=x"], "UsageError", 64),
            (["offers", "--vm=huge"], "ConfigError", 78),
            (["image", "--list", "--provider=awz"], "ConfigError", 78),
            (["image"], "UsageError", 64),
        ],
    )
    def test_an_error_has_kind_message_next_and_exit(
        self, project: Project, words: list[str], kind: str, code: int
    ) -> None:
        """The text on stderr has the same message."""
        done = project.inv(*words, "--json")

        error = document(done)["error"]
        assert (kind, code, code) == (error["kind"], error["exit"], done.code)
        assert error["message"] in done.err
        assert error["next"] in done.err

    def test_a_bad_onebox_toml_is_a_document(self, project: Project) -> None:
        """The error comes before any stage runs."""
        project.write("onebox.toml", "[runn]\n")

        error = document(project.inv("cleanup", "--json"))["error"]
        assert "onebox.toml:1: [runn]: unknown table" in error["message"]

    @pytest.mark.fast
    @pytest.mark.parametrize("program", ["inv", "onebox"])
    @pytest.mark.parametrize(
        ("line", "next"),
        [
            ("plan --json -vm x", "{} plan --json --vm=x"),
            ("plan --json --vm", ""),
            ("status --json --xyzzy", "{} --help status"),
            ("plan --json --spot --no-spot", ""),
            ("push --json", "{} --help push"),
        ],
    )
    def test_a_mistake_in_the_flags_is_a_document(
        self, project: Project, program: str, line: str, next: str
    ) -> None:
        """No stage has begun then; the message is that of stderr."""
        done = getattr(project, program)(*line.split())

        error = document(done)["error"]
        assert ("UsageError", 64, 64) == (error["kind"], error["exit"], done.code)
        assert f"onebox[64]: {error['message']}\n" in done.err
        assert next.format(program) == error["next"]
        assert error["next"] in done.err

    @pytest.mark.fast
    def test_a_tasks_file_that_cannot_be_imported_is_a_document(
        self, project: Project
    ) -> None:
        """The program has loaded no task then."""
        project.write("tasks.py", "import onebox, nothing_of_this_name\n")
        done = project.onebox("status", "--json")

        error = document(done)["error"]
        assert ("ConfigError", 78, 78) == (error["kind"], error["exit"], done.code)
        assert "nothing_of_this_name" in error["message"]

    def test_a_later_stage_prints_its_own_form(self, project: Project) -> None:
        """`--json` of one task does not reach the next task."""
        done = project.inv("cleanup", "--json", "cancel")

        assert 64 == done.code
        assert "error" != json.loads(done.out)["kind"]
        assert "onebox[64]: there is no box" in done.err

    @pytest.mark.fast
    @pytest.mark.parametrize("program", ["inv", "onebox"])
    @pytest.mark.parametrize("first", ["status", "plan"])
    def test_two_documents_are_refused(
        self, project: Project, program: str, first: str
    ) -> None:
        """Nothing that reads stdout as one document could read them."""
        done = getattr(project, program)(first, "--json", "history", "--json")

        assert 64 == done.code
        assert f"next: {program} {first} --json, then {program} history --json" in (
            done.err
        )
        assert '"boxes"' not in done.out
        assert '"steps"' not in done.out
