"""Build an image on a builder box: boot, push, set up, clean, save, remove."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from onebox import formatting, project_data
from onebox.boxes import bring_up, create, delete
from onebox.errors import OneboxError
from onebox.images import (
    build_log,
    image_list,
    missing_programs,
    python_env,
    recipe,
    sanitize,
    snapshot,
)
from onebox.images.build_log import BuildLog
from onebox.jobs import remote_job
from onebox.providers.values import Box, Image
from onebox.remote.answers import Hello
from onebox.remote.channel import AgentChannel
from onebox.transfer import data_download, push_files
from onebox.ui.progress import StageLine

if TYPE_CHECKING:
    from onebox.context import BoxContext

T = TypeVar("T")

# A set-up script has no terminal: its output must not be buffered, and apt must not
# ask questions.
SCRIPT_ENV = {"PYTHONUNBUFFERED": "1", "DEBIAN_FRONTEND": "noninteractive"}
# The push is done at most this many times. It is repeated as long as the files change
# while they are pushed.
MOST_PUSHES = 5


class Builder:
    """
    A builder box and the log of its build; each step is shown and timed.

    Attributes:
        box: The builder box.

        inputs: The hashes of the recipe's inputs, computed before the last push.

        seconds: How long each step took, by the step's name.
    """

    def __init__(
        self, context: BoxContext, box: Box, inputs: Mapping[str, str], log: BuildLog
    ) -> None:
        self.context = context
        self.box = box
        self.inputs = inputs
        self.log = log
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[StageLine]:
        """Show a line for a step while the block runs, and record how long it took."""
        began = time.monotonic()
        try:
            with self.context.screen.stage(f"  {name}") as stage_line:
                yield stage_line
        finally:
            self.seconds[name] = time.monotonic() - began

    def boot(self) -> None:
        """Wait until the builder is reachable and its first boot has ended."""
        offer = self.box.offer
        with self.step("boot") as stage_line:
            self.box = bring_up.finish_boot(self.context, self.box, stage_line.doing)
            stage_line.doing("waiting until its first boot has ended")
            on_box(self.context, self.box, sanitize.prepare)
            rate = formatting.rate(offer.hourly)
            stage_line.end("", f"{self.box.id}, {offer.type}, {rate}")

    def push(self) -> None:
        """Push the recipe's files; repeat the push if they changed meanwhile."""
        context = self.context
        with self.step("push") as stage_line:
            for _ in range(MOST_PUSHES):
                self.inputs = recipe.inputs(context)
                context.call_resuming(
                    lambda channel: self._push(channel, stage_line), self.box
                )
                if recipe.inputs(context) == self.inputs:
                    break
            stage_line.end("", formatting.count(len(recipe.files(context)), "file"))

    def download(self) -> None:
        """Download the data to a place from which boxes take it."""
        context = self.context
        listing = project_data.find(context)
        with self.step("data") as stage_line:
            context.call_resuming(
                lambda channel: data_download.download(
                    channel,
                    listing,
                    project_data.stores(context),
                    stage_line.progress,
                    into_image=True,
                ),
                self.box,
            )
            count = formatting.count(len(listing.files), "object")
            size = formatting.byte_count(listing.bytes)
            stage_line.end("", f"{count}, {size}")

    def run(self, name: str, title: str, argv: Sequence[str]) -> None:
        """
        Run a command on the box and show its output live.

        Args:
            name: The name of the build step, which consists of this command.

            title: The command's name in messages.

            argv: The words of the command line.

        Raises:
            BoxFailed: The command's exit code was not 0.
        """
        context, began = self.context, time.monotonic()
        # This file holds the output of this command only; `self.log` holds the output
        # of all steps.
        own_log = self.log.path.with_suffix(f".{name}")
        job_id = f"image-{name}-{recipe.digest(self.inputs)}"
        own_log.unlink(missing_ok=True)
        try:
            remote_job.start(
                context,
                self.box,
                job_id=job_id,
                argv=argv,
                env={**SCRIPT_ENV, **context.settings.image.env},
            )
            record = remote_job.follow(
                context,
                self.box,
                job_id,
                own_log,
                self.log.add,
                lambda _: self.log.footer(name, began),
            )
        except BaseException:
            self.log.close_line()
            duration = formatting.seconds(time.monotonic() - began)
            context.screen.print_stage(f"  {name}", "failed", duration, "stopped")
            raise
        finally:
            self.log.close_line()
            own_log.unlink(missing_ok=True)
            self.seconds[name] = time.monotonic() - began
        duration = formatting.seconds(self.seconds[name])
        if not record.code:
            self.log.note_seconds(name, self.seconds[name])
            context.screen.print_stage(f"  {name}", "done", duration, title)
            return
        context.screen.print_stage(
            f"  {name}", "failed", duration, f"exit {record.code}"
        )
        raise self.log.failure_error(f"{title} failed with exit {record.code}")

    def save(self, name: str) -> Image:
        """Clean the box, stop it and save its disk as an image."""
        context = self.context
        hello: Hello = context.call_resuming(
            lambda channel: Hello.parse(channel.request("hello")), self.box
        )
        with self.step("clean") as stage_line:
            warn_of_secrets(context, self.box)
            on_box(context, self.box, partial(sanitize.clean, keep_box=False))
            context.forget_connection()
            stage_line.doing(f"stopping {self.box.id}")
            context.provider.stop(self.box)
            removed = sanitize.describe(system=context.provider.own_system)
            stage_line.end("", removed)
        with self.step("save") as stage_line:
            stage_line.doing("saving the disk")
            image = snapshot.new_image(
                context,
                self.box.tags,
                name,
                hello.arch,
                recipe=recipe.digest(self.inputs),
                base=self.inputs["base"],
            )
            saved = snapshot.save(
                context, self.box, image, self.inputs, stage_line.saved
            )
            stage_line.end("", f"{saved.id}, {image_list.stored_size(saved)}")
        return saved

    def _push(self, channel: AgentChannel, stage_line: StageLine) -> None:
        context = self.context
        index = self.log.path.with_suffix(".index")
        paths = recipe.files(context)
        push_files.push(channel, context.root, paths, index, stage_line.progress)


def build(
    context: BoxContext,
    why: str,
    set_up: Callable[[Builder], None] | None = None,
) -> Image:
    """
    Build the current recipe on a builder box and return the image.

    Args:
        why: The reason to build, which the first line on the screen shows.

        set_up: A function that sets up the box. If it is given, the set-up script and
            the installation of Python do not run.
    """
    began = time.monotonic()
    context.screen.print_stage("image", "kept", "building", why)
    try:
        with _builder(context) as builder:
            builder.boot()
            builder.push()
            (set_up or _set_up)(builder)
            if recipe.keeps_data(context):
                builder.download()
            image = builder.save(context.settings.project)
    except BaseException as error:
        duration = formatting.seconds(time.monotonic() - began)
        problem = error.cause or error.message if isinstance(error, OneboxError) else ""
        context.screen.print_stage("image", "failed", duration, problem or "stopped")
        raise
    duration = formatting.seconds(time.monotonic() - began)
    detail = f"built {image.id}, {image_list.stored_size(image)}"
    context.screen.print_stage("image", "done", duration, detail)
    return image


def on_box(context: BoxContext, box: Box, step: Callable[..., T]) -> T:
    """
    Run *step*, a function of `sanitize`, over SSH, and return its result.

    Call *step* again if the connection breaks.
    """
    system = context.provider.own_system
    result: T = context.call_resuming(
        lambda channel: step(context.ssh(box), system=system), box
    )
    return result


def warn_of_secrets(context: BoxContext, box: Box) -> bool:
    """Warn about files that look like secrets; return whether there are any."""
    files = on_box(context, box, sanitize.find_secrets)
    if files:
        names = formatting.first_names([formatting.path(name) for name in files], 10)
        context.screen.warn(f"the image will contain what looks like secrets: {names}")
    return bool(files)


def _set_up(builder: Builder) -> None:
    image = builder.context.settings.image
    if image.setup:
        builder.run("setup", image.setup, ["bash", f"./{image.setup}"])
        missing_programs.warn(builder.context, builder.log.path, image.setup)
    if python_env.is_requested(image):
        project = recipe.project(builder.context)
        build_system = project.build_system if project else ""
        argv = python_env.argv(image, build_system=build_system)
        builder.run("python", python_env.title(image), argv)


@contextmanager
def _builder(context: BoxContext) -> Iterator[Builder]:
    """
    Create a builder box for the block, and remove it at the end.

    After a failure the builder stays if the user asked for that, or if the save of its
    disk is still open in the journal.
    """
    inputs = recipe.inputs(context)
    log = build_log.open_log(context, inputs)
    try:
        box = create.create(context, kind="builder", image=None)
        builder = Builder(context, box, inputs, log)
        try:
            yield builder
        except OneboxError as error:
            if snapshot.is_open(context):
                error.running = (
                    f"the builder {box.id} is off and stays: the next inv image "
                    "resumes the save"
                )
            elif context.invocation.keep or context.invocation.keep_builder:
                error.running = _keep(context, box)
            else:
                error.running = _remove_after_failure(context, box)
            raise
        except BaseException:
            delete.delete(context, box)
            raise
        delete.delete(context, box)
    finally:
        log.close()


def _remove_after_failure(context: BoxContext, box: Box) -> str:
    """
    Remove the builder.

    Return "", or a sentence that tells the user why the removal failed.
    """
    try:
        delete.delete(context, box)
    except OneboxError as error:
        return f"the builder {box.id} could not be removed: {error.message}"
    return ""


def _keep(context: BoxContext, box: Box) -> str:
    """Record the builder as kept; return its price, end, and how to reach it."""
    context.store.update(kept_builder=box.id)
    current = context.provider.get(box.id, box.place) or box
    off = formatting.off(current.deadline, time.time())
    rate = formatting.rate(box.offer.hourly)
    text = f"the builder {box.id} is kept: {rate}, {off}"
    if current.host and current.state == "running":
        words = [word for word in context.ssh(current).argv() if word != "--"]
        text += f"\n        {shlex.join(words)}"
    return text + "\n        the next inv image removes it"
