"""Placeholders of a unit's command; real shells read what was filled in."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebox.settings.checks import InvalidValue
from onebox.units.templates import expand, parse, uses

VALUES = {"seed": "5", "name": "a b", "unit": "1", "outputs": "results/1/"}
HOSTILE = [
    "a b",
    "it's",
    '"',
    "$HOME",
    "`id`",
    "a\\",
    "\\",
    "$(id)",
    "a\nb",
    "*",
    "",
    "~",
]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("python fit.py --seed {seed}", "python fit.py --seed 5"),
        ("{seed}{seed}/{unit}", "55/1"),
        ("cp x {outputs}", "cp x results/1/"),
        ("echo {name}", "echo 'a b'"),
        ("echo ${seed} ${name:-x} ${#seed}", "echo ${seed} ${name:-x} ${#seed}"),
        ("echo ${x:-{seed}}", "echo ${x:-5}"),
        ("echo ${x:-${y}}", "echo ${x:-${y}}"),
        ("awk '{print $1}' {a,b} {} {1..3} { x; }", None),
        ("awk '{ if (x) { print }}'", None),
        ("echo {{seed}} {{other}}", "echo {seed} {other}"),
        ("echo {{{seed}}}", "echo {5}"),
        ("x '{{.State}}' '{{ x }}'", None),
        ('--json=\'{"a":{"b":{seed}}}\'', '--json=\'{"a":{"b":5}}\''),
        ('--json=\'{"a":{"b":1}}\'', None),
        ("echo \\{seed}", None),
        ("", ""),
    ],
)
def test_only_a_known_name_in_braces_is_a_placeholder(
    template: str, text: str | None
) -> None:
    """All other braces stay as the shell, awk, Go and JSON have them."""
    assert expand(template, VALUES) == (template if text is None else text)


def test_values_are_plain_in_words() -> None:
    """Words reach the program without a shell, so nothing in them is quoted."""
    assert expand("--x='{name}'", VALUES, is_line=False) == "--x='a b'"
    assert expand("\\{name}", VALUES, is_line=False) == "\\a b"
    assert expand("${name}", VALUES, is_line=False) == "${name}"


@pytest.mark.parametrize("template", ["echo {sede}", "'{sede}'", "echo {{{sede}}}"])
def test_an_unknown_placeholder_names_the_nearest_one(template: str) -> None:
    """The error says how to write the text itself."""
    with pytest.raises(InvalidValue) as caught:
        parse(template, VALUES, is_line=True)
    assert str(caught.value) == "{sede} is no parameter, did you mean {seed}?"
    assert caught.value.next == "write {{sede}} for the text {sede}"


@pytest.mark.parametrize("text", ["{ seed }", "{seed }", "{\tseed}"])
def test_a_placeholder_has_no_spaces(text: str) -> None:
    """The text would reach the program as it is."""
    with pytest.raises(InvalidValue) as caught:
        parse(f"fit.py '{text}'", VALUES, is_line=True)
    assert str(caught.value) == f"{text} is no placeholder, did you mean {{seed}}?"
    with pytest.raises(InvalidValue):
        parse(text, VALUES, is_line=False)


@pytest.mark.parametrize(
    "text", ["{ x }", "{{ seed }}", "${ seed }", "{ seed; }", "{ print seed }"]
)
def test_other_braces_with_spaces_stay(text: str) -> None:
    """The shell, awk and Jinja have them."""
    assert expand(text, VALUES, is_line=False) == text


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("python3 fit.py {seed}", False),
        ("python3 fit.py {n}", True),
        ("x {{{n}}}", True),
        ("x {{n}}", False),
        ('x "$n"', True),
        ("x ${n:-1}", True),
        ("x ${#n}", True),
        ("x $no n", False),
    ],
)
def test_a_command_uses_a_parameter(command: str, found: bool) -> None:
    """By its placeholder or as a variable of the shell; letters are no use."""
    assert uses(command, "n") is found


def test_an_unknown_placeholder_far_from_all_lists_the_known_ones() -> None:
    """A user sees what could be meant."""
    with pytest.raises(InvalidValue, match=r"known are \{seed\}, \{name\}, "):
        parse("awk '{print}'", VALUES, is_line=True)


def printed(line: str, shell: str) -> str:
    """Return what a line of shell prints."""
    result = subprocess.run(
        [shell, "-c", line],
        stdout=subprocess.PIPE,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return result.stdout.decode()


PLACES = [
    "printf '%s|' {v}",
    "printf '%s|' '{v}'",
    "printf '%s|' \"{v}\"",
    "printf '%s|' \"it's {v}\"",
    "printf '%s|' 'say \"{v}'",
    "printf '%s|' a{v}'b{v}'\"c{v}\"",
    "printf '%s|' \\\"{v} \\' '{v}'",
    "# don't\nprintf '%s|' \"{v}\" # it's",
    "printf '%s|' x#'{v}' \"#\" {v}",
    'x=$(printf %s {v}X); printf \'%s|\' "${x%X}" "{v}"',
    "printf '%s|' ${none:-{v}}",
]


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("place", PLACES)
def test_a_value_arrives_unchanged_in_each_place(shell: str, place: str) -> None:
    """Outside quotes and between quotes of the user, a real shell reads the value."""
    safe = printed(expand(place, {"v": "QX"}), shell)
    for value in HOSTILE:
        line = expand(place, {"v": value})
        assert printed(line, shell) == safe.replace("QX", value), line


@settings(max_examples=60, deadline=None)
@given(
    st.text(
        st.one_of(
            st.sampled_from("'\"\\$`!#{}<>|&;*?~ \n"),
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
        ),
        max_size=12,
    )
)
def test_any_value_arrives_unchanged(value: str) -> None:
    """No character of a value has a meaning for the shell."""
    line = "printf '%s|' {v} '{v}' \"{v}\" x{v}y"
    expected = f"{value}|{value}|{value}|x{value}y|"
    result = subprocess.run(
        ["bash", "-c", expand(line, {"v": value})], stdout=subprocess.PIPE, check=True
    )
    assert result.stdout.decode() == expected


@pytest.mark.parametrize(
    "place",
    [
        'echo "$(basename "{v}")"',
        'echo "`basename {v}`"',
        "echo $'x{v}'",
        "cat <<END\n{v}\nEND",
        "true # {v}",
    ],
)
def test_a_value_that_needs_quotes_is_refused_where_quotes_are_not_followed(
    place: str,
) -> None:
    """The variable of the parameter is the way there; a harmless value stays."""
    assert "a-1.5/b" in printed(
        f"echo a-1.5/b; {expand(place, {'v': 'a-1.5'})}", "bash"
    )
    with pytest.raises(InvalidValue) as caught:
        expand(place, {"v": "a b"})
    assert 'the value "a b" of {v} needs quotes' in str(caught.value)
    assert 'write "$v" there' in caught.value.next


def test_json_can_have_values() -> None:
    """A dictionary in a command keeps its braces."""
    line = expand('printf %s \'{"a": {"b": {seed}}}\'', VALUES)
    assert json.loads(printed(line, "sh")) == {"a": {"b": 5}}
