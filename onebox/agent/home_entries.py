"""What an image of a box leaves out of the home that it saves."""

from __future__ import annotations

# These entries belong to the box and not to its environment: the project, ssh keys, and
# histories of shells and other programs.
LEFT_OUT = (
    "work",
    ".ssh",
    ".bash_history",
    ".python_history",
    ".zsh_history",
    ".lesshst",
    ".viminfo",
    ".wget-hsts",
)
