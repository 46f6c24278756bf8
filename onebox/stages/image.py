"""Package the job's environment: a recipe is run on a box, whose disk is saved."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import words
from ..durable import private_dir, write_atomically
from ..errors import BoxFailed, ConfigError, OneboxError, UsageError
from ..providers.base import Box, Image, Tags
from ..state import random_id
from ..transport import sync
from ..transport.select import select
from . import arrival, job, launch

if TYPE_CHECKING:
    from ..session import Session

# The last lines of a failed set-up that are shown at once; all are in the log.
TAIL = 20
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
# Images that somebody else has made, by the providers' own ids.
FOREIGN = re.compile(r"ami-[0-9a-f]+|projects/[a-z0-9:.-]+/global/images/.+")


def wanted(session: Session) -> Image | None:
    """
    Return the image that today's recipe asks for, if the provider holds it.

    Raises:
        ConfigError: `use` names an image that there is not.
    """
    settings = session.settings.image
    mine = session.provider.images(session.owner)
    if settings.use:
        for image in mine:
            if settings.use in (image.id, image.name):
                return image
        if FOREIGN.fullmatch(settings.use):
            # Not ours, but the provider's: it says whether there is such a one.
            _base(session)
            return None
        have = words.some(sorted({i.name for i in mine})) or "none"
        raise ConfigError(
            f"[image] use = {settings.use!r}: there is no such image of yours "
            f"(there are: {have})",
            next="inv image --list",
        )
    if not settings.setup:
        return None
    recipe = recipe_hash(session)
    return next((image for image in mine if image.recipe == recipe), None)


def reason(session: Session) -> str | None:
    """Say why an image has to be built, or None."""
    settings = session.settings.image
    if settings.packer:
        raise ConfigError(
            f"[image] packer: provider {session.provider.name} cannot run Packer "
            "in this version",
            next='use setup = "setup.sh" instead',
        )
    if wanted(session) is not None or not settings.setup:
        return None
    before = _remembered(session)
    if not before:
        return f"{settings.setup} has not been built yet"
    now = inputs(session)
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return f"{words.some(sorted(changed))} changed" if changed else "the image is gone"


def up_to_date(session: Session) -> str:
    """Say what is there when there is no reason to build."""
    settings = session.settings.image
    image = wanted(session)
    if image is None:
        return f"no recipe: plain {_base(session)}"
    day = time.strftime("%d %b", time.localtime(image.created)).lstrip("0")
    if settings.use:
        return f"{image.name}, saved {day}"
    return f"{settings.setup} unchanged, built {day}"


def perform(session: Session, *, rebuild: bool = False) -> Image | None:
    """Bring the image up to date and return it; None stands for the plain base."""
    if session.notebook.open_intents() or session.builders:
        session.lock()
        launch.recover(session)
    why = "asked to" if rebuild and session.settings.image.setup else reason(session)
    launch.announce(session)
    if why is None:
        session.screen.line("image", "done", "up to date", up_to_date(session))
        return wanted(session)
    session.lock()
    with session.timed("image"):
        return _build(session, why)


def save_from_box(session: Session, name: str) -> Image:
    """
    Save the live box's disk as an image called *name*.

    The box is stopped for it and started again.

    Raises:
        UsageError: There is no such box, its job still runs, or no usable name
            was given.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--from-box needs a name for the image, not {name!r}",
            next="inv image --from-box --as=my-environment",
        )
    box = session.running_box()
    session.lock()
    running = job.latest(session)
    if running is not None and running["state"] == "running":
        raise UsageError(
            f"job {running['job']} still runs on {session.title}",
            next="inv logs, or inv cancel",
        )
    with session.timed("image"), session.screen.stage("image") as line:
        arch = _arch(session, box)
        line.doing(f"stopping {box.id}")
        session.forget_door()
        image = _save(session, box, name, arch, recipe="")
        line.doing("starting the box again")
        box = session.provider.start(box, box.deadline)
        session.made_again(box)
        line.end("", f"{name}: {words.size(image.size)}, from {box.id}")
    session.screen.note(f'use it: [image] use = "{name}" in onebox.toml')
    return image


def show_list(session: Session) -> None:
    """Print this owner's images."""
    now = time.time()
    rows = [
        (
            image.name,
            image.id,
            image.tags.project,
            words.size(image.size),
            words.clock(image.created, now),
            "recipe" if image.recipe else "by hand",
        )
        for image in session.provider.images(session.owner)
    ]
    head = ("name", "id", "project", "size", "built", "from")
    if rows:
        session.screen.table(head, rows)
    else:
        session.screen.print("no images yet")


def inputs(session: Session) -> dict[str, str]:
    """Return what the recipe is made of: name of each input → its hash."""
    settings = session.settings.image
    found = {
        "base": _base(session),
        "[image] env": _digest(json.dumps(dict(settings.env), sort_keys=True).encode()),
    }
    for name in _files(session):
        path = session.root / name.decode("utf-8", "surrogateescape")
        if path.is_symlink() or not path.is_file():
            continue
        mode = "x" if path.stat().st_mode & 0o100 else "-"
        found[words.path(name)] = mode + _digest(path.read_bytes())
    return found


def recipe_hash(session: Session) -> str:
    """Return the hash that today's recipe is known by, 16 hex digits."""
    return _digest(json.dumps(inputs(session), sort_keys=True).encode())[:16]


def _base(session: Session) -> str:
    """Ask the provider what a box starts from that is not made from our image."""
    settings = session.settings.image
    arch = launch.sizes(session)[0].arch
    return session.provider.base(settings.use or settings.base, arch)


def _files(session: Session) -> list[bytes]:
    settings = session.settings.image
    names = [settings.setup or "", *settings.include]
    return select(session.root, [], names, []).paths


def _build(session: Session, why: str) -> Image:
    settings = session.settings.image
    project = session.settings.project
    recipe = recipe_hash(session)
    found = inputs(session)
    log = private_dir(session.local_dir / "images") / f"{recipe}.log"
    with session.screen.stage("image") as line:
        line.doing(f"{why}: starting a builder box")
        with _builder(session) as box:
            boot = session.settings.limits.boot_minutes * 60
            box = arrival.wait(session, box, boot, line.doing)
            paths = _files(session)
            session.resuming(
                lambda link: sync.push(
                    link, session.root, paths, log.with_suffix(".index"), line.progress
                ),
                box,
            )
            script = shlex.quote(f"./{settings.setup}")
            log.unlink(missing_ok=True)
            record = job.run(
                session,
                box,
                job_id=f"image-{recipe}",
                line=f"bash {script}",
                env=settings.env,
                log=log,
                output=lambda data: line.doing(f"{settings.setup}: {_last(data)}"),
            )
            if record["code"]:
                raise _set_up_failed(session, log, record)
            line.doing("saving the disk")
            arch = _arch(session, box)
            session.forget_door()
            image = _save(session, box, project, arch, recipe=recipe)
        _remember(session, found)
        line.end("", f"built: {why}; {words.size(image.size)}")
    return image


@contextmanager
def _builder(session: Session) -> Iterator[Box]:
    """Give a box to build on; it is gone afterwards, unless kept after a failure."""
    box = launch.create(session, kind="builder", image=None)
    try:
        yield box
    except OneboxError as error:
        if session.line.keep:
            now = session.provider.get(box.id, box.place) or box
            error.running = f"the builder {box.id} is kept"
            if now.host:
                error.running += f": ssh -F {session.door(now).config} {box.id}"
            raise
        launch.remove(session, box)
        raise
    except BaseException:
        launch.remove(session, box)
        raise
    launch.remove(session, box)


def _arch(session: Session, box: Box) -> str:
    told = session.resuming(lambda link: link.ask("hello"), box)
    return str(told["arch"])


def _save(session: Session, box: Box, name: str, arch: str, *, recipe: str) -> Image:
    provider = session.provider
    provider.stop(box)
    image = Image(
        id=f"oi-{random_id()}",
        name=name,
        recipe=recipe,
        created=time.time(),
        size=0,
        arch=arch,
        tags=replace(session_tags(session, box), kind="image"),
    )
    with session.notebook.intent("save", image=image.id, box=box.id):
        return provider.save(box, image)


def session_tags(session: Session, box: Box) -> Tags:
    """Return the tags of something that is made from a box."""
    return replace(box.tags, name=session.settings.name)


def _set_up_failed(session: Session, log: Path, record: dict[str, object]) -> BoxFailed:
    lines = log.read_text("utf-8", "replace").splitlines()[-TAIL:]
    for text in lines:
        session.screen.say(f"    {text}")
    return BoxFailed(
        f"{session.settings.image.setup} failed with exit {record['code']} "
        f"(all of its output: {log})",
        next="mend it and run the same command again; --keep leaves the builder up",
    )


def _last(data: bytes) -> str:
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return "".join(c for c in lines[-1] if c.isprintable())[:60] if lines else ""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _memory(session: Session) -> Path:
    return session.notebook.directory / "recipe.json"


def _remembered(session: Session) -> dict[str, str]:
    with suppress(FileNotFoundError, ValueError):
        found = json.loads(_memory(session).read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _remember(session: Session, found: dict[str, str]) -> None:
    private_dir(session.notebook.directory)
    write_atomically(_memory(session), json.dumps(found, indent=1).encode())
