"""Which files leave this machine, and which files of a box are not fetched."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from onebox.store import paths
from tests.conftest import Project

REPOSITORY = """\
set -e
mkdir -p results/m results/plain
cd results/m
git init -q .
echo 42 >answer.txt
git add answer.txt
git config core.fsmonitor "touch {canary}; false"
git update-index --fsmonitor
cd ../..
echo 1 >results/plain/x
"""
LIST = "mkdir -p results; find . | LC_ALL=C sort\n"


class TestRepositories:
    def test_repository_in_the_outputs_keeps_the_box(self, project: Project) -> None:
        """
        It is named and not fetched unless the user asks for it; git does not
        run in it.
        """
        canary = project.home / "canary"
        project.write("job.sh", REPOSITORY.format(canary=canary))
        project.write(".gitignore", "results/\n")
        git(project, "init", "-q")
        done = project.inv("run")
        canary.unlink(missing_ok=True)

        assert 73 == done.code, done.err
        assert "results/m/.git" in done.err
        assert "inv fetch --unsafe-git" in done.err
        assert "42\n" == project.read("results/m/answer.txt")
        assert "1\n" == project.read("results/plain/x")
        assert not (project.root / "results" / "m" / ".git").exists()
        assert len(project.boxes()) == 1
        refused = project.inv("teardown")
        assert (73, True) == (refused.code, "results/m/.git" in refused.err)

        assert 0 == project.inv("fetch", "--unsafe-git").code
        assert (project.root / "results" / "m" / ".git" / "config").is_file()
        assert 0 == project.inv("plan").code
        pushed = project.inv("push", "teardown")
        assert 0 == pushed.code, pushed.err
        assert not canary.exists()

    def test_bare_repository_in_the_outputs_keeps_the_box(
        self, project: Project
    ) -> None:
        """A shell prompt in that folder would run what it configures."""
        project.write(
            "job.sh",
            "echo 1 >results/x; git init -q --bare results/m; cd results/m; "
            "git config core.bare false; git config core.worktree .",
        )
        done = project.inv("run")

        assert 73 == done.code, done.err
        assert "version control runs programs that are configured there" in done.err
        assert "results/m\n" in done.err
        assert "1\n" == project.read("results/x")
        assert not (project.root / "results" / "m").exists()
        assert 73 == project.inv("teardown").code

        assert 0 == project.inv("fetch", "--unsafe-git", "teardown").code
        assert (project.root / "results" / "m" / "config").is_file()
        assert [] == project.boxes()

    def test_two_fetches_cannot_assemble_a_repository(self, project: Project) -> None:
        """Files of an earlier fetch count as well."""
        project.write("job.sh", "mkdir -p results/m/objects; >results/m/HEAD")
        assert 0 == project.inv("run").code
        project.write("job.sh", "mkdir -p results/m/refs; >results/m/config")
        done = project.inv("run")

        assert (73, True) == (done.code, "results/m\n" in done.err), done.err
        assert not (project.root / "results" / "m" / "config").exists()

    def test_pushed_repository_does_not_keep_the_box(self, project: Project) -> None:
        """A clone that was pushed as data and did not change is already here."""
        project.write(
            "onebox.toml",
            '[run]\ncommand = "echo 1 >models/new"\n[push]\ndata = ["models/"]\n'
            '[fetch]\noutputs = ["models/"]\n',
        )
        project.write("models/weights", "w")
        git(project, "init", "-q", "models")
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert "1\n" == project.read("models/new")
        assert [] == project.boxes()


class TestNoProject:
    @pytest.mark.parametrize("line", [("run",), ("push",), ("plan",)])
    def test_home_folder_is_refused_as_a_project(
        self, project: Project, line: tuple[str, ...]
    ) -> None:
        """
        HOME, a folder above it and a link to it are refused before a box is
        created.
        """
        link = project.home / "link"
        link.symlink_to(project.root)
        for home in (project.root, link, project.root / "home"):
            home.mkdir(exist_ok=True)
            done = project.inv(*line, env={"HOME": str(home)})

            assert 64 == done.code, done.err
            assert "home folder" in done.err
        done = project.inv(*line, env={"HOME": str(project.root)}, cwd=link)
        assert 64 == done.code, done.err
        assert [] == project.boxes()

    def test_home_folder_of_the_account_is_refused_whatever_home_is(self) -> None:
        """The account's home folder and / are refused, too."""
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
        environ = {"HOME": "/nowhere", "ONEBOX_IDENTITY": "/a"}

        assert paths.why_no_project(home, environ) == f"{home} is a home folder"
        assert "home folder" in (paths.why_no_project(Path("/"), environ) or "")
        assert paths.why_no_project(Path("/usr/share"), environ) is None

    @pytest.mark.parametrize(
        "variable", ["ONEBOX_IDENTITY", "ONEBOX_STATE", "ONEBOX_LOCAL_ROOT"]
    )
    def test_folder_that_contains_oneboxs_files_is_refused(
        self, project: Project, variable: str
    ) -> None:
        """The owner's key, the state and the local boxes are never pushed."""
        inner = project.root / "inner"
        inner.mkdir()
        link = project.home / "inner"
        link.symlink_to(inner)
        for place in (str(inner), str(link)):
            done = project.inv("run", env={variable: place})

            assert 64 == done.code, done.err
            assert "nothing in it is pushed" in done.err
        assert [] == project.boxes()

    def test_teardown_works_in_a_folder_that_is_refused(self, project: Project) -> None:
        """Only commands that push are refused."""
        assert 0 == project.inv("provision").code
        here = {"HOME": str(project.root)}

        assert 0 == project.inv("status", env=here).code
        assert 64 == project.inv("push", env=here).code
        assert 0 == project.inv("teardown", env=here).code
        assert [] == project.boxes()

    def test_relative_home_folder_is_ignored(self, project: Project) -> None:
        """A relative HOME or XDG_CONFIG_HOME is not used: the account's home is."""
        for name in ("ONEBOX_IDENTITY", "ONEBOX_STATE"):
            del project.environ[name]
        for name in ("CONFIG", "STATE", "DATA"):
            done = project.inv("status", env={f"XDG_{name}_HOME": "here"})
            assert 0 == done.code, done.err

        assert not (project.root / "here").exists()
        assert (project.home / ".config" / "onebox" / "owner").is_file()


class TestCredentials:
    def test_credentials_are_not_pushed_and_are_named(self, project: Project) -> None:
        """Key and token files of known programs are not pushed from any folder."""
        for name in (
            *(".ssh/id_rsa", ".aws/credentials", ".config/gcloud/x/y.json"),
            *("data/keys/id_ed25519", "data/.netrc", "src/.AWS/credentials"),
        ):
            project.write(name, "secret")
        for name in ("src/main", ".config/app/x", "id_rsa.pub", "data/.sshx/y"):
            project.write(name, "ours")
        project.write("job.sh", LIST)
        config = project.read("onebox.toml")
        project.write("onebox.toml", config + '[push]\ndata = ["data/"]\n')
        git(project, "init", "-q")
        git(project, "add", "-f", ".")
        done = project.inv("run")

        assert 0 == done.code, done.err
        there = done.out.split("\n")
        assert "./src/main" in there
        assert "./.config/app/x" in there
        assert "./id_rsa.pub" in there
        assert "./data/.sshx/y" in there
        for name in (".ssh", ".aws", "gcloud", "id_ed25519", ".netrc", ".AWS"):
            assert not [path for path in there if path.endswith("/" + name)]
        data = [line for line in done.err.splitlines() if "credentials:" in line]
        assert len(data) == 1
        for name in (".aws", ".ssh", ".config/gcloud", "data/.netrc", "and 1 more"):
            assert name in data[0]

    def test_credential_file_listed_in_push_data_is_pushed(
        self, project: Project
    ) -> None:
        """No other credential file is pushed with it."""
        project.write("keys/kaggle.json", "{}")
        project.write(".ssh/config", "x")
        project.write("job.sh", LIST)
        config = project.read("onebox.toml")
        project.write("onebox.toml", config + '[push]\ndata = ["keys/kaggle.json"]\n')
        done = project.inv("run")

        assert 0 == done.code, done.err
        assert "./keys/kaggle.json" in done.out
        assert ".ssh" not in done.out
        assert "kaggle" not in done.err

    def test_credentials_are_not_included_in_an_image(self, project: Project) -> None:
        """The files of an image are selected by the same rules."""
        project.write("assets/.ssh/id_rsa", "secret")
        project.write("assets/x", "x")
        project.write("setup.sh", "! test -e assets/.ssh && test -e assets/x\n")
        config = project.read("onebox.toml")
        image = '[image]\nsetup = "setup.sh"\ninclude = ["assets"]\n'
        project.write("onebox.toml", config + image)
        done = project.inv("image")

        assert 0 == done.code, done.err
        assert "assets/.ssh" in done.err


class TestOutputsThatAreInputs:
    def test_output_folder_is_pushed_if_it_is_tracked_or_listed(
        self, project: Project
    ) -> None:
        """Git tracks it, or [push] lists it."""
        project.write(
            "onebox.toml",
            '[run]\ncommand = "sh job.sh"\n'
            '[push]\ncode = [".", "given"]\ndata = ["ckpt/"]\n'
            '[fetch]\noutputs = ["results/", "models/", "given/"]\n'
            'checkpoints = ["ckpt/"]\n',
        )
        for name in ("models/base", "models/new", "given/x", "results/old"):
            project.write(name, "1")
        project.write("ckpt/epoch1", "1")
        project.write(".gitignore", "ckpt/\nresults/\n")
        git(project, "init", "-q")
        git(project, "add", "models/base")
        project.write("job.sh", LIST)
        planned = project.inv("plan")
        done = project.inv("run")

        assert 0 == done.code, done.err
        there = set(done.out.split("\n"))
        assert {"./models/base", "./ckpt/epoch1", "./given/x"} < there
        assert not there & {"./models/new", "./results/old"}
        for text in (planned.out, done.err):
            push = [
                line
                for line in text.splitlines()
                if line.startswith("push") and "not pushed" in line
            ]
            assert len(push) == 1, text
            assert "outputs not pushed: results/ (1 file), models/ (1 file)" in push[0]

    @pytest.mark.parametrize("line", ["push", "run"])
    def test_file_changed_by_a_job_is_fetched_before_a_push_overwrites_it(
        self, project: Project, line: str
    ) -> None:
        """The old version here is kept under another name."""
        project.write(
            "onebox.toml",
            '[run]\ncommand = "cat models/m; echo new >models/m"\n'
            '[push]\ndata = ["models/"]\n[fetch]\noutputs = ["models/"]\n',
        )
        project.write("models/m", "old\n")
        assert 0 == project.inv("run", "--detach").code
        assert "old\n" == project.inv("logs").out
        done = project.inv(line)

        assert 0 == done.code, done.err
        assert "new\n" == project.read("models/m")
        assert "old\n" == project.read("models/m~")
        assert done.out == ("new\n" if line == "run" else "")

    def test_no_message_if_an_output_folder_is_absent_or_pushed_whole(
        self, project: Project
    ) -> None:
        """The message is for files that are left out only."""
        git(project, "init", "-q")
        done = project.inv("push", "teardown")

        assert 0 == done.code, done.err
        assert "not pushed" not in done.err


def git(project: Project, *words: str) -> None:
    """Run git in the project, without the settings of any user."""
    environment = {**project.environ, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *words], cwd=project.root, env=environment, check=True)
