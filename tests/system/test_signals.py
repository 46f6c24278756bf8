"""Signals to real processes are raised, delayed, or end the process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from onebox.signals import (
    ONE_PRESS_SECONDS,
    SIGNALS,
    Interrupted,
    signals_as_exceptions,
    signals_delayed,
)

ROOT = Path(__file__).parents[2]
HEAD = """\
import os, signal, sys, threading, time
from onebox.signals import ONE_PRESS_SECONDS, Interrupted
from onebox.signals import signals_as_exceptions, signals_delayed
def say(*words): print(*words, flush=True)
def wait(): sys.stdin.readline()
def later(): time.sleep(1.5 * ONE_PRESS_SECONDS)
def me(number): os.kill(os.getpid(), number)
"""


class SignalledProcess:
    """
    A process whose body runs under `signals_as_exceptions` and waits for the test.
    """

    def __init__(self, code: str, *, ignoring: tuple[int, ...] = ()) -> None:
        # Signals that the test runner ignores must not be inherited.
        before = {n: signal.getsignal(n) for n in SIGNALS}
        for number in SIGNALS:
            ignored = number in ignoring
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HEAD + code],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def until(self, word: str) -> None:
        """Wait until the process has printed a word."""
        assert self.process.stdout is not None
        assert f"{word}\n" == self.process.stdout.readline()

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def go_on(self) -> None:
        """Continue the process from where it waits."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        """Return the exit code, and what else was printed, on stdout and stderr."""
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


BODY = """\
try:
    with signals_as_exceptions(lambda: 'last words'):
        try:
            say('up'); wait()
        finally:
            say('cleaned up')
except Interrupted as stop:
    say(stop, stop.number)
    sys.exit(stop.code)
"""


class TestFirstSignal:
    @pytest.mark.parametrize(
        ("number", "code"),
        [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    )
    def test_first_signal_is_raised_as_an_exception(
        self, number: int, code: int
    ) -> None:
        """Ctrl-C, TERM and HUP raise one exception, and every `finally` runs."""
        line = SignalledProcess(BODY)
        line.until("up")
        line.send(number)
        name = signal.Signals(number).name

        assert (code, f"cleaned up\n{name} {int(number)}\n", "") == line.end()

    @pytest.mark.parametrize(
        ("how", "number"),
        [("INT", signal.SIGINT), ("TERM", signal.SIGTERM), ("HUP", signal.SIGHUP)],
    )
    def test_signal_is_not_caught_by_except_exception(
        self, how: str, number: int
    ) -> None:
        """No `except Exception` stops it."""
        line = SignalledProcess(
            "try:\n"
            "    with signals_as_exceptions(str):\n"
            f"        try: me(signal.SIG{how})\n"
            "        except Exception: say('swallowed')\n"
            "except Interrupted as stop: sys.exit(stop.code)\n"
        )

        assert (128 + number, "", "") == line.end()

    def test_hup_ignored_by_nohup_stays_ignored(self) -> None:
        """The other signals work."""
        line = SignalledProcess(BODY, ignoring=(signal.SIGHUP,))
        line.until("up")
        line.send(signal.SIGHUP)
        line.send(signal.SIGTERM)

        assert (143, "cleaned up\nSIGTERM 15\n", "") == line.end()


class TestDelayedSignals:
    def test_signal_in_a_delayed_part_is_raised_at_its_end(self) -> None:
        """The part is completed first."""
        line = SignalledProcess(
            "try:\n"
            "    with signals_as_exceptions(str):\n"
            "        with signals_delayed():\n"
            "            with signals_delayed():\n"
            "                me(signal.SIGTERM); say('first half')\n"
            "            say('second half')\n"
            "        say('after')\n"
            "except Interrupted as stop: sys.exit(stop.code)\n"
        )

        assert (143, "first half\nsecond half\n", "") == line.end()

    def test_delayed_signal_is_raised_once(self) -> None:
        """The next delayed part does not raise it again."""
        line = SignalledProcess(
            "with signals_as_exceptions(str):\n"
            "    try:\n"
            "        with signals_delayed(): me(signal.SIGINT)\n"
            "    except Interrupted: say('raised')\n"
            "    with signals_delayed(): say('again')\n"
            "say('through')\n"
        )

        assert (0, "raised\nagain\nthrough\n", "") == line.end()

    def test_second_signal_is_not_delayed(self) -> None:
        """The second signal ends a delayed part, because that may hang."""
        line = SignalledProcess(
            "with signals_as_exceptions(lambda: 'ob-1 is left'):\n"
            "    with signals_delayed():\n"
            "        me(signal.SIGINT); later(); me(signal.SIGINT); say('never')\n"
        )

        assert (130, "", "\nonebox: ob-1 is left\n") == line.end()

    def test_delayed_part_of_another_thread_does_not_delay_this_one(self) -> None:
        """The signal is raised at once."""
        line = SignalledProcess(
            "holding = threading.Event()\n"
            "def hold():\n"
            "    with signals_delayed(): holding.set(); time.sleep(60)\n"
            "thread = threading.Thread(target=hold, daemon=True); thread.start()\n"
            "holding.wait()\n"
            "try:\n"
            "    with signals_as_exceptions(str): me(signal.SIGINT); say('late')\n"
            "except Interrupted: say('raised')\n"
        )

        assert (0, "raised\n", "") == line.end()


class TestSecondSignal:
    CLEANING = (
        "try:\n"
        "    with signals_as_exceptions({words}):\n"
        "        try:\n"
        "            say('up'); wait()\n"
        "        finally:\n"
        "            say('cleaning'); wait(); say('cleaned')\n"
        "except Interrupted as stop: sys.exit(stop.code)\n"
    )

    @pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
    def test_second_signal_ends_the_process_with_its_last_words(
        self, second: int
    ) -> None:
        """
        The second signal ends the process at once, without the rest of the
        clean-up.
        """
        line = SignalledProcess(
            self.CLEANING.format(words="lambda: 'ob-1, $3.07/h, off at 18:40'")
        )
        line.until("up")
        line.send(signal.SIGINT)
        line.until("cleaning")
        time.sleep(1.5 * ONE_PRESS_SECONDS)
        line.send(second)

        printed = "\nonebox: ob-1, $3.07/h, off at 18:40\n"
        assert (128 + second, "", printed) == line.end()

    def test_hup_and_term_of_a_closed_terminal_count_as_one(self) -> None:
        """
        A terminal that closes sends HUP and TERM; the TERM does not end the
        clean-up.
        """
        line = SignalledProcess(self.CLEANING.format(words="str"))
        line.until("up")
        line.send(signal.SIGHUP)
        line.until("cleaning")
        line.send(signal.SIGTERM)
        line.go_on()

        assert (129, "cleaned\n", "") == line.end()

    def test_second_signal_ends_the_process_if_the_last_words_fail(self) -> None:
        """
        An exception in the function of the last words does not keep the process
        alive.
        """
        line = SignalledProcess(self.CLEANING.format(words="lambda: 1 / 0"))
        line.until("up")
        line.send(signal.SIGINT)
        line.until("cleaning")
        time.sleep(1.5 * ONE_PRESS_SECONDS)
        line.send(signal.SIGINT)

        assert (130, "") == line.end()[:2]

    def test_last_words_with_closed_stderr_are_written_to_no_file(
        self, tmp_path: Path
    ) -> None:
        """Its descriptor may belong to another file."""
        line = SignalledProcess(
            "os.close(2); sys.stderr = None\n"
            f"f = open({str(tmp_path / 'journal')!r}, 'w')\n"
            "assert f.fileno() == 2\n"
            "with signals_as_exceptions(lambda: 'words'):\n"
            "    with signals_delayed():\n"
            "        me(signal.SIGINT); later(); me(signal.SIGINT)\n"
        )

        assert 130 == line.end()[0]
        assert "" == (tmp_path / "journal").read_text()

    def test_last_words_of_the_outer_chain_are_restored(self) -> None:
        """They are restored when an inner chain ends."""
        line = SignalledProcess(
            "with signals_as_exceptions(lambda: 'outer'):\n"
            "    with signals_as_exceptions(lambda: 'inner'): pass\n"
            "    with signals_delayed():\n"
            "        me(signal.SIGINT); later(); me(signal.SIGINT)\n"
        )

        assert (130, "", "\nonebox: outer\n") == line.end()


class TestProcessOfAUser:
    def test_second_signal_is_raised_too(self) -> None:
        """It does not end the process, and a delayed part is completed first."""
        line = SignalledProcess(
            "try:\n"
            "    with signals_as_exceptions(str, exits=False):\n"
            "        try: me(signal.SIGINT)\n"
            "        finally:\n"
            "            later()\n"
            "            with signals_delayed(): me(signal.SIGINT); say('whole')\n"
            "            say('never')\n"
            "except Interrupted: say('raised')\n"
            "me(signal.SIGTERM)\n"
        )

        assert (-signal.SIGTERM, "whole\nraised\n", "") == line.end()

    def test_signals_while_python_exits_have_their_usual_effect(self) -> None:
        """An interrupted call changes nothing for the rest of the process."""
        line = SignalledProcess(
            "import atexit\n"
            "atexit.register(me, signal.SIGTERM)\n"
            "try:\n"
            "    with signals_as_exceptions(str, exits=False): me(signal.SIGINT)\n"
            "except Interrupted: say('raised')\n"
        )

        assert (-signal.SIGTERM, "raised\n", "") == line.end()


class TestHandlersAfterTheChain:
    def test_handlers_are_restored_after_the_chain(self) -> None:
        """Each signal does what it did before."""
        before = [signal.getsignal(number) for number in SIGNALS]
        with signals_as_exceptions(str):
            assert before != [signal.getsignal(number) for number in SIGNALS]
        with pytest.raises(KeyError), signals_as_exceptions(str):
            raise KeyError

        assert before == [signal.getsignal(number) for number in SIGNALS]

    def test_end_of_an_inner_chain_keeps_the_outer_handlers(self) -> None:
        """When a nested chain ends, the handlers of the outer chain stay."""
        with signals_as_exceptions(str):
            outer = [signal.getsignal(number) for number in SIGNALS]
            with signals_as_exceptions(str):
                pass
            assert outer == [signal.getsignal(number) for number in SIGNALS]

    def test_signals_are_counted_for_each_chain(self) -> None:
        """A handled signal is not the first one of the next chain."""
        for _ in range(3):
            with pytest.raises(Interrupted), signals_as_exceptions(str):
                signal.raise_signal(signal.SIGTERM)


def test_chain_in_another_thread_has_no_handlers() -> None:
    """Python allows handlers in the main thread only."""
    line = SignalledProcess(
        "def work():\n"
        "    with signals_as_exceptions(str), signals_delayed(): say('worked')\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "say(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n"
    )

    assert (0, "worked\nTrue\n", "") == line.end()


@pytest.mark.parametrize("part", [signals_delayed, lambda: signals_as_exceptions(str)])
def test_exceptions_of_the_body_are_not_changed(part: Callable[[], object]) -> None:
    """An exception of a chain or of a delayed part is raised unchanged."""
    with pytest.raises(KeyError, match="mine"), part():  # type: ignore[attr-defined]
        raise KeyError("mine")
