"""TOML is read with the line of each value; texts that toml misreads are refused."""

from __future__ import annotations

import functools
import json
import random
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebox.settings.toml_file import Malformed, TomlEntry, parse


def as_tables(entries: Iterable[TomlEntry]) -> dict[str, Any]:
    """Return entries as nested tables."""
    root: dict[str, Any] = {}
    for entry in entries:
        table = root
        for part in entry.path[:-1]:
            table = table.setdefault(part, {})
        if entry.value is None:
            table.setdefault(entry.path[-1], {})
        else:
            table[entry.path[-1]] = entry.value
    return root


def test_each_value_has_the_line_of_its_key() -> None:
    """Comments, strings of several lines and brackets do not shift the lines."""
    text = (
        "# comment\n"  # 1
        'a = """one\n'  # 2
        '[no.table] # "\n'  # 3
        'two"""\n'  # 4
        "[t] # [not] = this\n"  # 5
        "b = [ # ]\n"  # 6
        '  "x,]", # "\n'  # 7
        "  'y'\n"  # 8
        "]\n"  # 9
        'c.d."e.f" = 1\r\n'  # 10
        "[ t . 'u' ]\n"  # 11
        "g = { h = 2, i = '}' }\n"  # 12
    )
    entries = parse(text)
    assert {entry.path: entry.line for entry in entries if entry.value is not None} == {
        ("a",): 2,
        ("t", "b"): 6,
        ("t", "c", "d", "e.f"): 10,
        ("t", "u", "g", "h"): 12,
        ("t", "u", "g", "i"): 12,
    }
    assert as_tables(entries)["t"]["b"] == ["x,]", "y"]
    assert as_tables(entries)["a"] == 'one\n[no.table] # "\ntwo'
    assert [entry.line for entry in entries if entry.path == ("t", "u")] == [11]


INVALID = "is not valid TOML: write key = value, strings in quotes, lists of one type"
COMMA = (
    'toml cannot read a string with a comma at its start or after \\" between brackets'
)
KEY = "toml cannot read a key with = or , between braces; write the table in lines"
LIMIT = (
    "is TOML that the toml package cannot read: write it with spaces around =, and "
    "with lists of one type"
    if sys.version_info >= (3, 11)
    else INVALID
)
DOTS = "toml cannot read a string of several lines here; write [t] above it"
LITERAL = "toml cannot read a line that ends with \\ in '''; write \\\\ in \"\"\""
SINGLE = "toml cannot read this escaped string; write it in single quotes"


@pytest.mark.parametrize(
    ("text", "line", "label", "problem"),
    [
        ("a", 1, "", "expected key = value, or a [table]"),
        ("a =", 1, "a", INVALID),
        ("\n= 1", 2, "", "expected key = value, or a [table]"),
        ("a = 1 b = 2", 1, "a", INVALID),
        ("[t]\n\na = yes\nb = 1", 3, "[t] a", INVALID),
        ("a = 012", 1, "a", INVALID),
        ('a = "x', 1, "a", "a string has no closing quote"),
        ('b = 1\na = """x\n', 2, "a", "a string has no closing quote"),
        ("a = 'x\n'", 1, "a", "a string has no closing quote"),
        ('a = "\\q"', 1, "a", INVALID),
        ('a = "\\ud800"', 1, "a", INVALID),
        ("b = 1\na = [1", 2, "a", "a bracket is not closed"),
        ("a = {b = 1", 1, "a", "a bracket is not closed"),
        ("a = [\n1\n2]", 1, "a", INVALID),
        ("a = 1\n\na = 2", 3, "a", "is already in line 1"),
        ("[t]\na = 1\n[t]", 3, "[t]", "is already in line 1"),
        ("[t]\na = 1\n[t.a]", 3, "[t.a]", INVALID),
        ("a.b = 1\n[a]", 2, "[a]", INVALID),
        ("a = {b = 1}\n[a]", 2, "[a]", INVALID),
        ("a = {b = 1,}", 1, "a", INVALID),
        ("[[a]]", 1, "", "expected key = value, or a [table]"),
        ("[a", 1, "", "expected key = value, or a [table]"),
        ("[]", 1, "", "expected key = value, or a [table]"),
        ("a = 1\rb = 2", 1, "a", INVALID),
        # toml 0.10.2 reads each of these as another string, without an error.
        ('a = "\\""', 1, "a", SINGLE),
        ('a = ["x", "\\u0022"]', 1, "a", SINGLE),
        ('a = "\\"\\" x"', 1, "a", SINGLE),
        ('a = "\\u005cn"', 1, "a", SINGLE),
        ("b = 1\na = '''x \\\ny'''", 2, "a", LITERAL),
        ('a = ["x", ","]', 1, "a", COMMA),
        ("a = { b = ', x' }", 1, "a", COMMA),
        ('a = ["\\"x\\", y"]', 1, "a", COMMA),
        # These are valid.
        ('[run]\nenv={ "A=B"="x" }', 2, "[run] env", KEY),
        ("a = { b = 1, 'c,d' = 2 }", 1, "a", KEY),
        ("a=0x1F", 1, "a", LIMIT),
        ('a = [1, "x"]', 1, "a", LIMIT),
        ('t.a = """m\nn"""', 1, "[t] a", DOTS),
        ("[s]\nt.a = '''\nn'''", 2, "[s.t] a", DOTS.replace("[t]", "[s.t]")),
    ],
)
def test_a_mistake_has_its_line_and_key(
    text: str, line: int, label: str, problem: str
) -> None:
    """A text that is not TOML is refused with a line, a key and a reason."""
    with pytest.raises(Malformed) as caught:
        parse(text)
    mistake = caught.value
    assert (mistake.line, mistake.label, mistake.problem) == (line, label, problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"echo \\"a b\\""', 'echo "a b"'),
        ('"\\"a b\\" c"', '"a b" c'),
        ("'\"'", '"'),
        ('"C:\\\\"', "C:\\"),
        ("0x1F", 31),
        ('"""\r\nx\r\n"""', "x\n"),
        ("[[1, 2], ['x']]", [[1, 2], ["x"]]),
        ('"it\'s # not \\" a comment" # but this is', "it's # not \" a comment"),
    ],
)
def test_notations_of_toml_are_read(text: str, value: object) -> None:
    """Escapes, hexadecimal numbers and lists of lists are values as in any TOML."""
    assert as_tables(parse(f"a = {text}\n")) == {"a": value}


PIECES = st.sampled_from(
    [
        *"abt[]{}=.,#\"'\\ \n\t",
        '"""', "'''", "\r\n", "[t]", "[t.a]", "a = ", "b = ", "t.a = ", "{ a = 1 }",
        '"x"', "'y'", "1", "-2.5", "1e3", "true", "[1, 2]", "\\n", "\\u00e9", "é", "\n",
        "\\u005c", "\\U00000022", '\\"',
        '["p", "q"]', '"""m\nn"""', "'''m\nn'''", "\\\n  ",
    ]
)  # fmt: skip


@settings(max_examples=1500)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_valid_toml_is_read_as_pythons_own_reader_reads_it(text: str) -> None:
    """If a text is valid TOML, it is refused or read as Python's reader reads it."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 on")
    try:
        mine = as_tables(parse(text))
    except Malformed:
        return
    try:
        theirs = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert mine == theirs


SCALARS = st.one_of(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=20
    ),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.booleans(),
)


@settings(max_examples=400)
@given(
    st.dictionaries(
        st.text("ab-_é'#=[]", min_size=1, max_size=4),
        st.one_of(SCALARS, st.lists(st.text("ab \\'#,]é", max_size=5), max_size=4)),
        max_size=5,
    ),
    st.integers(),
)
def test_a_written_file_is_read_or_refused(values: dict[str, Any], seed: int) -> None:
    """A valid file comes back value by value, unless its escapes are refused."""
    rng = random.Random(seed)
    write = functools.partial(json.dumps, ensure_ascii=False)
    lines = [
        f"{write(key)} = {write(value)}"
        + rng.choice(["\n", "\r\n", " # x = 1\n", "\n\n# t\n"])
        for key, value in values.items()
    ]
    try:
        entries = parse("".join(lines))
    except Malformed:
        return
    assert as_tables(entries) == values


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        "[" + "a." * 30_000 + "a]",
        "a." * 30_000 + "a = 1",
        "a = {" * 10_000,
        "a = [" * 10_000,
        'a = """' + '"" ' * 20_000,
        'a = "' + "\\n" * 30_000,
        "#\n" * 30_000 + "a",
        "\n".join(f"a{number}.b = 1" for number in range(3_000)) + "\nc",
    ],
)
def test_a_hostile_file_is_refused(text: str) -> None:
    """No file of the accepted length makes the reader fail or hang."""
    with pytest.raises(Malformed):
        parse(text)
