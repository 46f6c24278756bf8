"""Images from recipes, from boxes and of Python environments, with `inv` on `local`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from onebox.boxes.create import create
from onebox.context import BoxContext
from onebox.errors import ProviderError, Unclear
from onebox.images import recipe, snapshot
from onebox.invocation import Invocation
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from onebox.providers.values import Box, Image, SaveProgress, ignore_progress
from onebox.stages import image as image_stage
from tests.conftest import Project
from tests.system.test_terminal import exit_code, start_in_terminal

RECIPE = '[image]\nsetup = "setup.sh"\n[run]\ncommand = "cat ~/made"\n'
LOCKED = Path(__file__).with_name("locked")
SETUP = "echo setting up; echo made by $0 >~/made; printf 'no newline'\n"


@pytest.fixture
def built_project(project: Project) -> Project:
    """A project whose image has been built."""
    project.write("onebox.toml", RECIPE)
    project.write("setup.sh", SETUP)
    done = project.inv("image")
    assert 0 == done.code, done.err
    return project


def test_missing_program_in_the_middle_of_the_script_is_named(project: Project) -> None:
    """Without `set -e` the script goes on, and the image is built without it."""
    project.write("onebox.toml", RECIPE)
    project.write(
        "setup.sh", "true\nnosuchcmd -y\necho other: line 3: x: command not found\n"
    )
    done = project.inv("image")

    assert 0 == done.code, done.err
    (warning,) = [line for line in done.err.splitlines() if "the script went" in line]
    assert "setup.sh: line 2: nosuchcmd: command not found; the script" in warning
    project.write("setup.sh", "set -e\n" + project.read("setup.sh"))
    assert 70 == project.inv("image").code
    project.write("setup.sh", "nosuchcmd 2>/dev/null || true\n")
    done = project.inv("image")
    assert (0, False) == (done.code, "the script went on" in done.err)


def image_files(project: Project) -> list[Path]:
    """Return the stored images, oldest first."""
    found = (project.home / "local" / "images").glob("oi-*")
    return sorted(found, key=lambda path: path.stat().st_mtime)


def recipe_file(project: Project) -> Path:
    """Return the file with the remembered inputs of the recipe."""
    (path,) = (project.home / "state").glob("projects/*/main/recipe.json")
    return path


def open_context(project: Project, monkeypatch: pytest.MonkeyPatch) -> BoxContext:
    """Return a context like that of `inv image`."""
    for name, value in project.environ.items():
        monkeypatch.setenv(name, value)
    return BoxContext.open(
        str(project.root), project.environ, {}, Invocation("inv image")
    )


class TestRecipe:
    def test_build_shows_every_step_and_keeps_its_log(self, project: Project) -> None:
        """
        The script's output is shown live on stderr, between timed steps. The
        builder is deleted, and the log stays.
        """
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", SETUP)
        done = project.inv("image")

        assert (0, "") == (done.code, done.out)
        lines = [line.strip() for line in done.err.splitlines()]
        printed = [line.split()[0] for line in lines if " ✓ " in line]
        assert ["boot", "push", "setup", "clean", "save", "image"] == printed
        assert lines.index("setting up") < lines.index("no newline")
        assert re.match(
            r"setup +✓ [0-9.]+ s +setup.sh$", lines[lines.index("no newline") + 1]
        )
        (log,) = project.root.glob(".onebox/images/*.log")
        assert "setting up\nno newline\n" == log.read_text()
        assert [] == project.boxes()

    def test_second_image_command_builds_nothing(self, built_project: Project) -> None:
        """The image is up to date."""
        folder = built_project.home / "local" / "boxes"
        before = folder.stat().st_mtime_ns
        for name in ("image", "plan"):
            done = built_project.inv(name)
            assert "up to date  setup.sh unchanged" in done.err + done.out

        assert before == folder.stat().st_mtime_ns
        assert 1 == len(image_files(built_project))

    def test_plan_names_the_changed_input_of_a_recipe(
        self, built_project: Project
    ) -> None:
        """The images at the provider count, whatever is remembered here."""

        def plan() -> str:
            lines = built_project.inv("plan").out.splitlines()
            return next(line for line in lines if line.startswith("image"))

        built_project.write("more/requirements.txt", "x\n")
        built_project.write(
            "onebox.toml", RECIPE.replace("setup =", 'include = ["more"]\nsetup =')
        )
        assert "more/requirements.txt changed" in plan()
        built_project.write(
            "onebox.toml", RECIPE.replace("setup =", 'env = {A="b"}\nsetup =')
        )
        assert "[image] env changed" in plan()
        built_project.write("onebox.toml", RECIPE)
        built_project.write("setup.sh", SETUP + "true\n")
        assert "setup.sh changed" in plan()
        (built_project.root / "setup.sh").chmod(0o755)
        assert "setup.sh changed" in plan()
        (built_project.root / "setup.sh").chmod(0o644)
        built_project.write("setup.sh", SETUP)
        assert "up to date" in plan()

        shutil.rmtree(built_project.home / "state")
        assert "up to date" in plan()
        assert "up to date" in built_project.inv("image").err
        known = json.loads(recipe_file(built_project).read_text())
        for path in image_files(built_project):
            shutil.rmtree(path)
        assert "the image is gone" in plan()
        recipe_file(built_project).write_text(
            json.dumps({**known, "base": "an older one"})
        )
        assert "base has a newer build" in plan()

    def test_failed_set_up_exits_with_its_code(self, project: Project) -> None:
        """
        With --keep the builder stays, with the command to reach it and its
        price, until the next `inv image`.
        """
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", "echo last words; exit 3\n")
        done = project.inv("image", "--keep")

        assert 70 == done.code
        assert "last words" in done.err
        assert "setup.sh failed with exit 3" in done.err
        kept = r"the builder ob-\w+ is kept: no charge, powers itself off in"
        assert re.search(kept, done.err)
        (box,) = project.boxes()
        (config,) = re.findall(rf"ssh -F (\S+) {box}", done.err)
        assert Path(config).is_file()
        assert [] == image_files(project)

        project.write("setup.sh", SETUP)
        again = project.inv("image")
        assert 0 == again.code
        assert f"removing {box}, the builder that --keep has kept" in again.err
        assert "was interrupted" not in again.err
        assert [] == project.boxes()

    def test_ctrl_c_in_a_set_up_leaves_neither_builder_nor_image(
        self, project: Project
    ) -> None:
        """Ctrl-C in the set-up deletes the builder, and no image is saved."""
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", "echo here; sleep 60\n")
        process = project.start("image")
        project.until("here\n")
        process.send_signal(signal.SIGINT)

        assert 130 == process.wait(60)
        assert ([], []) == (project.boxes(), image_files(project))

    def test_fetch_without_a_box_lets_teardown_remove_a_builder(
        self, project: Project
    ) -> None:
        """A killed build leaves its builder; `fetch` alone has nothing to fetch."""
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", "echo here; sleep 60\n")
        process = project.start("run")
        project.until("here\n")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        assert 1 == len(project.boxes())
        alone = project.inv("fetch")
        assert 64 == alone.code
        assert "there is no box" in alone.err

        done = project.inv("fetch", "teardown")

        assert 0 == done.code, done.err
        assert "nothing to do  there is no box census" in done.err
        assert [] == project.boxes()

    def test_image_has_no_shell_history_and_no_caches(self, project: Project) -> None:
        """Files that look like secrets are named."""
        project.write("onebox.toml", RECIPE)
        project.write(
            "setup.sh",
            "mkdir -p ~/.cache/pip ~/.aws ~/.docker; echo x >~/.cache/pip/x\n"
            "echo x >~/.bash_history; echo x >~/.aws/credentials; echo kept >~/made\n"
            "echo '{}' >~/.docker/config.json\n"
            "mkdir -p ~/.ssh; echo x >~/.ssh/id_rsa\n",
        )
        done = project.inv("image")

        assert "looks like secrets: ~/.aws/credentials\n" in done.err
        (image,) = image_files(project)
        names = {str(p.relative_to(image / "home")) for p in image.rglob("home/**/*")}
        assert {"made", ".aws", ".aws/credentials"} <= names
        assert not any("history" in n or "pip" in n or ".ssh" in n for n in names)


class TestCrash:
    def test_interrupted_save_is_continued_by_the_next_command(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The box still exists, and nothing is built twice."""
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", "exit 1  # never to be run\n")
        context = open_context(project, monkeypatch)
        box = create(context, kind="builder", image=None)
        context.provider.stop(box)
        image = leave_intent_of_a_killed_save(context, box)

        done = project.inv("image")
        assert 0 == done.code, done.err
        assert "interrupted while it saved x" in done.err
        assert "up to date" in done.err
        assert [image.id] == [path.name for path in image_files(project)]
        assert [] == project.boxes()
        assert not context.store.open_intents()

    def test_interrupted_save_without_its_box_is_built_again(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The partial image is deleted."""
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", SETUP)
        context = open_context(project, monkeypatch)
        box = create(context, kind="builder", image=None)
        context.provider.delete(box)
        image = leave_intent_of_a_killed_save(context, box)

        done = project.inv("image")
        assert 0 == done.code, done.err
        assert "built" in done.err
        (path,) = image_files(project)
        assert image.id != path.name

    @pytest.mark.parametrize("unclear", [2, 9])
    def test_save_with_an_unknown_result_is_checked_again(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, unclear: int
    ) -> None:
        """
        If the result stays unknown, nothing is deleted, and the next command
        continues.
        """
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", SETUP)
        context = open_context(project, monkeypatch)
        slow = SlowToSave(LocalSettings(), project.home / "local")
        context.use_provider(slow)
        slow.unclear = unclear
        if unclear < 4:
            image_stage.perform(context)
        else:
            with pytest.raises(Unclear):
                image_stage.perform(context)
            assert ["save"] == [i.action for i in context.store.open_intents()]
            assert 1 == len(project.boxes())
        context.store.unlock()

        done = project.inv("image")
        assert 0 == done.code, done.err
        assert "up to date" in done.err
        assert 1 == len(image_files(project))
        assert [] == project.boxes()

    def test_refused_save_leaves_neither_image_builder_nor_intent(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A save that the provider refuses is undone completely."""
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", SETUP)
        context = open_context(project, monkeypatch)
        context.use_provider(SlowToSave(LocalSettings(), project.home / "local"))
        with pytest.raises(ProviderError, match="no room"):
            image_stage.perform(context)

        assert ([], []) == (project.boxes(), image_files(project))
        assert not context.store.open_intents()


class SlowToSave(Local):
    """
    A provider that does not know the image for a number of calls; with -1 it
    refuses.
    """

    unclear = -1

    def save(
        self, box: Box, image: Image, progress: SaveProgress = ignore_progress
    ) -> Image:
        """Save the box, if the number of calls is reached."""
        saved = super().save(box, image, progress)
        if self.unclear < 0:
            raise ProviderError("there is no room")
        if self.unclear:
            self.unclear -= 1
            raise Unclear("the result is unknown")
        return saved


def leave_intent_of_a_killed_save(context: BoxContext, box: Box) -> Image:
    """
    Write the intent that a command leaves if it is killed while it saves a builder.
    """
    found = recipe.inputs(context)
    digest = recipe.digest(found)
    image = snapshot.new_image(
        context, box.tags, "x", "", recipe=digest, base=found["base"]
    )
    with pytest.raises(KeyboardInterrupt):
        with snapshot.save_intent(context, box, image, found):
            raise KeyboardInterrupt
    return image


class TestBoxSetUpByHand:
    def test_saved_box_continues_with_its_outputs(self, project: Project) -> None:
        """
        Files that look like secrets are named; without a terminal no question
        is asked.
        """
        project.write(
            "onebox.toml", '[run]\ncommand = "mkdir results; echo 1 >results/x"'
        )
        assert 0 == project.inv("provision", "push").code
        assert 0 == project.inv("run", "--only").code
        project.inv(
            "ssh", "--", "cd; mkdir .aws; echo x > .aws/credentials; echo x > note"
        )
        done = project.inv("image", "--from-box", "--as=geo")

        assert 0 == done.code, done.err
        assert "secrets: ~/.aws/credentials" in done.err
        assert "x\n" == project.inv("ssh", "--", "cat ~/note").out
        assert 0 == project.inv("fetch").code
        assert "1\n" == project.read("results/x")
        listed = project.inv("image", "--list").out.splitlines()[1].split("\t")
        assert ("geo", "by hand", "-") == (listed[0], listed[6], listed[7])

    def test_terminal_asks_before_an_image_with_a_possible_secret_is_saved(
        self, project: Project
    ) -> None:
        """Such an image is saved only if the user answers yes."""
        project.inv("provision")
        project.inv("ssh", "--", "cd; echo x >.netrc; echo x >.env")
        words = ("image", "--from-box", "--as=geo")
        with start_in_terminal(project, *words) as child:
            child.expect_exact("~/.env, ~/.netrc")
            child.expect_exact("Type yes")
            child.sendline("no")
            assert 64 == exit_code(child)
        assert [] == image_files(project)
        with start_in_terminal(project, *words) as child:
            child.expect_exact("Type yes")
            child.sendline("yes")
            assert 0 == exit_code(child)
        with start_in_terminal(project, *words, "--yes") as child:
            assert 0 == exit_code(child)
        assert 2 == len(image_files(project))

    def test_image_of_another_architecture_is_refused_before_the_launch(
        self, project: Project
    ) -> None:
        """The image and the box must have the same architecture."""
        project.inv("provision")
        project.inv("image", "--from-box", "--as=geo")
        project.inv("teardown")
        (path,) = image_files(project)
        data = json.loads((path / "image.json").read_text())
        (path / "image.json").write_text(json.dumps({**data, "arch": "riscv64"}))
        project.write("onebox.toml", '[image]\nuse = "geo"\n[run]\ncommand = "true"\n')

        for line in (("plan",), ("run",)):
            done = project.inv(*line)
            assert 64 == done.code
            assert "image geo is for riscv64, and this machine is" in done.err
        assert [] == project.boxes()


class TestSavedImages:
    def test_replaced_image_is_deleted_once_a_box_from_the_new_one_answers(
        self, built_project: Project
    ) -> None:
        """Until then the old image stays."""
        (old,) = image_files(built_project)
        built_project.write("setup.sh", SETUP + "true\n")
        assert 0 == built_project.inv("image").code
        assert 2 == len(image_files(built_project))
        done = built_project.inv("run")

        assert f"{old.name}: removed" in done.err
        assert "made by ./setup.sh\n" == done.out
        (new,) = image_files(built_project)
        assert old != new

    def test_prune_deletes_only_images_that_nothing_needs(
        self, built_project: Project
    ) -> None:
        """
        The recipe's image, images of boxes and images saved by hand stay, and
        nothing is deleted without --yes.
        """
        built_project.inv("provision")
        built_project.inv("image", "--from-box", "--as=geo")
        used, geo = image_files(built_project)
        listed = built_project.inv("image", "--list").out
        assert re.search(rf"{used.name}\t.*\tcensus\S*/main\n", listed)
        built_project.write("setup.sh", SETUP + "true\n")
        assert 0 == built_project.inv("image").code
        built_project.write("setup.sh", SETUP + "true; true\n")
        assert 0 == built_project.inv("image").code
        *_, middle, newest = image_files(built_project)

        done = built_project.inv("image", "--prune")
        assert 64 == done.code
        assert f"{middle.name}  " in done.out and newest.name not in done.out
        assert 4 == len(image_files(built_project))
        assert 0 == built_project.inv("image", "--prune", "--yes").code
        assert [used, geo, newest] == image_files(built_project)
        assert 0 == built_project.inv("image", "--prune", "--as=geo", "--yes").code
        assert [used, newest] == image_files(built_project)
        assert (
            "no image to remove" in built_project.inv("image", "--prune", "--yes").out
        )
        assert 64 == built_project.inv("image", "--prune", "--as=nothing").code


class TestPython:
    RUN = "[run]\ncommand = \"python -c 'import six, sys; print(six.__version__)'\"\n"

    @pytest.mark.usefixtures("index")
    def test_requirements_are_installed_without_activation(
        self, project: Project
    ) -> None:
        """The listed packages and their dependencies can be imported at once."""
        project.write(
            "onebox.toml", '[image]\nrequirements = "needs/all.txt"\n' + self.RUN
        )
        project.write("needs/all.txt", "-r six.txt\n")
        project.write("needs/six.txt", "six==1.16.0\n")
        done = project.inv("run")

        assert (0, "1.16.0\n") == (done.code, done.out), done.err
        assert re.search(r"python +✓ .* needs/all.txt\n", done.err)
        project.write("needs/six.txt", "six==1.17.0\n")
        assert "needs/six.txt changed" in project.inv("plan").out

    @pytest.mark.usefixtures("index")
    def test_lock_file_is_installed_unchanged_after_the_set_up(
        self, project: Project
    ) -> None:
        """The requested Python version is used."""
        python = "{}.{}".format(*sys.version_info)
        project.write(
            "onebox.toml",
            f'[image]\nsetup = "setup.sh"\npython = "{python}"\n'
            'requirements = "uv.lock"\n' + self.RUN,
        )
        project.write("setup.sh", "echo first\n")
        project.write("uv.lock", (LOCKED / "uv.lock").read_text())
        missing = project.inv("image")
        assert (66, True) == (
            missing.code,
            "pyproject.toml does not exist" in missing.err,
        )
        project.write("pyproject.toml", (LOCKED / "pyproject.toml").read_text())
        done = project.inv("run")

        assert (0, "1.16.0\n") == (done.code, done.out), done.err
        assert done.err.index("first\n") < done.err.index("six==1.16.0")

    def test_error_of_uv_is_shown_in_its_own_words(self, project: Project) -> None:
        """The build fails with uv's message."""
        project.write("onebox.toml", '[image]\nrequirements = "r.txt"\n' + self.RUN)
        project.write("r.txt", "not a requirement!\n")
        done = project.inv("image")

        assert 70 == done.code
        assert "r.txt failed with exit" in done.err
