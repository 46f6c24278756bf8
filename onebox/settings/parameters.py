"""
Read the parameters of `inv map`: their names, lists of values, and ranges.

A range is a text such as "1..50" or "0..100..5". It has whole numbers, and its last
number belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from onebox.settings.checks import InvalidValue, is_variable
from onebox.settings.kinds import Kind, scalar_text
from onebox.settings.quoting import show

# The most units of a run, so also the most values of one parameter.
MOST_UNITS = 100_000

_NUMBER = r"-?(?:0|[1-9][0-9]{0,14})"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?:\.\.({_NUMBER}))?")
_PADDED = re.compile(r"-?[0-9]+\.\.-?[0-9]+(?:\.\.-?[0-9]+)?")
_EXPECTED = 'expected a list of values, or a range such as "1..50"'

# The parameter is a variable of the unit too. As a variable, each of these changes how
# the unit's shell or its programs start, or the shell sets it itself.
# fmt: off
_TAKEN = frozenset(
    [
        "BASHOPTS", "CDPATH", "ENV", "EUID", "GLOBIGNORE", "HOME", "IFS", "LOGNAME",
        "OLDPWD", "OPTIND", "PATH", "PPID", "PS4", "PWD", "PYTHONHOME", "PYTHONPATH",
        "PYTHONSTARTUP", "SHELL", "SHELLOPTS", "SHLVL", "TMPDIR", "UID", "USER",
        "VIRTUAL_ENV", "_",
    ]
)
# fmt: on
_TAKEN_PREFIXES = ("BASH_", "LD_")
# These placeholders of a command are no parameters.
PLACEHOLDERS = ("unit", "outputs")


def check_name(name: str) -> None:
    """
    Refuse a name that no parameter can have.

    Raises:
        InvalidValue: It is no variable's name, or is used otherwise.
    """
    is_variable(name)
    if name.upper().startswith("ONEBOX_"):
        raise InvalidValue(f"{name} is reserved for onebox")
    if name in PLACEHOLDERS:
        raise InvalidValue(
            f"{{{name}}} already stands for the unit's "
            f"{'number' if name == 'unit' else 'folder'}; choose another name"
        )
    if name in _TAKEN or name.startswith(_TAKEN_PREFIXES):
        raise InvalidValue(
            f"{name} would change how the unit's programs start; choose another name"
        )


def parse_range(text: str) -> tuple[str, ...] | None:
    """
    Return the numbers of a range as texts, None if the text is no range.

    Raises:
        InvalidValue: The range is empty or too long, or a number begins with 0.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        if _PADDED.fullmatch(text):
            raise InvalidValue(
                f"{show(text)}: a number begins with 0 or is too long; list the texts"
            )
        return None
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if step == 0:
        raise InvalidValue(f"{show(text)} has a step of 0")
    if (last - first) * step < 0:
        raise InvalidValue(
            f"{show(text)} is empty",
            next=f'"{last}..{first}" counts up, "{first}..{last}..{-step}" counts down',
        )
    count = (last - first) // step + 1
    if count > MOST_UNITS:
        raise InvalidValue(
            f"{show(text)} has {count:,} values; at most {MOST_UNITS:,} are possible"
        )
    numbers = range(first, last + (1 if step > 0 else -1), step)
    return tuple(map(str, numbers))


def check_distinct(values: Sequence[str]) -> None:
    """Raise InvalidValue for a value that is listed twice: two units would be equal."""
    if len(set(values)) == len(values):
        return
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise InvalidValue(f"{show(value)} is listed twice")
        seen.add(value)


def _values(value: object) -> tuple[str, ...]:
    """
    Return the values of one parameter. A number in a list becomes its text.

    Raises:
        InvalidValue: It is neither a list of texts, numbers and booleans nor a range.
    """
    if isinstance(value, str):
        numbers = parse_range(value)
        if numbers is None:
            raise InvalidValue(f"{_EXPECTED}, got {show(value)}")
        return numbers
    if not isinstance(value, (list, tuple, range)):
        got = "a table" if isinstance(value, dict) else show(value)
        raise InvalidValue(f"{_EXPECTED}, got {got}")
    if not value:
        raise InvalidValue(f"{_EXPECTED}, got an empty list")
    if len(value) > MOST_UNITS:
        raise InvalidValue(
            f"has {len(value):,} values; at most {MOST_UNITS:,} are possible"
        )
    texts = []
    for item in value:
        text = scalar_text(item)
        if text is None:
            got = "a list" if isinstance(item, (list, tuple)) else show(item)
            raise InvalidValue(
                f"expected a list of strings, numbers and booleans, got {got} in it"
            )
        texts.append(text)
    check_distinct(texts)
    return tuple(texts)


def _parameters(value: object) -> object:
    if not isinstance(value, dict):
        return None
    found = {}
    for name, item in value.items():
        check_name(str(name))
        try:
            found[str(name)] = _values(item)
        except InvalidValue as problem:
            if len(value) == 1:
                raise
            # A table that Python code gives has no line for each parameter.
            raise InvalidValue(f"{name}: {problem}", problem.next) from None
    return found


PARAMETERS = Kind(
    "a table of parameters",
    _parameters,
    {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {
            "anyOf": [
                {
                    "type": "array",
                    "items": {"type": ["string", "number", "boolean"]},
                    "minItems": 1,
                    "uniqueItems": True,
                },
                {"type": "string", "pattern": f"^{_RANGE.pattern}$"},
            ]
        },
    },
    scalar=False,
    table=True,
)
