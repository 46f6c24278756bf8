"""What is seen on a terminal of some width, in a pipe, and when nobody looks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).parents[2]
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CLEARED = "\r\x1b[2K"
HEAD = """\
import os, sys, time
from onebox.errors import OneboxError
from onebox.ui.screen import Screen
screen = Screen(os.environ)
"""
LONG = "word " * 22
EVERYTHING = f"""\
screen.headline(["census/main", "local", "small"], ["at most $8.56: off at 18:40"])
screen.line("image", "done", "up to date", "setup.sh unchanged, built 12 Nov")
with screen.stage("push") as line:
    line.doing("asking the box")
    line.progress(1, 2, 500, 1000)
    line.end("6.2 s", "1,204 files, 412 MB, 38 changed")
screen.footer("run  12:41  $0.23")
screen.output(b"epoch 1\\n")
screen.footer("run  12:42  $0.23")
screen.output(b"epoch 2\\n")
screen.close_line()
screen.line("run", "failed", "14:02", "exit 3")
screen.line("teardown", "kept", "kept", "{LONG}")
screen.note("a note {LONG}")
screen.warn("a warning")
screen.say("said")
screen.error(OneboxError("it broke", running="ob-1 is up: $3/h", next="inv teardown"))
screen.print("printed")
screen.table(["name", "id"], [["geo", "oi-1"], ["[bold]x", "oi-2"]])
screen.plan_line("run", "done", "would run", "a job always runs")
screen.check("python", "warn", "3.11")
"""
# What the above is in a pipe: one line for each event.
SAID = f"""\
onebox  census/main   local   small
        at most $8.56: off at 18:40

image      ✓ up to date  setup.sh unchanged, built 12 Nov
push       ✓ 6.2 s  1,204 files, 412 MB, 38 changed
run        ✗ 14:02  exit 3
teardown   • kept  {LONG.rstrip()}
           a note {LONG}
           ! a warning
said
onebox: it broke
        ob-1 is up: $3/h
  next: inv teardown
"""
PRINTED = """\
epoch 1
epoch 2
printed
name\tid
geo\toi-1
[bold]x\toi-2
run        ✓ would run  a job always runs
python           ! 3.11
"""


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return a user's environment, with some variables of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "LANG": "C.UTF-8", "TERM": "xterm", **env}


def piped(code: str, **env: str) -> tuple[int, str, str]:
    """Run some code in pipes; return exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        cwd=ROOT,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def on_terminal(
    code: str,
    *,
    columns: int = 80,
    typed: str = "",
    stdout: int | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run some code on a terminal of its own; return all that it is sent."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    mode = termios.tcgetattr(slave)
    mode[1] &= ~termios.OPOST
    mode[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + code],
        cwd=ROOT,
        env=environment(env or {}),
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    os.write(master, typed.encode())
    shown = b""
    # Linux says EIO, others an empty read, when the last writer has gone.
    with contextlib.suppress(OSError):
        while data := os.read(master, 65536):
            shown += data
    os.close(master)
    text = shown.decode()
    assert 0 == process.wait(30), text
    return text


def plain(shown: str) -> str:
    """Return what was shown without the codes that move and colour it."""
    return CODES.sub("", shown)


def lines(shown: str) -> list[str]:
    """Return the lines that stand on the terminal in the end."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", shown):
        if part == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif part == "\r":
            column = 0
        elif part == "\x1b[2K":
            rows[row] = ""
        elif part.startswith("\x1b") and part.endswith("A"):
            row -= int(part[2:-1] or 1)
        elif not part.startswith("\x1b"):
            line = rows[row].ljust(column)
            rows[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in rows]


class TestPiped:
    def test_one_line_per_event(self) -> None:
        """
        In a pipe each event is one line: ours on stderr, what was asked for on stdout.
        """
        assert (0, PRINTED, SAID) == piped(EVERYTHING)

    @pytest.mark.parametrize(
        "env",
        [
            {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "20"},
            {"TERM": "dumb", "NO_COLOR": "1"},
        ],
    )
    def test_is_stable(self, env: dict[str, str]) -> None:
        """
        No variable changes that, or puts a control code into a pipe.
        """
        assert (0, PRINTED, SAID) == piped(EVERYTHING, **env)

    def test_ask(self) -> None:
        """
        Without a terminal nobody says yes.
        """
        assert (0, "False\n", "") == piped("print(screen.ask('Sure?', ''))")


class TestTerminal:
    @pytest.mark.parametrize("columns", [80, 140])
    def test_fits(self, columns: int) -> None:
        """
        Nothing is wider than the terminal, and no word of it is lost.
        """
        shown = on_terminal(EVERYTHING, columns=columns)
        seen = lines(shown)

        assert all(len(line) <= columns for line in seen), seen
        assert 2 * 22 == sum(line.split().count("word") for line in seen)
        for line in (SAID + PRINTED).splitlines():
            words = " ".join(line.replace(LONG.rstrip(), "").split())
            together = " ".join(" ".join(seen).split())
            assert words.strip() in together, words

    @pytest.mark.parametrize("columns", [80, 140])
    def test_one_line_each(self, columns: int) -> None:
        """
        A stage that has ended is one line, with its mark, whatever came before.
        """
        seen = lines(on_terminal(EVERYTHING, columns=columns))

        (push,) = [line for line in seen if line.startswith("push")]
        assert re.fullmatch(r"push +✓ 6\.2 s +1,204 files, 412 MB, 38 changed", push)
        wide = [line for line in seen if line.startswith("           a note")]
        assert 1 == len(wide)
        assert (columns == 140) == (22 == wide[0].count("word"))

    def test_shows_what_it_does(self) -> None:
        """
        While a stage works its line says what it does and how far it is.
        """
        shown = plain(
            on_terminal(
                "with screen.stage('push') as line:\n"
                "    line.doing('asking the box'); time.sleep(0.3)\n"
                "    line.progress(1, 2, 512, 1024); time.sleep(0.3)\n",
                columns=140,
            )
        )

        assert "asking the box" in shown
        assert "1/2 files  512 B/1 kB" in shown
        assert re.search(r"push +✓ [0-9.]+ s *\n$", shown)

    @pytest.mark.parametrize("visible", [False, True])
    def test_interrupted(self, visible: bool) -> None:
        """
        Ctrl-C at the moment that a line is begun, or taken away, leaves the cursor.
        """
        shown = on_terminal(
            "import signal\n"
            "from rich.console import Console\n"
            "from onebox.signals import Interrupted, signals_as_exceptions\n"
            "show = Console.show_cursor\n"
            "def late(self, wanted=True):\n"
            f"    if wanted == {visible}:\n"
            "        Console.show_cursor = show\n"
            "        signal.raise_signal(signal.SIGINT)\n"
            "    return show(self, wanted)\n"
            "Console.show_cursor = late\n"
            "try:\n"
            "    with signals_as_exceptions(str), screen.stage('push'): pass\n"
            "except Interrupted: screen.say('stopped')\n"
        )

        assert "stopped" in shown
        assert shown.rfind("\x1b[?25l") < shown.rfind("\x1b[?25h")

    def test_footer_goes_before_output(self) -> None:
        """
        The footer is taken away before the job's next byte, and at the end.
        """
        shown = on_terminal(EVERYTHING)

        assert re.search(r"12:41[^\n]*\x1b\[2Kepoch 1\n", shown)
        assert re.search(r"12:42[^\n]*\x1b\[2Kepoch 2\n", shown)
        assert not any("12:4" in line for line in lines(shown))

    def test_footer_waits_for_the_line(self) -> None:
        """
        A line that the job has left open is not written over.
        """
        shown = on_terminal(
            "screen.output(b'Loading...'); screen.footer('run 0:01')\n"
            "screen.output(b' done\\n'); screen.footer('run 0:02')\n"
            "screen.close_line(); screen.output(b'open'); screen.close_line()\n"
            "screen.say('said')"
        )

        assert ["Loading... done", "open", "said", ""] == lines(shown)
        assert "0:01" not in shown
        assert "0:02" in shown

    def test_footer_is_cut(self) -> None:
        """
        A footer is one line, or it could not be taken away.
        """
        shown = on_terminal("screen.footer('x' * 500); screen.say('said')")

        assert 79 == shown.count("x")

    def test_no_colour(self) -> None:
        """
        NO_COLOR is honoured.
        """
        colour = re.compile(r"\x1b\[[0-9;]*\b(3[0-8]|9[0-7])(;[0-9;]*)?m")

        assert colour.search(on_terminal(EVERYTHING))
        assert not colour.search(on_terminal(EVERYTHING, env={"NO_COLOR": "1"}))

    @pytest.mark.parametrize("term", ["dumb", "unknown"])
    def test_dumb(self, term: str) -> None:
        """
        A terminal that understands no codes gets none, and the same lines.
        """
        shown = on_terminal(EVERYTHING, env={"TERM": term})

        assert not [
            c for c in shown if unicodedata.category(c) == "Cc" and c not in "\n\t"
        ]
        assert sorted((SAID + PRINTED).splitlines()) == sorted(shown.splitlines())

    @pytest.mark.parametrize(("typed", "answer"), [("ob-1", True), ("yes", False)])
    def test_ask(self, typed: str, answer: bool) -> None:
        """
        Only the word that was asked for is a yes.
        """
        shown = on_terminal(
            "print(screen.ask('Type the id:', 'ob-1'))", typed=f"{typed}\n"
        )

        assert "Type the id:" in shown
        assert str(answer) in shown

    def test_ask_within_a_stage(self) -> None:
        """
        A stage stands still while it asks, and goes on after the answer.
        """
        shown = on_terminal(
            "import builtins\n"
            "def answer(prompt):\n"
            "    screen._raw('ASKED'); time.sleep(0.5); screen._raw('ANSWERED')\n"
            "    return 'yes'\n"
            "builtins.input = answer\n"
            "with screen.stage('teardown') as line:\n"
            "    line.doing('looking'); time.sleep(0.3)\n"
            "    sure = screen.ask('Sure?', 'yes')\n"
            "    line.doing('removing'); time.sleep(0.3)\n"
            "    line.end('', f'{sure}')"
        )

        assert "ASKEDANSWERED" in shown
        assert "removing" in shown.partition("ANSWERED")[2]
        assert lines(shown)[-2].endswith("True")

    def test_names_cannot_style(self) -> None:
        """
        What looks like markup in a name is shown as it is.
        """
        shown = on_terminal(
            "screen.note('[bold]a[/bold]')\n"
            "screen.line('run', 'done', '[red]', ':x:')\n"
            "with screen.stage('push') as line: line.end('', '[/nonsense] [1]')"
        )

        for text in ("[bold]a[/bold]", "[red]", ":x:", "[/nonsense] [1]"):
            assert text in plain(shown)


class TestFailure:
    def test_error(self) -> None:
        """
        An error says what happened, what still runs and what to type, in this order.
        """
        code = "screen.error(OneboxError('no', running='ob-1, $3/h', next='inv x'))"
        wanted = "onebox: no\n        ob-1, $3/h\n  next: inv x\n"

        assert (0, "", wanted) == piped(code)
        assert wanted == plain(on_terminal(code))

    def test_error_alone(self) -> None:
        """
        What is not known is left out.
        """
        assert (0, "", "onebox: no\n") == piped("screen.error(OneboxError('no'))")

    @pytest.mark.parametrize("error", ["KeyError", "KeyboardInterrupt"])
    def test_stage(self, error: str) -> None:
        """
        A stage that fails leaves its line, marked, and the error goes on.
        """
        code = (
            "try:\n"
            f"    with screen.stage('push'): raise {error}\n"
            f"except {error}: screen.say('raised')\n"
        )
        wanted = r"push +✗ 0\.\d s *\nraised\n"

        assert re.fullmatch(wanted, piped(code)[2])
        assert re.search(wanted, plain(on_terminal(code)))


class TestJobOutput:
    EVERY = "data = bytes(range(256)) * 1000 + b'no newline'\n"

    def test_untouched_in_a_pipe(self) -> None:
        """
        The job's bytes come out as they went in.
        """
        done = subprocess.run(
            [sys.executable, "-c", f"{HEAD}{self.EVERY}screen.output(data)"],
            cwd=ROOT,
            env=environment({}),
            capture_output=True,
            check=True,
        )

        assert bytes(range(256)) * 1000 + b"no newline" == done.stdout
        assert b"" == done.stderr

    def test_untouched_beside_a_terminal(self, tmp_path: Path) -> None:
        """
        With stdout in a file the terminal shows our lines, and the file has the job's.
        """
        with (tmp_path / "log").open("wb") as log:
            shown = on_terminal(
                "screen.footer('run 0:01'); screen.output(b'a')\n"
                "screen.footer('run 0:02'); screen.output(b'b\\n')\n"
                "screen.close_line(); screen.say('said')",
                stdout=log.fileno(),
            )

        assert b"ab\n" == (tmp_path / "log").read_bytes()
        assert "0:02" in shown
        assert ["said", ""] == lines(shown)

    def test_open_line_before_ours(self, tmp_path: Path) -> None:
        """
        Where both are read together, our next line begins anew after an open one.
        """
        code = (
            "screen.output(b'no newline'); screen.line('run', 'done', '0.0 s')\n"
            "screen.output(b'1'); screen.note('n'); screen.output(b'2\\n')\n"
            "screen.output(b'3'); screen.error(OneboxError('no'))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", HEAD + code],
            cwd=ROOT,
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )

        assert [
            "no newline",
            "run        ✓ 0.0 s",
            "1",
            "           n",
            "2",
            "3",
            "onebox: no",
        ] == done.stdout.decode().splitlines()
        assert "no newline12\n3" == piped(code)[1]
        with (tmp_path / "log").open("wb") as log:
            shown = on_terminal(code, stdout=log.fileno())
        assert b"no newline12\n3" == (tmp_path / "log").read_bytes()
        assert "" not in lines(shown)[:-1]

    def test_in_order_with_the_users_own(self) -> None:
        """
        What a user's task has printed before the job's output stays before it.
        """
        code = "print('mine'); screen.output(b'job\\n'); print('mine again')"

        assert (0, "mine\njob\nmine again\n", "") == piped(code)

    def test_reader_gone(self) -> None:
        """
        A reader that has gone is noted; nothing fails, and stderr still works.
        """
        code = (
            "for _ in range(50): screen.output(b'x' * 10000)\n"
            "screen.say(f'closed: {screen.closed}')\n"
            "screen.print('nobody reads this')\n"
            "os.close(1)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD + code],
            cwd=ROOT,
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read().decode()
        process.stderr.close()
        process.wait()

        assert said.startswith("closed: True\n")
        assert "Traceback" not in said

    def test_nobody_to_tell(self, tmp_path: Path) -> None:
        """
        A terminal or pipe that has gone does not end the work.
        """
        code = EVERYTHING + f"open({str(tmp_path / 'end')!r}, 'w').write('reached')"
        read, write = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", f"{HEAD}sys.stdin.readline()\n{code}"],
            cwd=ROOT,
            env=environment({}),
            stdin=subprocess.PIPE,
            stdout=write,
            stderr=write,
        )
        os.close(write)
        os.close(read)
        process.communicate(b"\n", timeout=30)

        assert "reached" == (tmp_path / "end").read_text()

    def test_without_stdout(self, tmp_path: Path) -> None:
        """
        With stdout closed from the start, the job's bytes are in no file of ours.
        """
        code = (
            f"journal = open({str(tmp_path / 'journal')!r}, 'w')\n"
            "assert journal.fileno() == 1\n"
            "screen.output(b'job'); screen.print('x'); screen.say(f'{screen.closed}')"
        )
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "-", sys.executable, "-c", HEAD + code],
            cwd=ROOT,
            env=environment({}),
            capture_output=True,
            check=False,
        )

        assert (0, b"True\n") == (done.returncode, done.stderr)
        assert b"" == (tmp_path / "journal").read_bytes()


class TestEncoding:
    ASCII: ClassVar[dict[str, str]] = {
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii:strict",
    }
    NAMES = (
        "screen.line('run', 'failed', 'x', 'exit 3')\n"
        "screen.line('push', 'done', 'x', 'ü → \\udcff')\n"
        "screen.print('ü → \\udcff'); screen.table(['ü'], [['\\udcff']])\n"
        "screen.footer('ü \\udcff'); screen.say('ü \\udcff')\n"
    )

    def test_ascii_in_a_pipe(self) -> None:
        """
        An encoding without our marks gets others, and names that can be read.
        """
        code, out, err = piped(self.NAMES, **self.ASCII)

        assert 0 == code, err
        assert "run        FAILED x  exit 3" == err.splitlines()[0]
        assert err.splitlines()[1].startswith("push       ok x  \\xfc")
        assert out.startswith("\\xfc")

    def test_ascii_on_a_terminal(self) -> None:
        """
        A longer mark still stands on the line of its stage.
        """
        seen = lines(on_terminal(self.NAMES, env=self.ASCII))

        assert re.fullmatch("run +FAILED x +exit 3", seen[0])
        assert re.match("push +ok x +", seen[1])

    def test_bytes_that_are_no_text(self) -> None:
        """
        A name that is no UTF-8 does not end the work, on either stream.
        """
        code, out, err = piped(self.NAMES, PYTHONIOENCODING="utf-8:strict")

        assert 0 == code, err
        assert "ü → \\udcff" == out.splitlines()[0]
