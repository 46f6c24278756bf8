"""
Check the value of one setting, after it was converted to the setting's kind.

A check raises `InvalidValue`. Its text completes a sentence that begins with the
setting's key.
"""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from onebox.repositories import repository_of
from onebox.settings import conda
from onebox.settings.kinds import scalar_text
from onebox.settings.ports import PortPair
from onebox.settings.quoting import nearest, show, suggest
from onebox.settings.secret_detection import looks_secret, names_secret
from onebox.settings.units import format_bytes

Check = Callable[[object], None]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PACKER_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


MOST_TAGS = 20


class InvalidValue(ValueError):
    """
    A value is not allowed for its setting; the text of the error is the reason.

    *next* says what to write instead, if that is more than the reason. *meant* is the
    value that was probably meant.
    """

    def __init__(self, reason: str, next: str = "", meant: str = "") -> None:
        super().__init__(reason)
        self.next = next
        self.meant = meant


@dataclass(frozen=True)
class OneOf:
    """Accept one of a closed list of words."""

    words: tuple[str, ...]

    def __call__(self, value: object) -> None:
        """Raise InvalidValue if *value* is not one of the words."""
        if value not in self.words:
            raise InvalidValue(
                f"{show(value)} is not one of {', '.join(self.words)}"
                + suggest(str(value), self.words),
                meant=nearest(str(value), self.words),
            )


@dataclass(frozen=True)
class Matching:
    """Accept a string, or a list of strings, that match a regular expression."""

    pattern: str
    meaning: str

    def __call__(self, value: object) -> None:
        """Raise InvalidValue for a string that does not match."""
        for item in _items(value):
            if re.fullmatch(self.pattern, item) is None:
                raise InvalidValue(f"{show(item)} is not {self.meaning}")


@dataclass(frozen=True)
class Between:
    """Accept numbers from *low* to *high*; *expected* describes them in words."""

    low: float
    high: float
    write: Callable[[float], str] = show
    expected: str = ""

    def __call__(self, value: object) -> None:
        """Raise InvalidValue for a number outside the range."""
        assert isinstance(value, (int, float))
        if not self.low <= value <= self.high:
            expected = (
                self.expected or f"{self.write(self.low)} to {self.write(self.high)}"
            )
            raise InvalidValue(f"{self.write(value)} is out of range; use {expected}")


def bytes_from(low: int) -> Between:
    """Return a check for *low* bytes to 64 TB; a larger amount must be a mistake."""
    return Between(low, 64 << 40, lambda value: format_bytes(int(value)))


def seconds_between(low: float, high: float) -> Between:
    """Return a check for *low* to *high* seconds."""
    return Between(low, high, lambda value: f"{value:g} s")


is_name = Matching(
    r"[a-z][a-z0-9-]{0,30}",
    "a name: a lower-case letter, then at most 30 lower-case letters, digits or dashes",
)
is_variable = Matching(
    _VARIABLE.pattern, "a variable's name: letters, digits and _, not a digit first"
)


def acceptable_text(
    value: object, name: str = "", *, may_be_secret: bool = False
) -> None:
    """
    Refuse secrets, and characters that no name or path can contain.

    Args:
        may_be_secret: Accept a string that is a secret.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            acceptable_text(key)
            text = scalar_text(item)
            if text is not None and names_secret(key, text):
                _refuse_secret(key)
            acceptable_text(item, key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            acceptable_text(item)
    elif isinstance(value, str):
        if not may_be_secret and looks_secret(value):
            _refuse_secret(name)
        for character in value:
            if "\ud800" <= character <= "\udfff":
                raise InvalidValue("is not valid UTF-8")
            if character < " " and character not in "\n\t":
                raise InvalidValue("contains a control character")


def _refuse_secret(name: str) -> NoReturn:
    raise InvalidValue(
        f"{f'{name}: ' if name else ''}looks like a secret; list the name of its "
        "variable in [run] secrets"
    )


def one_line(value: object) -> None:
    """Refuse line breaks, tabs, and spaces at either end."""
    for item in _items(value):
        if "\n" in item or "\t" in item:
            raise InvalidValue(f"{show(item)} contains a line break or a tab")
        if item != item.strip():
            raise InvalidValue(f"{show(item)} begins or ends with a space")


def not_empty(value: object) -> None:
    """Refuse empty strings."""
    if not all(item.strip() for item in _items(value)):
        raise InvalidValue("is empty")


def distinct(value: object) -> None:
    """Refuse a list with the same entry twice."""
    seen: set[str] = set()
    for item in _items(value):
        if item in seen:
            raise InvalidValue(f"{show(item)} is listed twice")
        seen.add(item)


def in_project(value: object) -> None:
    """Refuse paths outside the project."""
    for item in _items(value):
        one_line(item)
        if not item:
            raise InvalidValue('"" is not a path; "." is the whole project')
        if item.startswith(("/", "~")):
            raise InvalidValue(f"{show(item)} is not relative to the project")
        if ".." in item.split("/"):
            outside = posixpath.normpath(item).startswith("..")
            problem = "leaves the project" if outside else "contains .."
            raise InvalidValue(f"{show(item)} {problem}; write a path without ..")


def job_output(value: object) -> None:
    """
    Refuse paths that cannot be an output of a job.

    These are paths outside the project, patterns, the whole project, and folders of
    version control or onebox.
    """
    in_project(value)
    for item in _items(value):
        if "." in item.split("/"):
            raise InvalidValue(f"{show(item)} contains a . folder; name a folder")
        if "*" in item or "?" in item:
            raise InvalidValue(f"{show(item)} is a pattern; name a file or folder")
        if repository_of(os.fsencode(item)) is not None:
            raise InvalidValue(
                f"{show(item)} cannot be an output: version control runs programs "
                "that are configured there"
            )
        if item.split("/")[0].lower() == ".onebox":
            raise InvalidValue(f"{show(item)} belongs to onebox; name another folder")


def outputs_folder(value: object) -> None:
    """
    Refuse folders that cannot receive outputs.

    A folder must pass `job_output`. Only {name} may be in braces. It may not be in the
    first part of the path, because `.gitignore` has to name that part.
    """
    job_output(value)
    text = str(value)
    if set(text.replace("{name}", "")) & set("{}"):
        raise InvalidValue(f"{show(text)}: only {{name}} may be in braces")
    if "{name}" in text.split("/")[0]:
        raise InvalidValue(
            f'{show(text)} has {{name}} in its first folder; write "runs/{{name}}"'
        )


def packages_file(value: object) -> None:
    """Refuse paths outside the project, and files of conda, which uv cannot read."""
    in_project(value)
    for item in _items(value):
        if item.endswith((".yml", ".yaml")):
            raise InvalidValue(
                f"{show(item)} is a file of conda, and uv installs the packages",
                next=f'setup = "setup.sh", include = [{show(item)}]; setup.sh is:\n'
                + conda.setup_script(item),
            )


def environment(value: object) -> None:
    """Refuse keys that cannot name a variable, and keys that begin with ONEBOX_."""
    assert isinstance(value, dict)
    for name in value:
        is_variable(name)
        if name.startswith("ONEBOX_"):
            raise InvalidValue(f"{name} is reserved for onebox")


def packer_variables(value: object) -> None:
    """Refuse keys that cannot name a variable of a Packer template."""
    assert isinstance(value, dict)
    for name in value:
        if _PACKER_VARIABLE.fullmatch(name) is None:
            raise InvalidValue(f"{show(name)} is not a variable's name")


def ports(value: object) -> None:
    """Refuse text that is neither a port nor a pair of ports such as "8080:80"."""
    for item in _items(value):
        try:
            PortPair.parse(item)
        except ValueError as error:
            raise InvalidValue(str(error)) from None


def cloud_tags(value: object) -> None:
    """
    Refuse tags that no cloud can have, or that could be taken for onebox's own.

    All clouds of onebox allow the number of tags; the cloud with the lowest limit is
    AWS, with 50 tags on an object, of which onebox uses up to 28 (EC2 user guide, "Tag
    your Amazon EC2 resources"). What each cloud allows in a tag is in its settings.
    """
    assert isinstance(value, dict)
    if len(value) > MOST_TAGS:
        raise InvalidValue(f"has {len(value)} tags; at most {MOST_TAGS} are possible")
    for name, text in value.items():
        one_line((name, text))
        if not name:
            raise InvalidValue("a tag needs a key")
        if name == "Name" or name.lower().startswith("onebox"):
            raise InvalidValue(f"the key {show(name)} is reserved for onebox")


def is_cidr(value: object) -> None:
    """Refuse text that is not a network in CIDR notation."""
    try:
        ipaddress.ip_network(str(value))
    except ValueError:
        raise InvalidValue(
            f"{show(value)} is not a network such as 203.0.113.7/32"
        ) from None


def is_endpoint(value: object) -> None:
    """Refuse a URL that is not https; only a URL of this machine may be http."""
    try:
        parts = urlsplit(str(value))
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if not host or parts.scheme not in ("https", "http"):
        raise InvalidValue(f"{show(value)} is not a URL such as https://example.com")
    if parts.scheme == "http" and host not in ("127.0.0.1", "localhost", "::1"):
        raise InvalidValue(f"{show(value)} needs https: credentials are sent there")


def is_web_address(value: object) -> None:
    """
    Refuse text that is not an http or https URL.

    The text of the error does not contain the URL, which may contain a token.
    """
    try:
        parts = urlsplit(str(value))
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    is_plain = str(value).isascii() and not re.search(r"\s", str(value))
    if not host or not is_plain or parts.scheme not in ("https", "http"):
        raise InvalidValue("is not a URL such as https://example.com/hook")


def _items(value: object) -> Sequence[str]:
    if isinstance(value, str):
        return (value,)
    assert isinstance(value, tuple)
    return value
