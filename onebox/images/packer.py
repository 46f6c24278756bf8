"""
Build an image with the user's own Packer and template.

A template with a `null` source runs on a builder box of onebox, whose disk is then
saved: this works at every provider. A template with a cloud's own source builds an
image in the cloud, which then gets the owner's tags.
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
    build_log,
    builder,
    packer_output,
    packer_program,
    packer_template,
    recipe,
    snapshot,
    ssh_tunnel,
)
from onebox.images.build_log import BuildLog
from onebox.images.builder import Builder
from onebox.images.packer_template import Template
from onebox.providers.values import Image, Tags
from onebox.remote import keys
from onebox.signals import Interrupted
from onebox.store.atomic_files import private_dir, write_atomically
from onebox.store.paths import config_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext

# This matches the name of a zone. It consists of the region's name and a letter, as in
# us-east-1c and us-central1-a.
_ZONE = re.compile(r"(.*[0-9])-?[a-z]")


def check(context: BoxContext) -> None:
    """
    Check that this provider can build the template that onebox.toml names, if any.

    Raises:
        ConfigError: The provider cannot build the template, or the template does not
            declare a variable of [image] vars.

        SetupError: Packer is missing or too old.
    """
    if not context.settings.image.packer:
        return
    template = _template(context)
    packer_template.variables_file(template, {}, context.settings.image.vars)
    provider = context.provider
    unsupported = sorted(template.builders - {*provider.adopts, packer_template.NULL})
    if unsupported:
        raise ConfigError(
            f"[image] packer: {template.name} builds "
            f"{formatting.first_names(unsupported)}, "
            f"which provider {provider.name} cannot start boxes from",
            next='a source "null" works everywhere: it runs on a builder box',
        )
    packer_program.version(context)


def build(context: BoxContext, why: str) -> Image:
    """
    Build the template and return the image.

    Args:
        why: The reason to build, which the last line on the screen shows.

    Raises:
        ConfigError: Packer refuses the template; no machine was created.

        BoxFailed: The build failed.
    """
    inputs = recipe.inputs(context)
    log = build_log.open_log(context, inputs)
    try:
        _validate(context, inputs, log)
        if not _template(context).on_a_box:
            return _build_in_cloud(context, why, inputs, log)
    finally:
        log.close()
    return builder.build(context, why, _run_on_box)


def _run_on_box(box_builder: Builder) -> None:
    """Run a `null` template against the builder box."""
    context, box, began = box_builder.context, box_builder.box, time.monotonic()
    # An open agent channel keeps the box from powering itself off as idle.
    context.ssh(box).channel()
    try:
        # Packer need not check the host key, because the connection of the tunnel has
        # already checked it.
        with ssh_tunnel.forward(context.ssh(box), box) as (host, port):
            values = _ssh_values(context, host, port, box.user)
            _run(context, box_builder.inputs, box_builder.log, values)
    finally:
        box_builder.seconds["packer"] = time.monotonic() - began


def _ssh_values(context: BoxContext, host: str, port: int, user: str) -> dict[str, Any]:
    """Return the values of the variables for the builder's SSH endpoint."""
    key = keys.ssh_key_file(config_dir(context.environ))
    return dict(zip(packer_template.SSH_VARIABLES, (host, port, user, str(key))))


def _build_in_cloud(
    context: BoxContext, why: str, inputs: Mapping[str, str], log: BuildLog
) -> Image:
    """Run a template that builds an image in the cloud, then adopt the image."""
    began = time.monotonic()
    image = snapshot.new_image(
        context,
        Tags(
            owner=context.owner,
            project=context.project,
            name=context.settings.name,
            deadline=0.0,
            version=__version__,
            kind="image",
        ),
        context.settings.project,
        recipe.arch(context),
        recipe=recipe.digest(inputs),
        base=inputs["base"],
    )
    intent = {
        "image": asdict(image),
        "inputs": inputs,
        "output": str(_output_file(context, inputs)),
        "provider": context.provider.name,
    }
    try:
        with context.store.intent("packer", **intent) as outcome:
            try:
                artifact = _run(context, inputs, log, {"image_name": image.id})
            except (OneboxError, Interrupted):
                # Packer has ended. It has removed its resources, or has reported those
                # that it could not remove, so the next command has nothing to undo.
                outcome.undone = True
                raise
            adopted = snapshot.adopt(context, artifact, image, inputs)
    except BaseException:
        duration = formatting.seconds(time.monotonic() - began)
        context.screen.print_stage("image", "failed", duration, why)
        raise
    duration = formatting.seconds(time.monotonic() - began)
    detail = f"built by Packer: {why}; {artifact}"
    context.screen.print_stage("image", "done", duration, detail)
    return adopted


def _validate(context: BoxContext, inputs: Mapping[str, str], log: BuildLog) -> None:
    """Run `packer init` and `packer validate` before any machine is created."""
    template, program = _template(context), packer_program.program(context)
    values = {
        "image_name": "validated",
        **_ssh_values(context, "127.0.0.1", 22, "nobody"),
    }
    file = _write_variables(context, template, inputs, values)
    if template.hcl and packer_program.version(context) >= packer_program.WITH_INIT:
        packer_program.run_command(context, log, [program, "init", template.name])
    packer_program.run_command(
        context,
        log,
        [program, "validate", "-machine-readable", f"-var-file={file}", template.name],
    )


def _run(
    context: BoxContext,
    inputs: Mapping[str, str],
    log: BuildLog,
    values: Mapping[str, Any],
) -> str:
    """
    Run `packer build` and return the image's id in the cloud.

    The id is "" if the template runs on a builder box.

    Args:
        values: Values of template variables. They are added to the values that onebox
            sets in every run.

    Raises:
        BoxFailed: The build failed.
    """
    template, program = _template(context), packer_program.program(context)
    file = _write_variables(context, template, inputs, values)
    began = time.time()
    output = _output_file(context, inputs)
    argv = [program, "build", "-machine-readable", f"-var-file={file}", template.name]
    code = packer_program.follow(context, log, argv, output)
    lines = packer_output.read(output)
    duration = formatting.seconds(time.time() - began)
    packer_program.warn_of_leftovers(context, lines)
    if code:
        context.screen.print_stage("  packer", "failed", duration, f"exit {code}")
        raise _failure_error(log, f"{template.name} failed", lines)
    context.screen.print_stage("  packer", "done", duration, template.name)
    artifact = packer_output.artifact(lines)
    if not artifact and not template.on_a_box:
        manifest = context.root / packer_output.MANIFEST
        artifact = packer_output.artifact_of_manifest(manifest, began)
        if not artifact:
            raise log.failure_error(f"Packer reports no image built by {template.name}")
    return artifact


def _failure_error(
    log: BuildLog, text: str, lines: list[packer_output.PackerLine]
) -> BoxFailed:
    error = log.failure_error(text)
    messages = packer_output.errors(lines)
    if messages:
        error.message = (
            f"{text}: {formatting.first_names(messages)} (full output: {log.name})"
        )
    return error


def _template(context: BoxContext) -> Template:
    name = context.settings.image.packer
    assert name
    return packer_template.read(context.root, name)


def _write_variables(
    context: BoxContext,
    template: Template,
    inputs: Mapping[str, str],
    values: Mapping[str, Any],
) -> Path:
    """
    Write the file of variables for Packer, and return its path.

    The file is kept, so that the user can run Packer by hand.
    """
    place = offers.find_for_builder(context)[0].place
    zone = _ZONE.fullmatch(place)
    user_tags = context.settings.tags
    tags = {
        "managed": "1",
        "owner": context.owner,
        "project": context.project,
        "name": context.settings.name,
        "recipe": recipe.digest(inputs),
    }
    common = {
        "region": zone[1] if zone else place,
        **context.provider.packer_source(inputs["base"]),
        "tags": {
            **user_tags,
            **{f"onebox:{name}": value for name, value in tags.items()},
        },
        # Some clouds allow no colon in a label.
        "labels": {
            **user_tags,
            **{f"onebox-{name}": value for name, value in tags.items()},
        },
    }
    path = _output_file(context, inputs).with_suffix(".pkrvars.json")
    user_values = context.settings.image.vars
    data = packer_template.variables_file(template, {**common, **values}, user_values)
    write_atomically(path, data)
    return path


def _output_file(context: BoxContext, inputs: Mapping[str, str]) -> Path:
    """Return the path of the file to which Packer writes its output."""
    folder = private_dir(context.local_dir / "images")
    return folder / f"{recipe.digest(inputs)}.packer"
