"""Collect mistakes in settings, so that one error reports all of them."""

from __future__ import annotations

from onebox.errors import ConfigError

# A file that is no file of settings could have a mistake in each line.
_MOST = 10


class Mistakes:
    """The mistakes that were found in settings, in the order of the checks."""

    def __init__(self) -> None:
        self._found: list[ConfigError] = []

    def add(self, mistake: ConfigError) -> None:
        """Add a mistake."""
        self._found.append(mistake)

    def raise_if_any(self) -> None:
        """
        Raise one error for all mistakes; a single mistake is raised as it was added.

        Raises:
            ConfigError: There is a mistake. The message has a line for each one.
        """
        if not self._found:
            return
        first, *others = self._found
        if not others:
            raise first
        lines = [mistake.message for mistake in self._found]
        if len(lines) > _MOST:
            lines[_MOST:] = [f"and {len(lines) - _MOST} more mistakes"]
        raise ConfigError("\n".join(lines), next=first.next)
