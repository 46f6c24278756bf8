"""Build an image on a box of its own: boot, push, set up, clean, save, gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from onebox import formatting
from onebox.boxes import bring_up, lifecycle
from onebox.errors import BoxFailed, OneboxError
from onebox.images import catalog, python_env, recipe, sanitize, snapshot
from onebox.jobs import client
from onebox.providers.base import Box, Image
from onebox.remote.answers import Hello
from onebox.remote.channel import AgentChannel
from onebox.store.atomic_files import private_dir
from onebox.transfer import push_files
from onebox.ui.progress import StageLine

if TYPE_CHECKING:
    from onebox.context import BoxContext

T = TypeVar("T")

# A set-up talks at once, and nobody answers its questions.
QUIET = {"PYTHONUNBUFFERED": "1", "DEBIAN_FRONTEND": "noninteractive"}
# How often files are pushed again because they change meanwhile.
PASSES = 5


class Builder:
    """
    A builder box at work: what is done on it is shown, timed and logged.

    Attributes:
        box: The builder.

        inputs: What the recipe is made of, as it was pushed.

        spent: How long each step has taken, in seconds.
    """

    def __init__(
        self, context: BoxContext, box: Box, inputs: Mapping[str, str], log: Log
    ) -> None:
        self.context = context
        self.box = box
        self.inputs = inputs
        self.log = log
        self.spent: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[StageLine]:
        """Show a step while it is under way, and how long it took."""
        began = time.monotonic()
        try:
            with self.context.screen.stage(f"  {name}") as line:
                yield line
        finally:
            self.spent[name] = time.monotonic() - began

    def boot(self) -> None:
        """Wait until the builder lets us in."""
        minutes = self.context.settings.limits.boot_minutes
        size = self.box.offer
        with self.step("boot") as line:
            self.box = bring_up.wait(self.context, self.box, minutes * 60, line.doing)
            line.doing("waiting for its first boot to end")
            on_box(self.context, self.box, sanitize.prepare)
            about = f"{self.box.id}, {size.type}, {formatting.rate(size.hourly)}"
            line.end("", about)

    def push(self) -> None:
        """Bring the recipe's files to the box; what counts is what is there then."""
        context = self.context
        with self.step("push") as line:
            for _ in range(PASSES):
                self.inputs = recipe.inputs(context)
                context.resuming(lambda channel: self._push(channel, line), self.box)
                if recipe.inputs(context) == self.inputs:
                    break
            line.end("", formatting.count(len(recipe.files(context)), "file"))

    def run(
        self,
        name: str,
        what: str,
        *,
        argv: Sequence[str] | None = None,
        line: str | None = None,
    ) -> None:
        """
        Run a command on the box, its output passed on as it comes.

        Raises:
            BoxFailed: Its exit code was not 0.
        """
        context, began = self.context, time.monotonic()
        part = self.log.path.with_suffix(f".{name}")
        part.unlink(missing_ok=True)
        try:
            record = client.run(
                context,
                self.box,
                job_id=f"image-{name}-{recipe.digest(self.inputs)}",
                argv=argv,
                line=line,
                env={**QUIET, **context.settings.image.env},
                log=part,
                output=self.log.add,
                sample=lambda now: self.log.footer(name, began),
            )
        finally:
            self.log.close_line()
            part.unlink(missing_ok=True)
            self.spent[name] = time.monotonic() - began
        lasted = formatting.seconds(self.spent[name])
        if not record.code:
            context.screen.line(f"  {name}", "done", lasted, what)
            return
        context.screen.line(f"  {name}", "failed", lasted, f"exit {record.code}")
        raise self.log.failure(f"{what} failed with exit {record.code}")

    def save(self, name: str) -> Image:
        """Clean the box, stop it and save its disk."""
        context = self.context
        hello: Hello = context.resuming(
            lambda channel: Hello.parse(channel.ask("hello")), self.box
        )
        with self.step("clean") as line:
            warn_of_secrets(context, self.box)
            on_box(context, self.box, partial(sanitize.clean, living=False))
            context.forget_connection()
            line.doing(f"stopping {self.box.id}")
            context.provider.stop(self.box)
            line.end("", sanitize.said(system=context.provider.own_system))
        with self.step("save") as line:
            line.doing("saving the disk")
            image = snapshot.new_image(
                context,
                self.box.tags,
                name,
                hello.arch,
                recipe=recipe.digest(self.inputs),
                base=self.inputs["base"],
            )
            saved = snapshot.save(context, self.box, image, self.inputs)
            line.end("", f"{saved.id}, {catalog.size(saved)}")
        return saved

    def _push(self, channel: AgentChannel, line: StageLine) -> None:
        context = self.context
        index = self.log.path.with_suffix(".index")
        paths = recipe.files(context)
        push_files.push(channel, context.root, paths, index, line.progress)


class Log:
    """What a build says: on the screen, and in a file that is kept."""

    def __init__(self, context: BoxContext, path: Path) -> None:
        self.path = path
        self._screen = context.screen
        self._open = False
        self._file: IO[bytes] = path.open("wb")

    def add(self, data: bytes) -> None:
        """Take what was said, as bytes."""
        if data:
            self._file.write(data)
            self._file.flush()
            self._screen.setup_output(data)
            self._open = not data.endswith(b"\n")

    def footer(self, name: str, began: float) -> None:
        """Say below the output that work goes on, unless a line is open."""
        if not self._open:
            lasted = formatting.seconds(time.monotonic() - began)
            self._screen.footer(f"  {name:<8} {lasted}")

    def close_line(self) -> None:
        """End the line that was left open."""
        self._screen.clear_footer()
        if self._open:
            self.add(b"\n")

    def failure(self, text: str) -> BoxFailed:
        """Return the error of a step that failed: its last lines stand above."""
        return BoxFailed(
            f"{text} (all of its output: {formatting.path(str(self.path))})",
            next="mend it and run the same command again; --keep leaves the builder up",
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def build(
    context: BoxContext, why: str, work: Callable[[Builder], None] | None = None
) -> Image:
    """
    Build today's recipe on a builder box and return the image.

    Args:
        why: The reason for it, for the last line.

        work: What is done on the box, instead of set-up and Python.
    """
    began = time.monotonic()
    try:
        with _bench(context) as bench:
            bench.boot()
            bench.push()
            (work or _set_up)(bench)
            image = bench.save(context.settings.project)
    except BaseException:
        lasted = formatting.seconds(time.monotonic() - began)
        context.screen.line("image", "failed", lasted, why)
        raise
    lasted = formatting.seconds(time.monotonic() - began)
    detail = f"built: {why}; {catalog.size(image)}"
    context.screen.line("image", "done", lasted, detail)
    return image


def open_log(context: BoxContext, inputs: Mapping[str, str]) -> Log:
    """Begin the log of a build; it is kept below .onebox."""
    folder = private_dir(context.local_dir / "images")
    return Log(context, folder / f"{recipe.digest(inputs)}.log")


def on_box(context: BoxContext, box: Box, step: Callable[..., T]) -> T:
    """Do a step of cleaning over the box's door; again if the connection breaks."""
    system = context.provider.own_system
    done: T = context.resuming(
        lambda channel: step(context.ssh(box), system=system), box
    )
    return done


def warn_of_secrets(context: BoxContext, box: Box) -> bool:
    """Name the files on a box that look like secrets; tell whether there are any."""
    found = on_box(context, box, sanitize.secrets)
    if found:
        names = formatting.some([formatting.path(name) for name in found], 10)
        context.screen.warn(f"the image will hold what looks like secrets: {names}")
    return bool(found)


def _set_up(bench: Builder) -> None:
    image = bench.context.settings.image
    if image.setup:
        bench.run("setup", image.setup, argv=["bash", f"./{image.setup}"])
    if python_env.wanted(image):
        bench.run("python", python_env.title(image), argv=python_env.argv(image))


@contextmanager
def _bench(context: BoxContext) -> Iterator[Builder]:
    """Give a builder box; it is gone afterwards, unless kept after a failure."""
    inputs = recipe.inputs(context)
    log = open_log(context, inputs)
    try:
        box = lifecycle.create(context, kind="builder", image=None)
        bench = Builder(context, box, inputs, log)
        try:
            yield bench
        except OneboxError as error:
            if snapshot.is_open(context):
                error.running = (
                    f"the builder {box.id} is off and stays: the next inv image goes on"
                )
            elif context.line.keep or context.line.keep_builder:
                error.running = _kept(context, box)
            else:
                error.running = _removed(context, box)
            raise
        except BaseException:
            lifecycle.remove(context, box)
            raise
        lifecycle.remove(context, box)
    finally:
        log.close()


def _removed(context: BoxContext, box: Box) -> str:
    """Remove the builder after a failure; say what is left of it, if anything."""
    try:
        lifecycle.remove(context, box)
    except OneboxError as error:
        return f"the builder {box.id} is still there: {error.message}"
    return ""


def _kept(context: BoxContext, box: Box) -> str:
    context.remember(kept_builder=box.id)
    now = context.provider.get(box.id, box.place) or box
    off = formatting.clock(now.deadline, time.time())
    rate = formatting.rate(box.offer.hourly)
    text = f"the builder {box.id} is kept: {rate}, off at {off}"
    if now.host and now.state == "running":
        text += f"\n        ssh -F {context.ssh(now).config} {box.id}"
    return f"{text}\n        the next inv image removes it"
