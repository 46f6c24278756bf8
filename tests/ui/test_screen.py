"""The screen on terminals of several widths, in pipes, and without any reader."""

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

from tests.fakes import warm_processes

ROOT = Path(__file__).parents[2]
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HEAD = """\
import os, sys, time
from onebox.errors import OneboxError
from onebox.ui.screen import Screen
screen = Screen(os.environ)
"""
LONG = "word " * 22
# The lines of `Heartbeat` come after a quarter of a second, then after a half.
OFTEN = "from onebox.ui import heartbeat; heartbeat.FIRST = 0.25; screen = Screen({})\n"
EVERYTHING = f"""\
screen.headline(["census/main", "local", "small"], ["at most $8.56: off at 18:40"])
screen.print_stage("image", "done", "up to date", "setup.sh unchanged, built 12 Nov")
with screen.stage("push") as line:
    line.doing("asking the box")
    line.progress(1, 2, 500, 1000)
    line.end("6.2 s", "1,204 files, 412 MB, 38 changed")
screen.footer("run  12:41  $0.23")
screen.output(b"epoch 1\\n")
screen.footer("run  12:42  $0.23")
screen.output(b"epoch 2\\n")
screen.close_line()
screen.print_stage("run", "failed", "14:02", "exit 3")
screen.print_stage("teardown", "kept", "kept", "{LONG}")
screen.note("a note {LONG}")
screen.warn("a warning")
screen.say("said")
screen.error(OneboxError("it broke", running="ob-1 is up: $3/h", next="inv teardown"))
screen.print("printed")
screen.table(["name", "id"], [["geo", "oi-1"], ["[bold]x", "oi-2"]])
screen.plan_line("run", "done", "would run", "a job always runs")
screen.check("python", "warn", "3.11")
"""
# The output of EVERYTHING in a pipe: one line for each event.
ON_STDERR = f"""\
onebox  census/main   local   small
        at most $8.56: off at 18:40

image      ✓ up to date  setup.sh unchanged, built 12 Nov
push       ✓ 6.2 s  1,204 files, 412 MB, 38 changed
run        ✗ 14:02  exit 3
teardown   • kept  {LONG.rstrip()}
           a note {LONG}
           ! a warning
said
onebox[70]: it broke
        ob-1 is up: $3/h
  next: inv teardown
"""
ON_STDOUT = """\
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
    """Return the environment of a user, with additional variables."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "LANG": "C.UTF-8", "TERM": "xterm", **env}


def run_in_pipes(code: str, **env: str) -> tuple[int, str, str]:
    """Run code in pipes; return exit code, stdout and stderr."""
    environ = environment(env)
    if warm_processes.usable(environ):
        result, out, err = warm_processes.run(
            [HEAD + code], ROOT, environ, timeout=60, program="-c"
        )
        return result, out.decode(), err.decode()
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def run_on_terminal(
    code: str,
    *,
    columns: int = 80,
    typed: str = "",
    stdout: int | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run code on its own terminal; return all output to the terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    mode = termios.tcgetattr(slave)
    mode[1] &= ~termios.OPOST
    mode[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    environ = environment(env or {})
    files = slave if stdout is None else stdout, slave, slave
    if warm_processes.usable(environ):
        process: subprocess.Popen[bytes] = warm_processes.Line(
            [HEAD + code], ROOT, environ, files, program="-c", new_session=True
        )
    else:
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD + code],
            cwd=ROOT,
            env=environ,
            stdin=slave,
            stdout=files[0],
            stderr=slave,
            start_new_session=True,
        )
    os.close(slave)
    os.write(master, typed.encode())
    shown = b""
    # When the last writer has closed it, Linux returns EIO, others an empty read.
    with contextlib.suppress(OSError):
        while data := os.read(master, 65536):
            shown += data
    os.close(master)
    text = shown.decode()
    assert 0 == process.wait(30), text
    return text


def without_codes(shown: str) -> str:
    """Return the output without the codes for movement and color."""
    return CODES.sub("", shown)


def visible_lines(shown: str) -> list[str]:
    """Return the lines that are visible on the terminal in the end."""
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
    def test_each_event_is_one_line_in_a_pipe(self) -> None:
        """Our lines are on stderr, requested output is on stdout."""
        assert (0, ON_STDOUT, ON_STDERR) == run_in_pipes(EVERYTHING)

    @pytest.mark.parametrize(
        "env",
        [
            {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "20"},
            {"TERM": "dumb", "NO_COLOR": "1"},
        ],
    )
    def test_variables_do_not_change_the_output_in_a_pipe(
        self, env: dict[str, str]
    ) -> None:
        """No variable adds a control code or changes a line."""
        assert (0, ON_STDOUT, ON_STDERR) == run_in_pipes(EVERYTHING, **env)

    def test_a_long_stage_prints_a_line_from_time_to_time(self) -> None:
        """A log of a CI service must not look dead; the lines become rarer."""
        code, out, err = run_in_pipes(
            f"{OFTEN}"
            "with screen.stage('save') as line:\n"
            "    line.doing('stopping the box'); time.sleep(0.35)\n"
            "    line.progress(1, 2, 512, 1024); time.sleep(0.5)\n"
        )

        assert (0, "") == (code, out)
        first, second, last = err.splitlines()
        assert re.fullmatch(r"save       - 0\.[0-9] s  stopping the box", first)
        assert re.match(r"save       - [0-9.]+ s  1/2 files  512 B/1 kB", second)
        assert last.startswith("save       ✓ ")

    def test_a_silent_job_prints_its_footer_from_time_to_time(self) -> None:
        """Output of the job itself is enough; after it, the wait begins again."""
        code, out, err = run_in_pipes(
            f"{OFTEN}"
            "for n in range(5): screen.output(b'x\\n'); "
            "screen.footer(f'run {n} s'); time.sleep(0.1)\n"
            "time.sleep(0.3); screen.footer('run 6 s'); screen.footer('run 7 s')\n"
        )

        assert (0, 5 * "x\n", "run 6 s\n") == (code, out, err)

    def test_question_without_a_terminal_is_answered_no(self) -> None:
        """Without a terminal the answer is no."""
        assert (0, "False\n", "") == run_in_pipes("print(screen.ask('Sure?', ''))")


class TestTerminal:
    @pytest.mark.parametrize("columns", [40, 80, 140])
    def test_lines_fit_any_width_without_losing_a_word(self, columns: int) -> None:
        """No line is wider than the terminal, and no word is lost."""
        shown = run_on_terminal(EVERYTHING, columns=columns)
        seen = visible_lines(shown)

        assert all(len(line) <= columns for line in seen), seen
        assert 2 * 22 == sum(line.split().count("word") for line in seen)
        for line in (ON_STDERR + ON_STDOUT).splitlines():
            words = " ".join(line.replace(LONG.rstrip(), "").split())
            together = " ".join(" ".join(seen).split())
            assert words.strip() in together, words

    @pytest.mark.parametrize("columns", [80, 140])
    def test_finished_stage_is_one_line(self, columns: int) -> None:
        """A finished stage is one line with its mark, whatever was shown before."""
        seen = visible_lines(run_on_terminal(EVERYTHING, columns=columns))

        (push,) = [line for line in seen if line.startswith("push")]
        assert re.fullmatch(r"push +✓ 6\.2 s +1,204 files, 412 MB, 38 changed", push)
        wide = [line for line in seen if line.startswith("           a note")]
        assert 1 == len(wide)
        assert (columns == 140) == (22 == wide[0].count("word"))

    @pytest.mark.parametrize(
        ("line", "indent"),
        [
            (f"{'push':<10} ✓ 6.2 s  ", 21),
            ("           note ", 19),
            ("onebox[75]: ", 20),
            ("some words ", 8),
        ],
    )
    def test_long_line_of_a_box_goes_on_below_its_text(
        self, line: str, indent: int
    ) -> None:
        """The names of the boxes of `map --boxes` stay in a column of their own."""
        text = f"main-1  {line}{LONG.rstrip()}"
        shown = run_on_terminal(f"screen.say({text!r}, 8)", columns=60)
        seen = [line for line in visible_lines(shown) if line]

        assert len(seen) > 1
        assert " ".join(text.split()) == " ".join(" ".join(seen).split())
        assert seen[0].startswith(f"main-1  {line}word")
        for more in seen[1:]:
            assert indent == len(more) - len(more.lstrip()), seen

    def test_running_stage_leaves_room_for_a_typed_ctrl_c(self) -> None:
        """^C in the last column would begin a new line, and the bar would stay."""
        shown = run_on_terminal(
            "with screen.stage('push') as line:\n"
            "    line.progress(1, 305, 2**30, 2**40); time.sleep(0.7)\n"
            f"    line.doing('{LONG}'); time.sleep(0.3)\n"
        )

        drawn = without_codes(shown).replace("\n", "\r").split("\r")
        assert any("1/305 files" in line for line in drawn)
        assert max(len(line) for line in drawn) <= 77

    @pytest.mark.parametrize("columns", [80, 70, 40])
    def test_a_table_never_breaks_a_word(self, columns: int) -> None:
        """An id that continues on the next line cannot be copied."""
        shown = visible_lines(
            run_on_terminal(
                "screen.table(['box of', 'id', 'place', 'state', 'verdict', ''],\n"
                " [['census-1d6169/main', 'ob-3h4a6iyk4v', 'this machine', 'running',"
                " 'off at 08:35', ''],\n"
                " ['census-1d6169/second', 'ob-abcdefghij', 'this machine', 'off', '',"
                " '']])",
                columns=columns,
            )
        )

        assert all(len(line) <= columns for line in shown)
        words = [word for line in shown for word in line.split()]
        for word in ("census-1d6169/main", "ob-3h4a6iyk4v", "machine", "08:35"):
            assert word in words, shown
        if columns == 40:
            # Each row is printed as lines of one value, without the empty ones.
            assert "id       ob-3h4a6iyk4v" in shown
            assert 5 + 1 + 4 == len(shown) - 1, shown

    def test_only_the_mark_of_a_warning_is_coloured(self) -> None:
        """A whole text in yellow is hard to read on a white background."""
        shown = run_on_terminal(
            "screen.warn('look out'); screen.check('disk', 'warn', 'little space')"
        )

        yellow = re.findall(r"\x1b\[33m([^\x1b]*)", shown)
        assert ["!", "!"] == yellow
        assert "look out" in without_codes(shown)

    def test_the_cause_of_a_failure_is_not_dim(self) -> None:
        """Dim text is for details of what went well."""
        for columns in (40, 80):
            shown = run_on_terminal(
                "screen.print_stage('run', 'failed', '2 s', 'exit 3')\n"
                "screen.print_stage('push', 'done', '2 s', '1 file')\n",
                columns=columns,
            )
            assert ["1 file"] == re.findall(r"\x1b\[2m([^\x1b]*)", shown)

    def test_the_lines_of_a_check_are_aligned(self) -> None:
        """One fact a line, on a terminal and in a pipe."""
        code = "screen.check('walls', 'done', 'of jobs\\nin reach: this')"
        expected = [f"{'walls':<16} ✓ of jobs", f"{'':<16}   in reach: this", ""]
        assert expected == visible_lines(run_on_terminal(code))
        assert expected == run_in_pipes(code)[1].split("\n")

    @pytest.mark.parametrize("columns", [40, 80, 140])
    def test_running_stage_always_shows_name_time_and_what_is_left(
        self, columns: int
    ) -> None:
        """On a narrow terminal the bar, the files and the rate are left out first."""
        shown = without_codes(
            run_on_terminal(
                "with screen.stage('push') as line:\n"
                f"    line.doing('{LONG}'); time.sleep(0.7)\n"
                "    line.progress(1204, 13050, 2**28, 2**30); time.sleep(0.5)\n",
                columns=columns,
            )
        )

        drawn = [line.rstrip() for line in re.split(r"[\r\n]+", shown)]
        live = [line for line in drawn if "word" in line or "256 MB/1 GB" in line]
        assert all(re.match(r"push       [-\\|/] [0-9.]+ s ", line) for line in live)
        assert any("word" in line for line in live)
        assert any("256 MB/1 GB" in line for line in live)
        assert (columns >= 80) == any(line.endswith(" s left") for line in live)
        whole = "1,204/13,050 files  256 MB/1 GB"
        assert (columns == 140) == any(f"━ {whole}" in line for line in live)
        assert (columns >= 80) == any("━ " in line for line in live)

    def test_long_message_is_indented_under_its_first_line(self) -> None:
        """The lines of an error do not begin in the first column."""
        shown = run_on_terminal(
            f"screen.error(OneboxError('{LONG}', running='{LONG}', next='{LONG}'))"
        )

        lines = visible_lines(shown)
        assert {"onebox[", "  next:", " " * 7} == {line[:7] for line in lines if line}

    def test_running_stage_shows_its_activity_and_progress(self) -> None:
        """The line of a running stage shows its activity and progress."""
        shown = without_codes(
            run_on_terminal(
                "with screen.stage('push') as line:\n"
                "    line.doing('asking the box'); time.sleep(0.3)\n"
                "    line.progress(1, 2, 512, 1024); time.sleep(0.3)\n",
                columns=140,
            )
        )

        assert "asking the box" in shown
        assert "1/2 files  512 B/1 kB" in shown
        assert re.search(r"push +✓ [0-9.]+ s *\n$", shown)

    def test_saved_part_of_a_disk_is_a_bar_with_percent_bytes_and_time_left(
        self,
    ) -> None:
        """Unknown bytes and time are left out; the next text ends the bar."""
        shown = without_codes(
            run_on_terminal(
                "with screen.stage('save') as line:\n"
                "    line.doing('stopping'); time.sleep(0.3)\n"
                "    line.saved(0.1, 0); time.sleep(0.6)\n"
                "    line.saved(0.25, 2**30); time.sleep(0.3)\n"
                "    line.doing('starting'); time.sleep(0.3)\n",
                columns=80,
            )
        )

        drawn = [line.rstrip() for line in re.split(r"[\r\n]+", shown)]
        assert any(re.search(r"━ 10% saved$", line) for line in drawn)
        with_all = r"━ 25% saved  256 MB/1 GB  [0-9.]+ s left$"
        assert any(re.search(with_all, line) for line in drawn)
        for line in drawn:
            assert ("━" in line) == ("saved" in line)

    @pytest.mark.parametrize(
        ("fraction", "expected"),
        [("-1", "0% saved"), ("7.5", "100% saved"), ("float('inf')", "100% saved")],
    )
    def test_impossible_fraction_is_shown_as_the_nearest_possible_one(
        self, fraction: str, expected: str
    ) -> None:
        """A fraction may be wrong, become smaller, or not be a number."""
        shown = without_codes(
            run_on_terminal(
                "with screen.stage('save') as line:\n"
                "    line.saved(0.5, 0); time.sleep(0.6)\n"
                f"    line.saved({fraction}, 0)\n"
                "    line.saved(float('nan'), 0); time.sleep(0.3)\n"
            )
        )

        assert f" {expected}" in shown
        assert "nan" not in shown
        assert "left" not in shown

    @pytest.mark.parametrize("visible", [False, True])
    def test_ctrl_c_while_a_line_is_drawn_restores_the_cursor(
        self, visible: bool
    ) -> None:
        """Ctrl-C while a line is drawn or removed leaves the cursor visible."""
        shown = run_on_terminal(
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

    def test_footer_is_removed_before_output_of_the_job(self) -> None:
        """The footer is removed before the job's next byte, and at the end."""
        shown = run_on_terminal(EVERYTHING)

        assert re.search(r"12:41[^\n]*\x1b\[2Kepoch 1\n", shown)
        assert re.search(r"12:42[^\n]*\x1b\[2Kepoch 2\n", shown)
        assert not any("12:4" in line for line in visible_lines(shown))

    def test_footer_is_not_drawn_over_an_open_line(self) -> None:
        """If the job's last line has no newline, no footer is drawn."""
        shown = run_on_terminal(
            "screen.output(b'Loading...'); screen.footer('run 0:01')\n"
            "screen.output(b' done\\n'); screen.footer('run 0:02')\n"
            "screen.close_line(); screen.output(b'open'); screen.close_line()\n"
            "screen.say('said')"
        )

        assert ["Loading... done", "open", "said", ""] == visible_lines(shown)
        assert "0:01" not in shown
        assert "0:02" in shown

    def test_footer_is_cut_to_one_line(self) -> None:
        """A longer footer could not be removed again."""
        shown = run_on_terminal("screen.footer('x' * 500); screen.say('said')")

        assert 79 == shown.count("x")

    def test_no_color_is_respected(self) -> None:
        """With NO_COLOR there are no colors."""
        colour = re.compile(r"\x1b\[[0-9;]*\b(3[0-8]|9[0-7])(;[0-9;]*)?m")

        assert colour.search(run_on_terminal(EVERYTHING))
        assert not colour.search(run_on_terminal(EVERYTHING, env={"NO_COLOR": "1"}))

    @pytest.mark.parametrize("term", ["dumb", "unknown"])
    def test_terminal_without_codes_gets_the_same_lines(self, term: str) -> None:
        """A terminal that understands no codes gets none."""
        shown = run_on_terminal(EVERYTHING, env={"TERM": term})

        assert not [
            c for c in shown if unicodedata.category(c) == "Cc" and c not in "\n\t"
        ]
        assert sorted((ON_STDERR + ON_STDOUT).splitlines()) == sorted(
            shown.splitlines()
        )

    @pytest.mark.parametrize(("typed", "answer"), [("ob-1", True), ("yes", False)])
    def test_only_the_requested_word_is_a_yes(self, typed: str, answer: bool) -> None:
        """Any other answer is a no."""
        shown = run_on_terminal(
            "print(screen.ask('Type the id:', 'ob-1'))", typed=f"{typed}\n"
        )

        assert "Type the id:" in shown
        assert str(answer) in shown

    def test_stage_pauses_its_line_during_a_question(self) -> None:
        """The line of the stage continues after the answer."""
        shown = run_on_terminal(
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
        assert visible_lines(shown)[-2].endswith("True")

    def test_markup_in_a_name_is_shown_as_text(self) -> None:
        """Text that looks like markup is shown unchanged."""
        shown = run_on_terminal(
            "screen.note('[bold]a[/bold]')\n"
            "screen.print_stage('run', 'done', '[red]', ':x:')\n"
            "with screen.stage('push') as line: line.end('', '[/nonsense] [1]')"
        )

        for text in ("[bold]a[/bold]", "[red]", ":x:", "[/nonsense] [1]"):
            assert text in without_codes(shown)


class TestFailure:
    def test_error_shows_message_then_running_then_next(self) -> None:
        """The three parts are in this order."""
        code = "screen.error(OneboxError('no', running='ob-1, $3/h', next='inv x'))"
        expected = "onebox[70]: no\n        ob-1, $3/h\n  next: inv x\n"

        assert (0, "", expected) == run_in_pipes(code)
        assert expected == without_codes(run_on_terminal(code))

    def test_error_without_running_and_next_is_one_line(self) -> None:
        """Missing parts are left out."""
        assert (0, "", "onebox[70]: no\n") == run_in_pipes(
            "screen.error(OneboxError('no'))"
        )

    @pytest.mark.parametrize("error", ["KeyError", "KeyboardInterrupt"])
    def test_failing_stage_leaves_a_marked_line(self, error: str) -> None:
        """The line of the stage is marked, and the error is raised."""
        code = (
            "try:\n"
            f"    with screen.stage('push'): raise {error}\n"
            f"except {error}: screen.say('raised')\n"
        )
        expected = r"push +✗ 0\.\d s *\nraised\n"

        assert re.fullmatch(expected, run_in_pipes(code)[2])
        assert re.search(expected, without_codes(run_on_terminal(code)))


class TestJobOutput:
    EVERY = "data = bytes(range(256)) * 1000 + b'no newline'\n"

    def test_job_output_is_unchanged_in_a_pipe(self) -> None:
        """The job's bytes are passed on unchanged."""
        done = subprocess.run(
            [sys.executable, "-c", f"{HEAD}{self.EVERY}screen.output(data)"],
            cwd=ROOT,
            env=environment({}),
            capture_output=True,
            check=True,
        )

        assert bytes(range(256)) * 1000 + b"no newline" == done.stdout
        assert b"" == done.stderr

    def test_job_output_in_a_file_is_unchanged(self, tmp_path: Path) -> None:
        """
        If stdout is a file, the terminal shows our lines, and the file has the
        job's bytes.
        """
        with (tmp_path / "log").open("wb") as log:
            shown = run_on_terminal(
                "screen.footer('run 0:01'); screen.output(b'a')\n"
                "screen.footer('run 0:02'); screen.output(b'b\\n')\n"
                "screen.close_line(); screen.say('said')",
                stdout=log.fileno(),
            )

        assert b"ab\n" == (tmp_path / "log").read_bytes()
        assert "0:02" in shown
        assert ["said", ""] == visible_lines(shown)

    def test_our_line_starts_after_an_open_line_of_the_job(
        self, tmp_path: Path
    ) -> None:
        """If both go to the same place, our line starts on a new line."""
        code = (
            "screen.output(b'no newline'); screen.print_stage('run', 'done', '0.0 s')\n"
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
            "onebox[70]: no",
        ] == done.stdout.decode().splitlines()
        assert "no newline12\n3" == run_in_pipes(code)[1]
        with (tmp_path / "log").open("wb") as log:
            shown = run_on_terminal(code, stdout=log.fileno())
        assert b"no newline12\n3" == (tmp_path / "log").read_bytes()
        assert "" not in visible_lines(shown)[:-1]

    def test_job_output_follows_earlier_prints_of_the_user(self) -> None:
        """Earlier output of a user's task stays before the job's output."""
        code = "print('mine'); screen.output(b'job\\n'); print('mine again')"

        assert (0, "mine\njob\nmine again\n", "") == run_in_pipes(code)

    def test_closed_stdout_is_noted_and_stderr_still_works(self) -> None:
        """If the reader of stdout has ended, nothing fails."""
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
        printed = process.stderr.read().decode()
        process.stderr.close()
        process.wait()

        assert printed.startswith("closed: True\n")
        assert "Traceback" not in printed

    def test_closed_terminal_or_pipe_does_not_end_the_work(
        self, tmp_path: Path
    ) -> None:
        """A terminal or a pipe that was closed raises no error."""
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

    def test_job_output_without_stdout_is_written_to_no_file(
        self, tmp_path: Path
    ) -> None:
        """If stdout was closed from the start, the bytes are in none of our files."""
        code = (
            f"journal = open({str(tmp_path / 'journal')!r}, 'w')\n"
            "screen.output(b'job'); screen.print('x'); screen.say(screen.problem)"
        )
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "-", sys.executable, "-c", HEAD + code],
            cwd=ROOT,
            env=environment({}),
            capture_output=True,
            check=False,
        )

        assert (0, b"it is closed\n") == (done.returncode, done.stderr)
        assert b"" == (tmp_path / "journal").read_bytes()


class TestEncoding:
    ASCII: ClassVar[dict[str, str]] = {
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii:strict",
    }
    NAMES = (
        "screen.print_stage('run', 'failed', 'x', 'exit 3')\n"
        "screen.print_stage('push', 'done', 'x', 'ü → \\udcff')\n"
        "screen.print('ü → \\udcff'); screen.table(['ü'], [['\\udcff']])\n"
        "screen.footer('ü \\udcff'); screen.say('ü \\udcff')\n"
    )

    def test_ascii_pipe_gets_other_marks_and_readable_names(self) -> None:
        """An encoding without our marks gets ASCII marks and escaped names."""
        code, out, err = run_in_pipes(self.NAMES, **self.ASCII)

        assert 0 == code, err
        assert "run        FAILED x  exit 3" == err.splitlines()[0]
        assert err.splitlines()[1].startswith("push       ok x  \\xfc")
        assert out.startswith("\\xfc")

    def test_longer_ascii_mark_stays_on_the_line_of_its_stage(self) -> None:
        """The line is still one line."""
        seen = visible_lines(run_on_terminal(self.NAMES, env=self.ASCII))

        assert re.fullmatch("run +FAILED x +exit 3", seen[0])
        assert re.match("push +ok x +", seen[1])

    def test_name_that_is_not_utf_8_raises_no_error(self) -> None:
        """On either stream such a name is shown escaped."""
        code, out, err = run_in_pipes(self.NAMES, PYTHONIOENCODING="utf-8:strict")

        assert 0 == code, err
        assert "ü → \\udcff" == out.splitlines()[0]
