"""Parse list filters, as far as onebox uses them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Test = Callable[[Mapping[str, Any]], bool]

_TOKEN = re.compile(
    r'\s*(?:(?P<paren>[()])|(?P<op>!=|>=|<=|=|>|<)|"(?P<text>[^"]*)"|(?P<word>[\w.\-]+))'
)
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


class FilterError(Exception):
    """A filter that Compute Engine refuses."""


def parse(text: str) -> Test:
    """Return the predicate of a filter; every resource passes an empty filter."""
    if not text:
        return lambda resource: True
    tokens = list(_tokens(text))
    test, rest = _either(tokens)
    if rest:
        raise FilterError(f"cannot read {text!r}")
    return test


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise FilterError(f"cannot read {text!r}")
        yield match.lastgroup, match[match.lastgroup]
        place = match.end()


def _either(tokens: list[tuple[str, str]]) -> tuple[Test, list[tuple[str, str]]]:
    """Parse terms that are joined by AND, or by OR."""
    test, tokens = _one(tokens)
    joint = ""
    while tokens and tokens[0] in (("word", "AND"), ("word", "OR")):
        if joint not in ("", tokens[0][1]):
            raise FilterError("AND and OR together require parentheses")
        joint = tokens[0][1]
        more, tokens = _one(tokens[1:])
        test = _joined(joint, test, more)
    return test, tokens


def _joined(joint: str, one: Test, other: Test) -> Test:
    if joint == "AND":
        return lambda resource: one(resource) and other(resource)
    return lambda resource: one(resource) or other(resource)


def _one(tokens: list[tuple[str, str]]) -> tuple[Test, list[tuple[str, str]]]:
    if tokens and tokens[0] == ("paren", "("):
        test, rest = _either(tokens[1:])
        if not rest or rest[0] != ("paren", ")"):
            raise FilterError("a parenthesis is not closed")
        return test, rest[1:]
    kinds = [kind for kind, _ in tokens[:3]]
    if kinds[:2] != ["word", "op"] or kinds[2:] not in (["text"], ["word"]):
        raise FilterError("expected: field, operator, value")
    field, compare = tokens[0][1], _OPERATORS[tokens[1][1]]
    value = tokens[2][1]
    return lambda resource: _compare(resource, field, compare, value), tokens[3:]


def _compare(
    resource: Mapping[str, Any],
    field: str,
    compare: Callable[[Any, Any], bool],
    value: str,
) -> bool:
    found: Any = resource
    for part in field.split(".", 1):
        found = found.get(part) if isinstance(found, Mapping) else None
    if found is None:
        return compare is operator.ne
    if isinstance(found, int) or compare not in (operator.eq, operator.ne):
        try:
            return compare(int(found), int(value))
        except ValueError as error:
            raise FilterError(f"{field} is compared with {value!r}") from error
    return compare(str(found), value)
