"""
Keep the Python environment of a live box up to date, and install the project in it.

The image holds packages only. The project itself is installed where the push has put
it, so that a later push changes what the job imports. If only the list of packages
has changed since the image was built, the packages are updated on the live box, and a
new image is built when the next box is created.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import BoxFailed, ConnectionLost
from onebox.images import (
    image_list,
    listed_packages,
    python_env,
    python_project,
    recipe,
    snapshot,
)
from onebox.images.python_project import PythonProject
from onebox.providers.values import Box
from onebox.remote import commands
from onebox.remote.ssh_script import ScriptFailed, run_script
from onebox.stages import fetch_preempted
from onebox.store.atomic_files import private_dir, read_regular, write_atomically

if TYPE_CHECKING:
    from onebox.context import BoxContext

# uv prints such a line for each package that it has installed. The line of the project
# itself goes on with its folder.
_INSTALLED = re.compile(r"^ \+ [A-Za-z0-9._-]+==\S+$", re.MULTILINE)
_FILE = "environment.json"
# The names of the inputs of the project itself begin with this.
_PROJECT = "project: "


@dataclass(frozen=True)
class _State:
    """
    What is known about the environment of a box; the names and hashes of its inputs.

    Attributes:
        box: The id of the box.

        fixed: The inputs of the box's image that cannot be changed on a live box.

        image_packages: The package inputs of the box's image.

        installed: The inputs that are installed now: packages, and the project.

        listed: The packages that the lists of successful updates have named, sorted.
    """

    box: str = ""
    fixed: Mapping[str, str] = field(default_factory=dict)
    image_packages: Mapping[str, str] = field(default_factory=dict)
    installed: Mapping[str, str] = field(default_factory=dict)
    listed: Sequence[str] = ()


@dataclass(frozen=True)
class Update:
    """
    What an update of the environment installs.

    Attributes:
        changed: The names of the package inputs that have changed.

        project: The project, None if it is not installed anew.

        installed: The inputs that are installed after the update.

        lingering: See `lingering`.
    """

    changed: tuple[str, ...]
    project: PythonProject | None
    installed: Mapping[str, str] = field(repr=False)
    lingering: str = ""

    @property
    def reason(self) -> str:
        """Return the update's reason and what it installs, as a phrase."""
        parts = []
        if self.changed:
            parts.append(f"{formatting.first_names(list(self.changed))} changed")
        if self.project:
            parts.append(f"{self.project.name}, from the pushed code")
        return "; ".join(filter(None, [*parts, self.lingering]))


def note_new_box(context: BoxContext, box: Box, inputs: Mapping[str, str]) -> None:
    """Record the inputs of the image from which a new box was created."""
    packages = recipe.package_inputs(context)
    packages = {name: mark for name, mark in inputs.items() if name in packages}
    fixed = {name: mark for name, mark in inputs.items() if name not in packages}
    names = sorted(listed_packages.listed(_files(context)))
    _write(context, _State(box.id, fixed, packages, packages, names))


def lingering(context: BoxContext, box: Box | None) -> str:
    """
    Return a phrase that names packages of a live box that are no longer listed, or "".

    They are not removed, because a set-up script may have installed them too.
    """
    if box is None or not context.settings.image.requirements:
        return ""
    if not recipe.makes_image(context):
        return ""
    known = _state(context, box).listed
    names = listed_packages.unlisted(known, _files(context))
    if not names:
        return ""
    stay = "stays" if len(names) == 1 else "stay"
    return (
        f"{formatting.first_names(names)}, no longer listed, {stay} on this box, and "
        "the next box lacks "
    ) + ("it" if len(names) == 1 else "them")


def outdated_image(context: BoxContext, box: Box | None) -> str:
    """
    Return why the image of a box is out of date, if the live box can be updated.

    The result is "" if the image is up to date, or if more than the list of packages
    has changed, so that the box must be created again.
    """
    if box is None or fetch_preempted.is_only_disk(box):
        return ""
    state = _state(context, box)
    now = recipe.package_inputs(context)
    others = {k: v for k, v in recipe.inputs(context).items() if k not in now}
    changed = _changed(state.image_packages, now)
    if not changed or state.fixed != others:
        return ""
    return f"{formatting.first_names(changed)} changed"


def find_update(context: BoxContext, box: Box | None) -> Update | None:
    """
    Return what has to be installed on a box after the push, None if nothing has to be.

    If *box* is None, the result is for a box that is created from a current image.
    """
    if not context.settings.image.requirements or not recipe.makes_image(context):
        return None
    packages, project = recipe.package_inputs(context), recipe.project(context)
    of_project = _project_inputs(project)
    state = _state(context, box) if box else _State(installed=packages)
    known = {k: v for k, v in state.installed.items() if not k.startswith(_PROJECT)}
    changed = tuple(_changed(known, packages))
    if {**known, **of_project} == state.installed:
        project = None
    if not changed and project is None:
        return None
    stay = lingering(context, box)
    return Update(changed, project, {**packages, **of_project}, stay)


def update(context: BoxContext, found: Update) -> None:
    """
    Install on the box what has changed since the last update, after the push.

    The caller has made sure that no job runs on the box.

    Args:
        found: The result of `find_update` before the push. If a file has changed since
            then, the next push finds that.

    Raises:
        BoxFailed: uv has failed; the message quotes the end of its output.
    """
    box = context.boxes.running()
    state = _state(context, box)
    listed = {*state.listed, *listed_packages.listed(_files(context))}
    with (
        context.chain.timed("packages"),
        context.screen.stage("packages") as stage_line,
    ):
        stage_line.doing(found.reason)
        # If uv fails, the line says what it was about to install.
        stage_line.detail = found.reason
        # An update that is not completed may have installed a part.
        _write(context, replace(state, box=box.id, installed={}))
        output = context.call_resuming(lambda channel: _run(context, box, found), box)
        details = []
        if found.changed:
            number = len(_INSTALLED.findall(output))
            count = formatting.count(number, "package") if number else "none to install"
            names = formatting.first_names(list(found.changed))
            details.append(f"{names} changed: {count}")
        if found.project:
            details.append(f"{found.project.name}, from the pushed code")
        stage_line.end("", "; ".join(filter(None, [*details, found.lingering])))
    done = replace(state, installed=found.installed, listed=sorted(listed))
    _write(context, replace(done, box=box.id))


def _project_inputs(project: PythonProject | None) -> dict[str, str]:
    """Return the hashes of what decides how the project is installed."""
    if project is None:
        return {}
    hashes = {f"{_PROJECT}spec": project.spec}
    for name in python_project.BUILD_FILES:
        with suppress(OSError):
            text = read_regular(project.folder / name).decode("utf-8", "replace")
            text = text.replace("\r\n", "\n")
            if name == "pyproject.toml":
                text = python_project.without_other_tools(text)
            digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
            hashes[_PROJECT + name] = digest
    return hashes


def _files(context: BoxContext) -> list[Path]:
    """Return the files that list the packages."""
    return [context.root / name for name in recipe.requirements_files(context)]


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of the inputs that differ; of a uv.lock only its own name."""
    names = {name for name in {**before, **now} if before.get(name) != now.get(name)}
    locks = sorted(name for name in names if PurePosixPath(name).name == "uv.lock")
    return locks or sorted(names)


def _run(context: BoxContext, box: Box, found: Update) -> str:
    """Update the environment over ssh, and return the output of uv."""
    argv = python_env.argv(
        context.settings.image,
        packages=bool(found.changed),
        project=found.project.spec if found.project else "",
    )
    env = {"UV_COMPILE_BYTECODE": "0", **context.settings.image.env}
    exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in env.items())
    script = _SCRIPT.format(
        work=shlex.quote(box.work), exports=exports, command=shlex.join(argv)
    )
    try:
        return run_script(
            context.ssh(box),
            commands.shell(box),
            script.encode(),
            seconds=context.settings.limits.setup_minutes * 60,
        )
    except ScriptFailed as error:
        if error.exit == 255:
            raise ConnectionLost("the connection to the box broke") from error
        what = context.settings.image.requirements
        lines = "".join(f"\n    {line}" for line in error.lines)
        raise BoxFailed(
            f"{what} could not be installed on {context.title} ({box.id})"
            + (lines or f": {error.message}"),
            next="fix it, then run the same command again",
        ) from error


# The output is kept in a file, because uv prints all of it to stderr.
_SCRIPT = """\
cd {work} || exit
{exports}log=$(mktemp)
trap 'rm -f "$log"' EXIT
{command} >"$log" 2>&1 </dev/null || {{
code=$?
tail -n 20 "$log" >&2
exit $code
}}
tail -c 200000 "$log"
"""


def _state(context: BoxContext, box: Box) -> _State:
    """
    Return what is known about a box's environment.

    If this machine has no record of it, the inputs that are stored for the image are
    used, if they are those of the box's image.
    """
    with suppress(OSError, ValueError, TypeError, LookupError):
        document = json.loads((context.store.directory / _FILE).read_bytes())
        if document["box"] == box.id:
            return _State(**document)
    inputs = snapshot.remembered(context)
    digest = recipe.digest(inputs)
    for image in image_list.images(context):
        if image.id == box.image and image.recipe == digest:
            packages = recipe.package_inputs(context)
            known = {k: v for k, v in inputs.items() if k in packages}
            fixed = {k: v for k, v in inputs.items() if k not in packages}
            return _State(box.id, fixed, known, known)
    return _State(box.id)


def _write(context: BoxContext, state: _State) -> None:
    path = context.store.directory / _FILE
    private_dir(path.parent)
    write_atomically(path, json.dumps(asdict(state), indent=1).encode())
