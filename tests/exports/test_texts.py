"""Any text arrives unchanged: as a word of bash, and as a value of YAML."""

from __future__ import annotations

import subprocess

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from onebox.exports import emitter
from onebox.exports.shell import comment, quote
from tests.exports.runs import HOSTILE

# What a variable of a program can be; YAML allows no NUL either.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(TEXTS, min_size=1, max_size=20))
@example(HOSTILE)
def test_word_is_on_one_line_and_bash_reads_it_unchanged(texts: list[str]) -> None:
    """This holds for each text, in a locale that does not know its characters."""
    words = [quote(text) for text in texts]
    script = f"printf '%s\\0' {' '.join(words)}"
    env = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", script.encode()], env=env, capture_output=True, check=True
    )

    assert texts == done.stdout.decode().split("\0")[:-1]
    assert all(word.isprintable() for word in words)


@given(st.dictionaries(TEXTS, TEXTS | st.integers() | st.booleans() | st.none()))
@example({"n": "no", "yes": "1", "null": "", "x: y": "#", "~": "a\n", "k": "\ta\n"})
@example({"s": "a\n\n  b\\\n", "t": " a\n", "u": "\n", "v": "x\u2028y\n", "w": "a\r\n"})
def test_reader_of_yaml_gets_each_key_and_value(values: dict[str, object]) -> None:
    """A text stays a text, with all its line breaks."""
    table = {"top": {"in": values}, "list": [{"a": 1, **values}]}
    text = "\n".join(emitter.table(table))

    assert {**table, "top": {"in": values or None}} == yaml.safe_load(text)


@given(TEXTS)
@example("a\n\n  b\\\n")
@example(" a\n")
@example("\n")
@example("\ta\n\n")
@example("x\u2028y\n")
@example("a\r\n")
@example("- a: #\n\t\n")
def test_reader_of_yaml_gets_the_script(text: str) -> None:
    """A block is used only for what a block can hold."""
    for one in (text, f"{text}\n", f"set +H\n{text}\n"):
        lines = [*emitter.script("run", one), ""]

        assert {"run": one} == yaml.safe_load("\n".join(lines))


@given(TEXTS)
@example("a\nrm -rf x")
def test_comment_has_one_line(text: str) -> None:
    """A value in a comment cannot become a line of the script."""
    (line,) = comment(text)

    assert line.startswith("#")
    assert line.isprintable()
