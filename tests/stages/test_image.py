"""Images by recipe, by hand and of Python environments, end to end on `local`."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from onebox.boxes.create import create
from onebox.context import BoxContext
from onebox.errors import ProviderError, Unclear
from onebox.images import recipe, snapshot
from onebox.invocation import Invocation
from onebox.providers.base import Box, Image
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from onebox.stages import image as image_stage

from ..conftest import Project
from ..test_terminal import ended, terminal

RECIPE = '[image]\nsetup = "setup.sh"\n[run]\ncommand = "cat ~/made"\n'
LOCKED = Path(__file__).with_name("locked")
SETUP = "echo setting up; echo made by $0 >~/made; printf 'no newline'\n"


@pytest.fixture
def built(project: Project) -> Project:
    """A project whose image has been built."""
    project.write("onebox.toml", RECIPE)
    project.write("setup.sh", SETUP)
    done = project.inv("image")
    assert 0 == done.code, done.err
    return project


def images(project: Project) -> list[Path]:
    """Return what lies on the shelf, oldest first."""
    found = (project.home / "local" / "images").glob("oi-*")
    return sorted(found, key=lambda path: path.stat().st_mtime)


def memory(project: Project) -> Path:
    """Return the file in which the recipe's inputs are remembered."""
    (path,) = (project.home / "state").glob("projects/*/main/recipe.json")
    return path


def opened(project: Project, monkeypatch: pytest.MonkeyPatch) -> BoxContext:
    """Return a session as `inv image` has it."""
    for name, value in project.environ.items():
        monkeypatch.setenv(name, value)
    return BoxContext.open(
        str(project.root), project.environ, {}, Invocation("inv image")
    )


class TestRecipe:
    def test_every_step_is_seen(self, project: Project) -> None:
        """
        The script's output comes live to stderr, between steps that are timed; the
        log is kept, and nothing of the builder is.
        """
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", SETUP)
        done = project.inv("image")

        assert (0, "") == (done.code, done.out)
        lines = [line.strip() for line in done.err.splitlines()]
        said = [line.split()[0] for line in lines if " ✓ " in line]
        assert ["boot", "push", "setup", "clean", "save", "image"] == said
        assert lines.index("setting up") < lines.index("no newline")
        assert re.match(
            r"setup +✓ [0-9.]+ s +setup.sh$", lines[lines.index("no newline") + 1]
        )
        (log,) = project.root.glob(".onebox/images/*.log")
        assert "setting up\nno newline\n" == log.read_text()
        assert [] == project.boxes()

    def test_up_to_date(self, built: Project) -> None:
        """
        A second `inv image` makes nothing.
        """
        folder = built.home / "local" / "boxes"
        before = folder.stat().st_mtime_ns
        for name in ("image", "plan"):
            done = built.inv(name)
            assert "up to date  setup.sh unchanged" in done.err + done.out

        assert before == folder.stat().st_mtime_ns
        assert 1 == len(images(built))

    def test_what_has_changed(self, built: Project) -> None:
        """
        `plan` says which input is another one; and what is in the provider counts,
        whatever is remembered here.
        """

        def plan() -> str:
            return built.inv("plan").out.splitlines()[0]

        built.write("more/requirements.txt", "x\n")
        built.write(
            "onebox.toml", RECIPE.replace("setup =", 'include = ["more"]\nsetup =')
        )
        assert "more/requirements.txt changed" in plan()
        built.write("onebox.toml", RECIPE.replace("setup =", 'env = {A="b"}\nsetup ='))
        assert "[image] env changed" in plan()
        built.write("onebox.toml", RECIPE)
        built.write("setup.sh", SETUP + "true\n")
        assert "setup.sh changed" in plan()
        (built.root / "setup.sh").chmod(0o755)
        assert "setup.sh changed" in plan()
        (built.root / "setup.sh").chmod(0o644)
        built.write("setup.sh", SETUP)
        assert "up to date" in plan()

        shutil.rmtree(built.home / "state")
        assert "up to date" in plan()
        assert "up to date" in built.inv("image").err
        known = json.loads(memory(built).read_text())
        for path in images(built):
            shutil.rmtree(path)
        assert "the image is gone" in plan()
        memory(built).write_text(json.dumps({**known, "base": "an older one"}))
        assert "base has a newer build" in plan()

    def test_failure(self, project: Project) -> None:
        """
        A failed set-up says so with its exit code; --keep leaves the builder, with
        the way to it and its price, until the next `inv image`.
        """
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", "echo last words; exit 3\n")
        done = project.inv("image", "--keep")

        assert 70 == done.code
        assert "last words" in done.err
        assert "setup.sh failed with exit 3" in done.err
        assert re.search(r"the builder ob-\w+ is kept: no charge, off at", done.err)
        (box,) = project.boxes()
        (config,) = re.findall(rf"ssh -F (\S+) {box}", done.err)
        assert Path(config).is_file()
        assert [] == images(project)

        project.write("setup.sh", SETUP)
        again = project.inv("image")
        assert 0 == again.code
        assert f"removing {box}, the builder that --keep has kept" in again.err
        assert "was interrupted" not in again.err
        assert [] == project.boxes()

    def test_interrupted(self, project: Project) -> None:
        """
        Ctrl-C in a set-up leaves neither builder nor image.
        """
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", "echo here; sleep 60\n")
        process = project.start("image")
        project.until("here\n")
        process.send_signal(signal.SIGINT)

        assert 130 == process.wait(60)
        assert ([], []) == (project.boxes(), images(project))

    def test_histories_and_caches_stay_away(self, project: Project) -> None:
        """
        What the set-up typed and downloaded is not in the image; what looks like a
        secret in it is named.
        """
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
        (image,) = images(project)
        names = {str(p.relative_to(image / "home")) for p in image.rglob("home/**/*")}
        assert {"made", ".aws", ".aws/credentials"} <= names
        assert not any("history" in n or "pip" in n or ".ssh" in n for n in names)


class TestCrash:
    def test_a_save_is_found_again(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A save that a crash has interrupted is gone on with by the next command,
        from the box that is still there; nothing is built twice.
        """
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", "exit 1  # never to be run\n")
        context = opened(project, monkeypatch)
        box = create(context, kind="builder", image=None)
        context.provider.stop(box)
        image = _killed_in_save(context, box)

        done = project.inv("image")
        assert 0 == done.code, done.err
        assert "interrupted while it saved x" in done.err
        assert "up to date" in done.err
        assert [image.id] == [path.name for path in images(project)]
        assert [] == project.boxes()
        assert not context.store.open_intents()

    def test_a_save_that_cannot_be_gone_on_with(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Without its box a half-saved image is removed, and built anew.
        """
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", SETUP)
        context = opened(project, monkeypatch)
        box = create(context, kind="builder", image=None)
        context.provider.delete(box)
        image = _killed_in_save(context, box)

        done = project.inv("image")
        assert 0 == done.code, done.err
        assert "built" in done.err
        (path,) = images(project)
        assert image.id != path.name

    @pytest.mark.parametrize("unclear", [2, 9])
    def test_no_clear_answer(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, unclear: int
    ) -> None:
        """
        A save of which nobody knows is asked for again; if that never ends nothing
        is removed that may be whole, and the next command goes on.
        """
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", SETUP)
        context = opened(project, monkeypatch)
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
        assert 1 == len(images(project))
        assert [] == project.boxes()

    def test_a_save_that_fails(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A save that is refused leaves neither image, builder nor intent.
        """
        project.write("onebox.toml", RECIPE)
        project.write("setup.sh", SETUP)
        context = opened(project, monkeypatch)
        context.use_provider(SlowToSave(LocalSettings(), project.home / "local"))
        with pytest.raises(ProviderError, match="no room"):
            image_stage.perform(context)

        assert ([], []) == (project.boxes(), images(project))
        assert not context.store.open_intents()


class SlowToSave(Local):
    """Saves, but does not know it for so many times; with -1 it refuses."""

    unclear = -1

    def save(self, box: Box, image: Image) -> Image:
        """Save the box, perhaps."""
        saved = super().save(box, image)
        if self.unclear < 0:
            raise ProviderError("there is no room")
        if self.unclear:
            self.unclear -= 1
            raise Unclear("nobody knows")
        return saved


def _killed_in_save(context: BoxContext, box: Box) -> Image:
    """Leave the journal as a command does that is killed while it saves a builder."""
    found = recipe.inputs(context)
    digest = recipe.digest(found)
    image = snapshot.new_image(
        context, box.tags, "x", "", recipe=digest, base=found["base"]
    )
    with pytest.raises(KeyboardInterrupt):
        with snapshot.save_intent(context, box, image, found):
            raise KeyboardInterrupt
    return image


class TestByHand:
    def test_a_living_box(self, project: Project) -> None:
        """
        The box goes on with its jobs' outputs; files that look like secrets are
        named, and without a terminal nobody is asked.
        """
        project.write(
            "onebox.toml", '[run]\ncommand = "mkdir results; echo 1 >results/x"'
        )
        assert 0 == project.inv("provision", "push").code
        assert 0 == project.inv("run", "--only").code
        project.inv("ssh", "--", "mkdir .aws; echo x > .aws/credentials; echo x > note")
        done = project.inv("image", "--from-box", "--as=geo")

        assert 0 == done.code, done.err
        assert "secrets: ~/.aws/credentials" in done.err
        assert "x\n" == project.inv("ssh", "--", "cat note").out
        assert 0 == project.inv("fetch").code
        assert "1\n" == project.read("results/x")
        listed = project.inv("image", "--list").out.splitlines()[1].split("\t")
        assert ("geo", "by hand", "-") == (listed[0], listed[6], listed[7])

    def test_somebody_is_asked(self, project: Project) -> None:
        """
        At a terminal an image with what looks like a secret takes a yes.
        """
        project.inv("provision")
        project.inv("ssh", "--", "echo x >.netrc; echo x >.env")
        words = ("image", "--from-box", "--as=geo")
        with terminal(project, *words) as child:
            child.expect_exact("~/.env, ~/.netrc")
            child.expect_exact("Type yes")
            child.sendline("no")
            assert 64 == ended(child)
        assert [] == images(project)
        with terminal(project, *words) as child:
            child.expect_exact("Type yes")
            child.sendline("yes")
            assert 0 == ended(child)
        with terminal(project, *words, "--yes") as child:
            assert 0 == ended(child)
        assert 2 == len(images(project))

    def test_another_architecture(self, project: Project) -> None:
        """
        An image for another architecture than the box's is refused before launch.
        """
        project.inv("provision")
        project.inv("image", "--from-box", "--as=geo")
        project.inv("teardown")
        (path,) = images(project)
        told = json.loads((path / "image.json").read_text())
        (path / "image.json").write_text(json.dumps({**told, "arch": "riscv64"}))
        project.write("onebox.toml", '[image]\nuse = "geo"\n[run]\ncommand = "true"\n')

        for line in (("plan",), ("run",)):
            done = project.inv(*line)
            assert 64 == done.code
            assert "image geo is for riscv64, and this machine is" in done.err
        assert [] == project.boxes()


class TestShelf:
    def test_an_older_one_goes_when_the_new_one_boots(self, built: Project) -> None:
        """
        The image that a new one replaces stays until a box made from that answers.
        """
        (old,) = images(built)
        built.write("setup.sh", SETUP + "true\n")
        assert 0 == built.inv("image").code
        assert 2 == len(images(built))
        done = built.inv("run")

        assert f"{old.name}: removed" in done.err
        assert "made by ./setup.sh\n" == done.out
        (new,) = images(built)
        assert old != new

    def test_prune(self, built: Project) -> None:
        """
        Pruning takes what nothing asks for: not the recipe's own image, not what
        a box was made from, not what was saved by hand, and nothing unasked.
        """
        built.inv("provision")
        built.inv("image", "--from-box", "--as=geo")
        used, geo = images(built)
        listed = built.inv("image", "--list").out
        assert re.search(rf"{used.name}\t.*\tcensus\S*/main\n", listed)
        built.write("setup.sh", SETUP + "true\n")
        assert 0 == built.inv("image").code
        built.write("setup.sh", SETUP + "true; true\n")
        assert 0 == built.inv("image").code
        *_, middle, newest = images(built)

        done = built.inv("image", "--prune")
        assert 64 == done.code
        assert f"{middle.name}  " in done.out and newest.name not in done.out
        assert 4 == len(images(built))
        assert 0 == built.inv("image", "--prune", "--yes").code
        assert [used, geo, newest] == images(built)
        assert 0 == built.inv("image", "--prune", "--as=geo", "--yes").code
        assert [used, newest] == images(built)
        assert "no image to remove" in built.inv("image", "--prune", "--yes").out
        assert 64 == built.inv("image", "--prune", "--as=nothing").code


class TestPython:
    RUN = "[run]\ncommand = \"python -c 'import six, sys; print(six.__version__)'\"\n"

    @pytest.fixture
    def index(self) -> None:
        """The package index, if it answers."""
        try:
            urllib.request.urlopen("https://pypi.org/simple/six/", timeout=20).close()
        except (urllib.error.URLError, OSError) as error:
            pytest.skip(f"no package index answers: {error}")

    @pytest.mark.usefixtures("index")
    def test_requirements(self, project: Project) -> None:
        """
        A list of requirements, and what it leads to, is there without activation.
        """
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
    def test_lock_after_a_set_up(self, project: Project) -> None:
        """
        A lock file is installed as it stands, after the set-up script, with the
        Python that was asked for.
        """
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

    def test_failure(self, project: Project) -> None:
        """
        What uv refuses is an error with the words that it has for it.
        """
        project.write("onebox.toml", '[image]\nrequirements = "r.txt"\n' + self.RUN)
        project.write("r.txt", "not a requirement!\n")
        done = project.inv("image")

        assert 70 == done.code
        assert "r.txt failed with exit" in done.err
