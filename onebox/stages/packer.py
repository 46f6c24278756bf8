"""
Build an image with the user's own Packer and the user's own template.

A template with a `null` source is run against a builder box of ours, whose disk is
then saved: that works at every provider. Any other one builds an image in the
cloud by itself, which is then made one of ours.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, children, words
from ..durable import private_dir, write_atomically
from ..errors import BoxFailed, ConfigError, OneboxError
from ..providers.base import Image, Tags
from ..signals import Interrupted
from ..state import config_dir
from ..transport import keys
from . import builder, launch, packer_output, recipe, saving, template
from .builder import Bench, Log
from .template import Template

if TYPE_CHECKING:
    from ..session import Session

# HCL2 came with 1.5 and was whole enough with 1.6; older JSON templates than that
# nobody has.
OLDEST = (1, 6, 0)
WITH_INIT = (1, 7, 0)
HOW_TO_GET_IT = "https://developer.hashicorp.com/packer/install, or apt install packer"
# A zone is a region and one letter more: us-east-1c, us-central1-a.
_ZONE = re.compile(r"(.*[0-9])-?[a-z]")


def check(session: Session) -> None:
    """
    See that today's template can be built here, if there is one.

    Raises:
        ConfigError: It cannot at this provider, or the variables are wrong.

        OneboxError: Packer is missing or too old.
    """
    if not session.settings.image.packer:
        return
    found = _template(session)
    template.values(found, {}, session.settings.image.vars)
    provider = session.provider
    strange = sorted(found.builders - {*provider.adopts, template.NULL})
    if strange:
        raise ConfigError(
            f"[image] packer: {found.name} builds {words.some(strange)}, which "
            f"provider {provider.name} cannot start boxes from",
            next='a source "null" works everywhere: it is run on a builder box',
        )
    version(session)


def build(session: Session, why: str) -> Image:
    """Build today's template and return the image."""
    if _template(session).on_a_box:
        return builder.build(session, why, _on_a_box)
    return _in_the_cloud(session, why)


def version(session: Session) -> tuple[int, ...]:
    """Return Packer's version. Raises OneboxError if it is missing or too old."""
    try:
        done = subprocess.run(
            [_program(session), "version", "-machine-readable"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            env=_environment(session),
        )
        said = done.stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    match = re.search(r",version,([0-9]+)\.([0-9]+)\.([0-9]+)", said)
    if match is None:
        # Others have a program of this name: cracklib's waits for a word list.
        raise OneboxError(
            "[image] packer: the packer in PATH is not HashiCorp's Packer",
            next=HOW_TO_GET_IT,
        )
    found = tuple(int(part) for part in match.groups())
    if found < OLDEST:
        raise OneboxError(
            f"[image] packer: Packer {'.'.join(match.groups())} is too old, "
            f"{'.'.join(map(str, OLDEST))} is the oldest that will do",
            next=HOW_TO_GET_IT,
        )
    return found


def _on_a_box(bench: Bench) -> None:
    """Run the template against the builder box."""
    box = bench.box
    if box.jump:
        raise BoxFailed(
            f"{box.id} is behind {box.jump}, and Packer cannot go that way by itself",
            next="a setup script instead, or a builder with an address of its own",
        )
    ours = {
        "ssh_host": box.host,
        "ssh_port": box.port,
        "ssh_username": box.user,
        "ssh_private_key_file": str(keys.identity(config_dir(bench.session.environ))),
    }
    # While it works, this conversation tells the box that somebody is here.
    bench.session.door(box).link()
    began = time.monotonic()
    try:
        _run(bench.session, bench.inputs, bench.log, ours)
    finally:
        bench.spent["packer"] = time.monotonic() - began


def _in_the_cloud(session: Session, why: str) -> Image:
    """Have Packer build an image in the cloud, and make it one of ours."""
    began = time.monotonic()
    found = recipe.inputs(session)
    log = builder.open_log(session, found)
    image = saving.new_image(
        session,
        Tags(
            owner=session.owner,
            project=session.project,
            name=session.settings.name,
            expires=0.0,
            version=__version__,
            kind="image",
        ),
        session.settings.project,
        recipe.arch(session),
        recipe=recipe.digest(found),
        base=found["base"],
    )
    output = _output(session, found)
    what = {
        "image": asdict(image),
        "inputs": found,
        "output": str(output),
        "provider": session.provider.name,
    }
    try:
        with session.notebook.intent("packer", **what) as outcome:
            try:
                artifact = _run(session, found, log, {"image_name": image.id})
            except (OneboxError, Interrupted):
                # It has ended by itself, and has cleaned up or named what is left.
                outcome["undone"] = True
                raise
            made = saving.adopt(session, artifact, image, found)
    except BaseException:
        lasted = words.seconds(time.monotonic() - began)
        session.screen.line("image", "failed", lasted, why)
        raise
    finally:
        log.close()
    lasted = words.seconds(time.monotonic() - began)
    detail = f"built by Packer: {why}; {artifact}"
    session.screen.line("image", "done", lasted, detail)
    return made


def _run(
    session: Session, inputs: Mapping[str, str], log: Log, ours: Mapping[str, Any]
) -> str:
    """
    Run Packer to its end; return the id of the image that it has built, or "".

    Raises:
        BoxFailed: It failed; its own words say why.
    """
    found, program = _template(session), _program(session)
    file = _variables(session, found, inputs, ours)
    began = time.time()
    if found.hcl and version(session) >= WITH_INIT:
        _step(session, log, "init", [program, "init", found.name])
    tail = [f"-var-file={file}", found.name]
    argv = [program, "validate", "-machine-readable", *tail]
    _step(session, log, "validate", argv)
    output = _output(session, inputs)
    argv = [program, "build", "-machine-readable", *tail]
    code = _follow(session, log, argv, output)
    lines = packer_output.read(output)
    lasted = words.seconds(time.time() - began)
    for left in packer_output.leftovers(lines):
        session.screen.warn(f"Packer leaves this to you: {left.strip()}")
    if code:
        session.screen.line("  packer", "failed", lasted, f"exit {code}")
        raise _failure(log, f"{found.name} failed", lines)
    session.screen.line("  packer", "done", lasted, found.name)
    artifact = packer_output.artifact(lines)
    if not artifact and not found.on_a_box:
        manifest = session.root / packer_output.MANIFEST
        artifact = packer_output.artifact_of_manifest(manifest, began)
        if not artifact:
            raise log.failure(f"{found.name} has built no image that Packer names")
    return artifact


def _step(session: Session, log: Log, name: str, argv: list[str]) -> None:
    """Run one of Packer's short commands; what it says is shown if it fails."""
    began = time.monotonic()
    done = subprocess.run(
        argv,
        cwd=session.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env=_environment(session),
        start_new_session=True,
    )
    lines = packer_output.parse(done.stdout.decode("utf-8", "replace"))
    if done.returncode:
        for line in lines:
            _show(log, line)
        log.close_line()
        lasted = words.seconds(time.monotonic() - began)
        session.screen.line("  packer", "failed", lasted, name)
        what = f"packer {name} refuses {session.settings.image.packer}"
        raise _failure(log, what, lines)


def _follow(session: Session, log: Log, argv: list[str], output: Path) -> int:
    """
    Run the build, its words passed on as they come; return its exit code.

    An interrupt is passed on to Packer once, and its clean-up waited for. It has
    a session of its own, so that it gets no other from the terminal.
    """
    fd = packer_output.lock(output)
    try:
        process = subprocess.Popen(
            argv,
            cwd=session.root,
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            env=_environment(session),
            start_new_session=True,
        )
    finally:
        os.close(fd)
    began = time.monotonic()
    lines = packer_output.follow(output, lambda: process.poll() is None)
    try:
        for line in lines:
            _show(log, line)
            log.footer("packer", began, {})
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            session.screen.note("Packer is told to stop, and cleans up")
        said = packer_output.read(output)
        for line in packer_output.follow(output, lambda: process.poll() is None):
            if line not in said:
                _show(log, line)
        for left in packer_output.leftovers(packer_output.read(output)):
            session.screen.warn(f"Packer leaves this to you: {left.strip()}")
        raise
    finally:
        log.close_line()
    return process.wait()


def _show(log: Log, line: packer_output.Line) -> None:
    if line.text:
        log.add(f"{line.text.rstrip()}\n".encode())


def _failure(log: Log, text: str, lines: list[packer_output.Line]) -> BoxFailed:
    error = log.failure(text)
    why = packer_output.errors(lines)
    if why:
        error.message = f"{text}: {words.some(why)} (all of it: {log.path})"
    return error


def _template(session: Session) -> Template:
    name = session.settings.image.packer
    assert name
    return template.read(session.root, name)


def _variables(
    session: Session,
    found: Template,
    inputs: Mapping[str, str],
    ours: Mapping[str, Any],
) -> Path:
    """Write the file of variables; it stays, to run Packer by hand with it."""
    place = launch.builder_sizes(session)[0].place
    zone = _ZONE.fullmatch(place)
    common = {
        "region": zone[1] if zone else place,
        "source_image": inputs["base"],
        "tags": {
            "onebox:managed": "1",
            "onebox:owner": session.owner,
            "onebox:project": session.project,
            "onebox:name": session.settings.name,
            "onebox:recipe": recipe.digest(inputs),
        },
    }
    path = _output(session, inputs).with_suffix(".pkrvars.json")
    users = session.settings.image.vars
    write_atomically(path, template.values(found, {**common, **ours}, users))
    return path


def _output(session: Session, inputs: Mapping[str, str]) -> Path:
    folder = private_dir(session.local_dir / "images")
    return folder / f"{recipe.digest(inputs)}.packer"


def _program(session: Session) -> str:
    found = shutil.which("packer", path=session.environ.get("PATH"))
    if found is None:
        raise OneboxError(
            "[image] packer: Packer is not installed here", next=HOW_TO_GET_IT
        )
    return found


def _environment(session: Session) -> dict[str, str]:
    return {
        **children.environment(),
        **session.settings.image.env,
        # It would ask its makers for a newer version.
        "CHECKPOINT_DISABLE": "1",
        "PACKER_NO_COLOR": "1",
    }
