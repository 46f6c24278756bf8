"""Reading TOML with lines: as Python's own reader where that one agrees to."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebox.config.document import MalformedError, read


def tree(text: str) -> dict[str, Any]:
    """Read a text and put the values back into tables."""
    found = read(text)
    root: dict[str, Any] = {}
    for path in found.tables:
        _table(root, path)
    for path, entry in found.values.items():
        _table(root, path[:-1])[path[-1]] = entry.value
    return root


def _table(root: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for part in path:
        root = root.setdefault(part, {})
    return root


def test_lines_are_those_of_the_keys() -> None:
    """Every value knows the line of its key, whatever stands around it."""
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
        "g = { h = 2, i.j = '}' }\n"  # 12
    )
    found = read(text)
    assert {path: entry.line for path, entry in found.values.items()} == {
        ("a",): 2,
        ("t", "b"): 6,
        ("t", "c", "d", "e.f"): 10,
        ("t", "u", "g", "h"): 12,
        ("t", "u", "g", "i", "j"): 12,
    }
    assert found.values[("t", "b")].value == ["x,]", "y"]
    assert found.values[("a",)].value == 'one\n[no.table] # "\ntwo'
    assert found.tables[("t", "u")] == 11


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a", 1, "a: wants = and a value after it"),
        ("a =", 1, "a: wants a value after ="),
        ("\n= 1", 2, "wants key = value, or a [table]"),
        ("a = 1 b = 2", 1, "one key and value per line, nothing after it"),
        ("a = yes", 1, 'a: "yes" is not a value; texts stand in quotes'),
        ("a = 1979-05-27", 1, 'a: "1979-05-27" is not a value; texts stand in quotes'),
        ("a = 0x1F", 1, 'a: "0x1F" is not a value; texts stand in quotes'),
        ("a = 012", 1, 'a: "012" is not a value; texts stand in quotes'),
        ("a = nan", 1, 'a: "nan" is not a value; texts stand in quotes'),
        ('a = "x', 1, 'a: the text has no closing "'),
        ('a = """x\n', 1, 'a: the text has no closing """'),
        ("a = 'x\n'", 1, "a: the text has no closing '"),
        ('a = "\\q"', 1, 'a: cannot be read; a backslash in "…" is written \\\\'),
        ('a = "\\ud800"', 1, 'a: cannot be read; a backslash in "…" is written \\\\'),
        ("a = [1", 1, "a: the list has no ]"),
        ("a = [\n1\n2]", 3, "a: values in a list have commas between them"),
        ("a = [[1]]", 1, "a: lists hold plain values only"),
        ("a = [{}]", 1, "a: lists hold plain values only"),
        ("a = 1\n\na = 2", 3, "a: already set in line 1"),
        ("[t]\na = 1\n[t]", 3, "[t] is already there, in line 1"),
        ("[t]\na = 1\n[t.a]", 3, "[t] a: is a value already, in line 2"),
        ("a.b = 1\n[a]", 2, "[a] is already there, in line 1"),
        ("a = {b = 1}\n[a.c]", 2, "a: is complete already, in line 1"),
        ("a = {b = 1}\n[a]", 2, "[a] is already there, in line 1"),
        ("a = {b = 1}\na.c = 2", 2, "a: is complete already, in line 1"),
        ("[a]\n[b]\n[a.b.c]\n[a.d]\nx=1\n[a]", 6, "[a] is already there, in line 1"),
        ("[a.b]\nx = 1\n[a]\nb.y = 2", 4, "[a.b] is already there, in line 1"),
        ("[a.b]\nx = 1\n[a]\nb = 2", 4, "[a] b: is a table already, from line 1"),
        ("a = {b = 1,}", 1, "a: { … } wants key = value, key = value on one line"),
        ("a = {b = 1\n}", 1, "a: { … } wants key = value, key = value on one line"),
        ("a = {b = 1", 1, "a: { … } wants key = value, key = value on one line"),
        ("[[a]]", 1, "[[tables]] have no use here; write [table]"),
        ('a = """"#"""', 1, 'a: cannot be read; a backslash in "…" is written \\\\'),
        ("[a", 1, "a table's name ends with ]"),
        ("[]", 1, "wants key = value, or a [table]"),
        ("\na = '\x00'", 2, "a control character, which TOML does not allow"),
        ("a = 1\rb = 2", 1, "a control character, which TOML does not allow"),
        ("a=" + "{a=" * 30, 1, "tables nested too deep"),
    ],
)
def test_what_is_not_read(text: str, line: int, problem: str) -> None:
    """Every error has its line and says what is wanted there."""
    with pytest.raises(MalformedError) as caught:
        read(text)
    assert (caught.value.line, caught.value.problem) == (line, problem)


def test_both_value_and_table() -> None:
    """A name is a value and a table only where that was asked for."""
    text = 'vm = "a"\n[vm.b]\nc = 1\n'
    found = read(text, frozenset({("vm",)}))
    assert [entry.value for entry in found.values.values()] == ["a", 1]
    with pytest.raises(MalformedError, match="vm: is a value already, in line 1"):
        read(text)


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
def test_same_as_pythons_own_reader(text: str) -> None:
    """Whatever is read here, Python's own TOML reader reads as the same."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 on")
    try:
        mine = tree(text)
    except MalformedError:
        return
    assert mine == tomllib.loads(text)


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
        st.text("ab-_ .é\"'#=[]", min_size=1, max_size=4),
        st.one_of(SCALARS, st.lists(SCALARS, max_size=4)),
        max_size=5,
    ),
    st.integers(),
)
def test_reads_what_is_written(values: dict[str, Any], seed: int) -> None:
    """Valid TOML comes back value by value, quoted keys and all escapes too."""
    rng = random.Random(seed)
    lines = [
        f"{quote(key)}{' ' * rng.randrange(3)}={' ' * rng.randrange(3)}{write(value)}"
        + rng.choice(["\n", "\r\n", " # x = 1\n", "\n\n# [t]\n"])
        for key, value in values.items()
    ]
    assert tree("".join(lines)) == values


def write(value: object) -> str:
    """Write a value in TOML."""
    if isinstance(value, list):
        return "[ " + ", ".join(write(item) for item in value) + " ]"
    if isinstance(value, str):
        return quote(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def quote(text: str) -> str:
    """Write a text in TOML."""
    return (
        '"'
        + "".join(
            c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}"
            for c in text
        )
        + '"'
    )


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**6,
        "[" + "a." * 400_000 + "a]",
        "a." * 400_000 + "a = 1",
        "a = {" * 200_000,
        'a = """' + '"" ' * 300_000,
        'a = "' + "\\n" * 300_000,
        "#\n" * 400_000 + "a",
        "\n".join(f"a{number}.b = 1" for number in range(40_000)) + "\nc",
    ],
)
def test_hostile_files_are_refused_at_once(text: str) -> None:
    """No file of allowed size costs more than its length in time or memory."""
    with pytest.raises(MalformedError):
        read(text)
