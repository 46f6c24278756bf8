"""
Write the commands in a box's `bin` folder, which comes first in the box's PATH.

A job that was written for a cloud machine may end with `sudo shutdown -h now`. In a
local box this command must stop the box, and never the user's own machine.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

# `init 0` (or `telinit 0`) means the same as `poweroff`, `init 6` the same as `reboot`.
_SCRIPTS = {
    "poweroff": "ask poweroff 0",
    "halt": "ask poweroff 0",
    "reboot": "ask reboot 0",
    "init": """case "${1:-}" in
0) ask poweroff 0 ;;
6) ask reboot 0 ;;
*) echo "$name: there is no init in the local box" >&2; exit 1 ;;
esac""",
    "systemctl": """for word; do
  case "$word" in
  -*) ;;
  poweroff|halt|reboot) ask "$word" 0 ;;
  *) break ;;
  esac
done
echo "systemctl: there is no systemd in the local box" >&2
exit 1""",
    "shutdown": """what=poweroff when=
for word; do
  case "$word" in
  -c) ask cancel 0 ;;
  -r|--reboot) what=reboot ;;
  -*) ;;
  *) when=$word; break ;;
  esac
done
case "${when:-+1}" in
now|+0) ask $what 0 ;;
+*[!0-9]*|+) ;;
+*) seconds=$((${when:-+1} * 60))
  echo "shutdown: the local box stops in $seconds s; shutdown -c cancels" >&2
  ask $what $seconds ;;
esac
echo "shutdown: the local box supports 'now' and '+minutes', not '$when'" >&2
exit 1""",
    "sudo": """while [ $# -gt 0 ]; do
  case "$1" in
  -u|-g|-h|-p|-C|-D|-R|-T|-U) shift ;;
  -*|*=*) ;;
  *) break ;;
  esac
  shift
done
case "${1##*/}" in
poweroff|halt|reboot|shutdown|init|telinit|systemctl)
  inner=${1##*/}; shift; exec "${0%/*}/$inner" "$@" ;;
esac
echo "sudo: there is no root in the local box" >&2
exit 87""",
}
_SCRIPTS["telinit"] = _SCRIPTS["init"]

_HEAD = """#!/bin/sh
# Made by onebox: in the local box, this stops the box and nothing else.
set -u
name=${{0##*/}}
ask() {{
  [ "$1" = halt ] && set -- poweroff "$2"
  printf '%s %s\\n' "$1" "$2" > {power} || exit 1
  exit 0
}}
"""


def write(into: Path, power: Path) -> None:
    """
    Write the box's own power commands, `sudo` and python3 into the folder *into*.

    *power* is the path of the pipe through which the power commands send their orders
    to the supervisor.
    """
    into.mkdir(mode=0o700, exist_ok=True)
    head = _HEAD.format(power=shlex.quote(str(power)))
    for name, body in _SCRIPTS.items():
        _write_program(into / name, f"{head}{body}\n")
    # python3 is a script and not a link. Through a link, Python would see this folder
    # as its own, and create virtual environments that refer to it. But the folder has
    # no standard library.
    run = f'#!/bin/sh\nexec {shlex.quote(base_python())} "$@"\n'
    for name in ("python3", "python"):
        _write_program(into / name, run)


def base_python() -> str:
    """Return the path of the real interpreter, outside of any virtual environment."""
    # sys.executable is not used, because in a virtual environment it is a path in that
    # environment, which may be in the user's project.
    base = getattr(sys, "_base_executable", "") or sys.executable
    return os.path.realpath(base)


def python_folders() -> list[str]:
    """Return the folders that the box must be able to read for its Python to work."""
    return sorted({sys.prefix, sys.base_prefix, sys.base_exec_prefix})


def _write_program(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(0o755)
