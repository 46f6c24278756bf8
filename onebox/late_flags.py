"""Find flags of onebox that were typed after the command, so that the job gets them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence


def warning(
    line: Sequence[str], command: Sequence[str], flags: Mapping[str, bool | None]
) -> str:
    """
    Return the warning about such flags, with the line that was meant; "" without any.

    Words after `--` in the command are never such flags.

    Args:
        line: The words before the command, with the name of the program.

        flags: Whether each flag of the task takes a value; None if it is optional.
    """
    late: list[str] = []
    others, rest = [command[0]], list(command[1:])
    while rest and rest[0] != "--":
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name not in flags:
            others.append(word)
        elif value if flags[name] else not equals:
            late.append(word)
        elif flags[name] and not equals and rest and not rest[0].startswith("-"):
            late.append(f"{word}={rest.pop(0)}")
        else:
            others.append(word)
    if not late:
        return ""
    come = "comes" if len(late) == 1 else "come"
    it_goes = "it goes" if len(late) == 1 else "they go"
    return (
        f"{shlex.join(late)} {come} after the command, so {it_goes} to the job; "
        f"for the box: {shlex.join([*line, *late, *others, *rest])}"
    )
