"""
Build an image with the user's own Packer and the user's own template.

A template with a `null` source is run against a builder box of ours, whose disk is
then saved: that works at every provider. Any other one builds an image in the
cloud by itself, which is then made one of ours.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox import __version__, formatting
from onebox.boxes import offers
from onebox.errors import BoxFailed, ConfigError, OneboxError
from onebox.images import (
    builder,
    packer_output,
    packer_program,
    packer_template,
    recipe,
    snapshot,
    ssh_tunnel,
)
from onebox.images.builder import Builder, Log
from onebox.images.packer_template import Template
from onebox.providers.base import Image, Tags
from onebox.remote import keys
from onebox.signals import Interrupted
from onebox.store.atomic_files import private_dir, write_atomically
from onebox.store.box_store import config_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A zone is a region and one letter more: us-east-1c, us-central1-a.
_ZONE = re.compile(r"(.*[0-9])-?[a-z]")
# How the clouds name an image within what they call a base.
_IMAGE = re.compile(
    r"^(?P<project>[^/ ]+)/(?P<name>[^/ ]+)$"
    r"|(?P<ami>ami-[0-9a-f]{8,})|^(?P<slug>[a-z0-9-]+)(?= [0-9]+$)"
)


def check(context: BoxContext) -> None:
    """
    See that today's template can be built here, if there is one.

    Raises:
        ConfigError: It cannot at this provider, or the variables are wrong.

        OneboxError: Packer is missing or too old.
    """
    if not context.settings.image.packer:
        return
    found = _template(context)
    packer_template.values(found, {}, context.settings.image.vars)
    provider = context.provider
    strange = sorted(found.builders - {*provider.adopts, packer_template.NULL})
    if strange:
        raise ConfigError(
            f"[image] packer: {found.name} builds {formatting.some(strange)}, which "
            f"provider {provider.name} cannot start boxes from",
            next='a source "null" works everywhere: it is run on a builder box',
        )
    packer_program.version(context)


def build(context: BoxContext, why: str) -> Image:
    """
    Build today's template and return the image.

    Raises:
        ConfigError: Packer refuses the template; nothing has been made yet.

        BoxFailed: The build failed; its own words say why.
    """
    found = recipe.inputs(context)
    log = builder.open_log(context, found)
    try:
        _validate(context, found, log)
        if not _template(context).on_a_box:
            return _in_the_cloud(context, why, found, log)
    finally:
        log.close()
    return builder.build(context, why, _on_a_box)


def _on_a_box(bench: Builder) -> None:
    """Run the template against the builder box."""
    context, box, began = bench.context, bench.box, time.monotonic()
    # While Packer works, this conversation tells the box that somebody is here.
    context.ssh(box).channel()
    try:
        # Packer compares no host keys.
        with ssh_tunnel.to(context.ssh(box), box) as (host, port):
            ours = _way_in(context, host, port, box.user)
            _run(context, bench.inputs, bench.log, ours)
    finally:
        bench.spent["packer"] = time.monotonic() - began


def _way_in(context: BoxContext, host: str, port: int, user: str) -> dict[str, Any]:
    key = keys.identity(config_dir(context.environ))
    values = (host, port, user, str(key))
    return dict(zip(packer_template.BOX, values))


def _in_the_cloud(
    context: BoxContext, why: str, found: Mapping[str, str], log: Log
) -> Image:
    """Have Packer build an image in the cloud, and make it one of ours."""
    began = time.monotonic()
    image = snapshot.new_image(
        context,
        Tags(
            owner=context.owner,
            project=context.project,
            name=context.settings.name,
            expires=0.0,
            version=__version__,
            kind="image",
        ),
        context.settings.project,
        recipe.arch(context),
        recipe=recipe.digest(found),
        base=found["base"],
    )
    output = _output(context, found)
    what = {
        "image": asdict(image),
        "inputs": found,
        "output": str(output),
        "provider": context.provider.name,
    }
    try:
        with context.store.intent("packer", **what) as outcome:
            try:
                artifact = _run(context, found, log, {"image_name": image.id})
            except (OneboxError, Interrupted):
                # It has ended by itself, and has cleaned up or named what is left.
                outcome.undone = True
                raise
            made = snapshot.adopt(context, artifact, image, found)
    except BaseException:
        lasted = formatting.seconds(time.monotonic() - began)
        context.screen.line("image", "failed", lasted, why)
        raise
    lasted = formatting.seconds(time.monotonic() - began)
    detail = f"built by Packer: {why}; {artifact}"
    context.screen.line("image", "done", lasted, detail)
    return made


def _validate(context: BoxContext, inputs: Mapping[str, str], log: Log) -> None:
    """Have Packer fetch its plugins and look at the template, before it costs."""
    found, program = _template(context), packer_program.program(context)
    ours = {"image_name": "validated", **_way_in(context, "127.0.0.1", 22, "nobody")}
    file = _variables(context, found, inputs, ours)
    if found.hcl and packer_program.version(context) >= packer_program.WITH_INIT:
        packer_program.step(context, log, [program, "init", found.name])
    tail = [f"-var-file={file}", found.name]
    packer_program.step(context, log, [program, "validate", "-machine-readable", *tail])


def _run(
    context: BoxContext, inputs: Mapping[str, str], log: Log, ours: Mapping[str, Any]
) -> str:
    """
    Run Packer to its end; return the id of the image that it has built, or "".

    Raises:
        BoxFailed: It failed; its own words say why.
    """
    found, program = _template(context), packer_program.program(context)
    tail = [f"-var-file={_variables(context, found, inputs, ours)}", found.name]
    began = time.time()
    output = _output(context, inputs)
    argv = [program, "build", "-machine-readable", *tail]
    code = packer_program.follow(context, log, argv, output)
    lines = packer_output.read(output)
    lasted = formatting.seconds(time.time() - began)
    packer_program.say_leftovers(context, lines)
    if code:
        context.screen.line("  packer", "failed", lasted, f"exit {code}")
        raise _failure(log, f"{found.name} failed", lines)
    context.screen.line("  packer", "done", lasted, found.name)
    artifact = packer_output.artifact(lines)
    if not artifact and not found.on_a_box:
        manifest = context.root / packer_output.MANIFEST
        artifact = packer_output.artifact_of_manifest(manifest, began)
        if not artifact:
            raise log.failure(f"{found.name} has built no image that Packer names")
    return artifact


def _failure(log: Log, text: str, lines: list[packer_output.PackerLine]) -> BoxFailed:
    error = log.failure(text)
    why = packer_output.errors(lines)
    if why:
        error.message = f"{text}: {formatting.some(why)} (all of it: {log.path})"
    return error


def _template(context: BoxContext) -> Template:
    name = context.settings.image.packer
    assert name
    return packer_template.read(context.root, name)


def _variables(
    context: BoxContext,
    found: Template,
    inputs: Mapping[str, str],
    ours: Mapping[str, Any],
) -> Path:
    """Write the file of variables; it stays, to run Packer by hand with it."""
    place = offers.find_for_builder(context)[0].place
    zone = _ZONE.fullmatch(place)
    tags = {
        "managed": "1",
        "owner": context.owner,
        "project": context.project,
        "name": context.settings.name,
        "recipe": recipe.digest(inputs),
    }
    common = {
        "region": zone[1] if zone else place,
        **source(inputs["base"]),
        "tags": {f"onebox:{name}": value for name, value in tags.items()},
        # As Google takes them.
        "labels": {f"onebox-{name}": value for name, value in tags.items()},
    }
    path = _output(context, inputs).with_suffix(".pkrvars.json")
    users = context.settings.image.vars
    write_atomically(path, packer_template.values(found, {**common, **ours}, users))
    return path


def source(base: str) -> dict[str, Any]:
    """
    Return what a builder of that cloud's calls the base.

    >>> source("ubuntu-24.04 amd64 ami-0123456789abcdef0")["source_image"]
    'ami-0123456789abcdef0'
    >>> source("ubuntu-24-04-x64 12345")["source_image"]
    'ubuntu-24-04-x64'
    >>> source("debian-cloud/debian-12-v1")
    {'source_image': 'debian-12-v1', 'source_image_project_id': ['debian-cloud']}
    """
    found = _IMAGE.search(base)
    if found is None:
        return {"source_image": base}
    if found["project"]:
        project = [found["project"]]
        return {"source_image": found["name"], "source_image_project_id": project}
    return {"source_image": found["ami"] or found["slug"]}


def _output(context: BoxContext, inputs: Mapping[str, str]) -> Path:
    folder = private_dir(context.local_dir / "images")
    return folder / f"{recipe.digest(inputs)}.packer"
