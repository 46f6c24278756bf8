"""The parameters of units, from --over flags and from CSV files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onebox.errors import InputError, UsageError
from onebox.units.values import MOST_BYTES, parse_over, read_csv


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("seed=1..3", "seed", ("1", "2", "3")),
        ("seed=0..10..5", "seed", ("0", "5", "10")),
        ("alpha=0.1,1,10", "alpha", ("0.1", "1", "10")),
        ("alpha=1e-5", "alpha", ("1e-5",)),
        ("name=a b,c=d", "name", ("a b", "c=d")),
        ('name="a,b",c', "name", ("a,b", "c")),
        ("range=1..3,5", "range", ("1..3", "5")),
    ],
)
def test_a_flag_has_a_range_or_a_list(
    text: str, name: str, values: tuple[str, ...]
) -> None:
    """Values are separated by commas; double quotes protect a comma."""
    assert parse_over(text) == (name, values)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed", "expected NAME=VALUES"),
        ("=1", "is not a variable's name"),
        ("a b=1", "is not a variable's name"),
        ("PATH=1", "would change how"),
        ("unit=1", "already stands for the unit's number"),
        ("seed=", "has an empty value"),
        ("seed=1,,2", "has an empty value"),
        ("seed=1,2,1", '"1" is listed twice'),
        ("seed=3..1", '"3..1" is empty'),
        ("seed=1..10000000", "at most 100,000"),
        ('seed="a', "cannot be split at commas"),
        ("seed=a\x1bb", "contains a control character"),
        ("seed=a\udcffb", "is not valid UTF-8"),
    ],
)
def test_a_wrong_flag_is_an_error_of_the_command_line(text: str, problem: str) -> None:
    """The error shows the flag and an example."""
    with pytest.raises(UsageError) as caught:
        parse_over(text)
    assert caught.value.message.startswith("--over=")
    assert problem in caught.value.message
    assert caught.value.next


@pytest.mark.parametrize(
    "data",
    [
        b"seed,file\n1,a b\n2,\n",
        b"\xef\xbb\xbfseed,file\r\n1,a b\r\n\r\n2,\r\n",
        b"\n\n seed , file\n1, a b\n  \n2, \n\n",
        b'seed,file\n"1","a b"\n"2",""',
        b"seed,file\r1,a b\r2,\r",
    ],
)
def test_a_csv_file_has_names_then_a_unit_in_each_line(
    tmp_path: Path, data: bytes
) -> None:
    """A mark at the start, all ends of lines, blank lines and spaces are accepted."""
    (tmp_path / "p.csv").write_bytes(data)
    expected = (("seed", "file"), [("1", "a b"), ("2", "")])
    assert read_csv(tmp_path / "p.csv", "p.csv") == expected


def test_quoted_values_of_a_csv_file_are_exact(tmp_path: Path) -> None:
    """Commas, quotes, spaces and line breaks between quotes belong to the value."""
    (tmp_path / "p.csv").write_bytes(b'a,b\n" x,""y"" ","1\n2"\n3,4\n')
    names, rows = read_csv(tmp_path / "p.csv", "p.csv")
    assert (names, rows) == (("a", "b"), [(' x,"y" ', "1\n2"), ("3", "4")])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "p.csv is empty"),
        (b"\n\n", "p.csv is empty"),
        (b"a,b\n", "p.csv has names, but no line with values"),
        (b"a,b\n1,2\n\n3\n", "p.csv:4: has 1 value, but 2 names are above"),
        (b'a,b\n"1\n2",2\n3,4,5\n', "p.csv:4: has 3 values, but 2 names are above"),
        (b"a,a\n1,2\n", "p.csv:1: a is there twice"),
        (b"\na;b\n1;2\n", 'p.csv:2: "a;b" is not a variable\'s name'),
        (b"a,\n1,2\n", "p.csv:1: column 2 has no name"),
        (b"a,HOME\n1,2\n", "p.csv:1: HOME would change how the unit's programs start"),
        (b"a,b\n1,2\n3,4\n1,2\n", "p.csv:4: is equal to line 2"),
        (b"a,b\n1,2\n\xff,1\n", "p.csv:3: is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "p.csv:1: is not UTF-8"),
        (b"a,b\n1,2\n3,\x001\n", "p.csv:3: "),
        (b"a,b\n1,\x1b[2J\n", "p.csv:2: "),
        (b'a,b\n1,"2\n', "p.csv:2: is not a line of CSV"),
        (b"a\n" + b"x" * 200_000 + b"\n", "p.csv:2: is not a line of CSV"),
    ],
)
def test_a_wrong_csv_file_is_refused_with_its_line(
    tmp_path: Path, data: bytes, message: str
) -> None:
    """The error names file and line, and has one line itself."""
    (tmp_path / "p.csv").write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_csv(tmp_path / "p.csv", "p.csv")
    assert caught.value.message.startswith(message)
    assert caught.value.message.isprintable()


def test_a_csv_file_has_at_most_100000_units(tmp_path: Path) -> None:
    """The limit is that of all plans."""
    lines = ["a", *map(str, range(100_000)), ""]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    assert len(read_csv(tmp_path / "p.csv", "p.csv")[1]) == 100_000
    (tmp_path / "p.csv").write_text("\n".join([*lines[:-1], "x"]))
    with pytest.raises(InputError, match="100002: is unit 100,001, which is too many"):
        read_csv(tmp_path / "p.csv", "p.csv")


def test_what_is_no_ordinary_file_is_refused(tmp_path: Path) -> None:
    """A folder, a pipe, a missing file and a huge file end in an error, not a wait."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", MOST_BYTES + 1)
    for name in ("pipe", ".", "missing", "huge", "a\0b"):
        with pytest.raises(InputError, match=r"^p\.csv "):
            read_csv(tmp_path / name, "p.csv")
