"""Read of a Packer template what onebox must know: its variables and its builders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onebox.errors import ConfigError, InputError
from onebox.settings.quoting import suggest

# The builder that builds nothing: it runs its provisioners on a machine that is
# there, which is where a builder box of ours comes in.
NULL = "null"
# By these a template with that builder learns which machine, and how to get in.
BOX = ("ssh_host", "ssh_port", "ssh_username", "ssh_private_key_file")

_COMMENT = re.compile(r"/\*.*?\*/|^\s*(?:#|//).*?$", re.DOTALL | re.MULTILINE)
_VARIABLE = re.compile(r'^\s*variable\s+"([^"]+)"', re.MULTILINE)
_VARIABLES = re.compile(r"^\s*variables\s*\{(.*?)\}", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"^\s*([A-Za-z_][\w-]*)\s*=", re.MULTILINE)
_SOURCE = re.compile(r'^\s*source\s+"([^"]+)"\s+"[^"]+"', re.MULTILINE)


@dataclass(frozen=True)
class Template:
    """
    A template: its *variables* and the types of its *builders*.

    *hcl* tells whether it is one of Packer's newer language, in either writing.
    """

    name: str
    hcl: bool
    variables: frozenset[str]
    builders: frozenset[str]

    @property
    def on_a_box(self) -> bool:
        """Whether it runs on a machine that is there, and not on one of its own."""
        return NULL in self.builders


def read(root: Path, name: str) -> Template:
    """
    Read the template.

    Raises:
        InputError: It cannot be read.

        ConfigError: It builds nothing, or in two ways at once.
    """
    variables: Iterable[str]
    builders: Iterable[str]
    try:
        text = (root / name).read_text("utf-8")
        if name.endswith(".pkr.json"):
            told = json.loads(text)
            variables, builders = told.get("variable", {}), told.get("source", {})
        elif name.endswith(".json"):
            told = json.loads(text)
            variables = told.get("variables", {})
            builders = [one["type"] for one in told.get("builders", [])]
        else:
            text = _COMMENT.sub("", text)
            blocks = "\n".join(_VARIABLES.findall(text))
            variables = {*_VARIABLE.findall(text), *_NAME.findall(blocks)}
            builders = _SOURCE.findall(text)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"[image] packer: {name} cannot be read: {error}") from error
    hcl = name.endswith((".hcl", ".pkr.json"))
    found = Template(name, hcl, frozenset(variables), frozenset(builders))
    if not found.builders:
        raise ConfigError(f"[image] packer: {name} has no source, so it builds nothing")
    if found.on_a_box and len(found.builders) > 1:
        others = ", ".join(sorted(found.builders - {NULL}))
        raise ConfigError(
            f"[image] packer: {name} has a null source beside {others}; an image is "
            "built in one way"
        )
    missing = [one for one in BOX if one not in found.variables]
    if found.on_a_box and missing:
        raise ConfigError(
            f"[image] packer: {name} has a null source, and no variable {missing[0]}: "
            "its source must take the builder box from the variables " + ", ".join(BOX)
        )
    return found


def values(
    template: Template, ours: Mapping[str, Any], users: Mapping[str, str]
) -> bytes:
    """
    Return the file of variables that Packer is given: the declared ones of ours.

    Raises:
        ConfigError: The user names a variable that the template does not declare.
    """
    for name in users:
        if name not in template.variables:
            raise ConfigError(
                f"[image] vars: {template.name} declares no variable {name}"
                + suggest(name, sorted(template.variables))
            )
    chosen = {name: ours[name] for name in ours if name in template.variables}
    chosen.update(users)
    if not template.hcl:
        # The older language has texts alone.
        chosen = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in chosen.items()
        }
    return json.dumps(chosen, indent=1, sort_keys=True).encode()
