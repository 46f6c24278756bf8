"""Read the variables and the builders of a Packer template; write its variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onebox.errors import ConfigError, InputError
from onebox.settings.quoting import suggest

# Packer's `null` builder creates no machine: it runs the provisioners on an existing
# one, here on a builder box of onebox.
NULL = "null"
# The variables through which a `null` template receives the builder's SSH endpoint.
SSH_VARIABLES = ("ssh_host", "ssh_port", "ssh_username", "ssh_private_key_file")

_COMMENT = re.compile(r"/\*.*?\*/|^\s*(?:#|//).*?$", re.DOTALL | re.MULTILINE)
_VARIABLE = re.compile(r'^\s*variable\s+"([^"]+)"', re.MULTILINE)
_VARIABLES = re.compile(r"^\s*variables\s*\{(.*?)\}", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"^\s*([A-Za-z_][\w-]*)\s*=", re.MULTILINE)
_SOURCE = re.compile(r'^\s*source\s+"([^"]+)"\s+"[^"]+"', re.MULTILINE)


@dataclass(frozen=True)
class Template:
    """
    The parts of a Packer template that onebox uses.

    Attributes:
        name: The file's name.

        hcl: True if the template is HCL2, in native or in JSON syntax; False if it is
            legacy JSON.

        variables: The names of the declared variables.

        builders: The types of the builders.
    """

    name: str
    hcl: bool
    variables: frozenset[str]
    builders: frozenset[str]

    @property
    def on_a_box(self) -> bool:
        """Return whether the template runs on a builder box of onebox."""
        return NULL in self.builders


def read(root: Path, name: str) -> Template:
    """
    Read a template.

    Raises:
        InputError: The template cannot be read.

        ConfigError: The template has no source, or it has a `null` source and also
            another source. Or it has a `null` source, but does not declare a variable
            for the SSH endpoint.
    """
    variables: Iterable[str]
    builders: Iterable[str]
    try:
        text = (root / name).read_text("utf-8")
        if name.endswith(".pkr.json"):
            document = json.loads(text)
            variables = document.get("variable", {})
            builders = document.get("source", {})
        elif name.endswith(".json"):
            document = json.loads(text)
            variables = document.get("variables", {})
            builders = [builder["type"] for builder in document.get("builders", [])]
        else:
            text = _COMMENT.sub("", text)
            blocks = "\n".join(_VARIABLES.findall(text))
            variables = {*_VARIABLE.findall(text), *_NAME.findall(blocks)}
            builders = _SOURCE.findall(text)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"[image] packer: {name} cannot be read: {error}") from error
    hcl = name.endswith((".hcl", ".pkr.json"))
    template = Template(name, hcl, frozenset(variables), frozenset(builders))
    _check(template)
    return template


def _check(template: Template) -> None:
    name = template.name
    if not template.builders:
        raise ConfigError(f"[image] packer: {name} has no source, so it builds nothing")
    if not template.on_a_box:
        return
    if len(template.builders) > 1:
        others = ", ".join(sorted(template.builders - {NULL}))
        raise ConfigError(
            f"[image] packer: {name} has a null source and also {others}; only one "
            "source is supported"
        )
    missing = [name for name in SSH_VARIABLES if name not in template.variables]
    if missing:
        raise ConfigError(
            f"[image] packer: {name} has a null source, but no variable {missing[0]}: "
            "its source must use the variables " + ", ".join(SSH_VARIABLES)
        )


def variables_file(
    template: Template, values: Mapping[str, Any], user_values: Mapping[str, str]
) -> bytes:
    """
    Return the contents of a JSON file that sets variables for Packer.

    Args:
        values: The values that onebox provides, by variable. Variables that the
            template does not declare are left out.

        user_values: The values of [image] vars. They replace the values of onebox.

    Raises:
        ConfigError: The template does not declare a variable of [image] vars.
    """
    for name in user_values:
        if name not in template.variables:
            raise ConfigError(
                f"[image] vars: {template.name} declares no variable {name}"
                + suggest(name, sorted(template.variables))
            )
    declared = {name: values[name] for name in values if name in template.variables}
    declared.update(user_values)
    if not template.hcl:
        # A legacy template has only string variables, so other values become JSON text.
        declared = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in declared.items()
        }
    return json.dumps(declared, indent=1, sort_keys=True).encode()
