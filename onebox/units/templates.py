"""
Fill the placeholders of a unit's command and of its folder.

`{name}` stands for a value, and only with a name in it: `{print $1}`, `{a,b}` and `{}`
stay as they are. With spaces around the name of a parameter it is a mistake. `${name}`
is the shell's. `{{name}}` is the text `{name}`, and `{{{name}}}` the value in braces.
Other braces stay, also two in a row, because JSON and awk have them.

In a line of shell, a value is one word, or a part of one, whatever characters it has:
it is quoted for the place where it stands, also between quotes of the user. If all its
characters are harmless, it stands there as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onebox.settings.checks import InvalidValue
from onebox.settings.quoting import nearest, show, suggest

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_BRACES = (
    rf"(?P<braced>\{{\{{\{{{_NAME}\}}\}}\}})|(?P<text>\{{\{{{_NAME}\}}\}})"
    rf"|\$\{{(?!\{{)|\{{(?P<name>{_NAME})\}}"
    rf"|(?<!\{{)\{{[ \t]*(?P<spaced>{_NAME})[ \t]*\}}(?!\}})"
)
_IN_WORDS = re.compile(_BRACES)
# In a line of shell, what follows decides how a value is quoted.
_IN_SHELL = re.compile(
    rf"{_BRACES}|(?P<quote>\\[\s\S]|\$'|'|\"|\$\(|`|<<|\n|(?:(?<=[\s;|&()])|^)#)"
)

# Where a placeholder is: in a word without a shell, in a line of shell outside quotes,
# in single or double quotes, or in a place whose quoting is not followed.
PLAIN, WORD, SINGLE, DOUBLE, UNCLEAR = "plain", "word", "single", "double", "unclear"


@dataclass(frozen=True)
class Template:
    """
    A template that has been read.

    Attributes:
        texts: The texts between the placeholders; there is one more than placeholders.

        places: The name and the kind of place of each placeholder.
    """

    texts: tuple[str, ...]
    places: tuple[tuple[str, str], ...]

    @property
    def names(self) -> frozenset[str]:
        """Return the names of all placeholders."""
        return frozenset(name for name, _ in self.places)

    def fill(self, values: Mapping[str, str]) -> str:
        """
        Return the text with *values* in it.

        Raises:
            InvalidValue: A value needs quotes where the quoting is not followed.
        """
        parts = [self.texts[0]]
        for (name, place), text in zip(self.places, self.texts[1:]):
            parts += (quoted(values[name], place, name), text)
        return "".join(parts)


def quoted(value: str, place: str, name: str) -> str:
    """Return a value as it is written in a place; see `Template.fill`."""
    if place == PLAIN:
        return value
    if place == DOUBLE:
        return re.sub(r'[\\$"`]', r"\\\g<0>", value)
    if place == SINGLE:
        return value.replace("'", "'\"'\"'")
    word = shlex.quote(value)
    if place == UNCLEAR and word != value:
        raise InvalidValue(
            f"the value {show(value)} of {{{name}}} needs quotes, and stands in a "
            "comment, or after <<, $', or a command inside double quotes",
            next=f'write "${name}" there: each parameter is a variable of the unit',
        )
    return word


def parse(template: str, known: Collection[str], *, is_line: bool) -> Template:
    """
    Return a template that has been read.

    Args:
        known: The names that may be placeholders.

        is_line: Whether the template is a line of shell.

    Raises:
        InvalidValue: A placeholder has another name, or spaces around its name.
    """
    texts, places = [""], []
    quotes = _Quotes()
    at = 0
    pattern = _IN_SHELL if is_line else _IN_WORDS
    while match := pattern.search(template, at):
        found, end = match.group(), match.end()
        texts[-1] += template[at : match.start()]
        name = found[3:-3] if match["braced"] else match["name"]
        if match["text"]:
            texts[-1] += found[1:-1]
        elif name:
            _check_known(name, known)
            places.append((name, quotes.place if is_line else PLAIN))
            texts[-1] += "{" if match["braced"] else ""
            texts.append("}" if match["braced"] else "")
        elif match["spaced"] in known:
            raise _spaced_error(found, match["spaced"])
        else:
            if is_line and match["quote"]:
                end = match.start() + quotes.follow(found)
            texts[-1] += template[match.start() : end]
        at = end
    texts[-1] += template[at:]
    return Template(tuple(texts), tuple(places))


def uses(command: str, name: str) -> bool:
    """
    Return whether a command has the placeholder of a name, or the shell's variable.

    Args:
        command: A line of shell, or words as one text.
    """
    for match in _IN_WORDS.finditer(command):
        if name == (match["name"] or (match["braced"] or "")[3:-3]):
            return True
    return bool(re.search(rf"\$(?:\{{[#!]?)?{name}(?![A-Za-z0-9_])", command))


def _spaced_error(found: str, name: str) -> InvalidValue:
    return InvalidValue(
        f"{found} is no placeholder, did you mean {{{name}}}?",
        next=f"write {{{name}}} for the value, {{{{{name}}}}} for the text {{{name}}}",
        meant=name,
    )


def _check_known(name: str, known: Collection[str]) -> None:
    if name in known:
        return
    near = nearest(name, known)
    listed = ", ".join(f"{{{one}}}" for one in list(known)[:10])
    hint = suggest(name, [f"{{{near}}}"]) if near else f"; known are {listed}"
    raise InvalidValue(
        f"{{{name}}} is no parameter{hint}",
        next=f"write {{{{{name}}}}} for the text {{{name}}}",
        meant=near,
    )


class _Quotes:
    """Follows the quotes of a line of shell."""

    def __init__(self) -> None:
        self._quote = ""
        self._comment = self._unclear = False

    @property
    def place(self) -> str:
        """Return the kind of place that has been reached."""
        if self._unclear or self._comment:
            return UNCLEAR
        return {"": WORD, "'": SINGLE, '"': DOUBLE}[self._quote]

    def follow(self, found: str) -> int:
        """Take in one mark of the shell; return how many of its characters it is."""
        if self._comment:
            self._comment = found != "\n"
            return 1
        if self._quote == "'":
            # Only the next ' has a meaning.
            self._quote = "" if found == "'" else "'"
            return 1
        if found[0] == "\\":
            return 2
        if found == "#":
            self._comment = not self._quote
        elif found == '"' or (found == "'" and not self._quote):
            self._quote = "" if self._quote else found
        elif found == "$'" and self._quote:
            # Between double quotes, both are characters.
            return len(found)
        elif (
            found in ("`", "$'")
            or (found == "$(" and self._quote)
            or (found == "<<" and not self._quote)
        ):
            self._unclear = True
        return len(found)


def expand(template: str, values: Mapping[str, str], *, is_line: bool = True) -> str:
    """
    Return a template with *values* in the places of its placeholders.

    Args:
        is_line: Whether it is a line of shell, in which values are quoted.

    Raises:
        InvalidValue: A placeholder is not in *values*, or a value cannot be quoted.
    """
    return parse(template, values, is_line=is_line).fill(values)
