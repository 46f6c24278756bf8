"""
Reach boxes through a tool of the cloud, so that no network needs access to their ssh.

ssh then connects through the tool, which uses the user's own login at the cloud. The
setting is `reach`; each cloud has its own words for it. A box records its word when it
is created, so that it is reached in the same way after the setting has changed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onebox import subprocess_env
from onebox.errors import ProviderError, SetupError
from onebox.providers.values import Check
from onebox.settings.checks import OneOf
from onebox.settings.fields import Conflict, setting
from onebox.settings.kinds import STRING

if TYPE_CHECKING:
    from onebox.providers.kernel.cloud_settings import CloudSettings

# A tool that prints its version or its login may take this many seconds: some start
# slowly, and one may renew a token first.
ANSWER_SECONDS = 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+-]*")


def reach_setting(help: str, *words: str) -> Any:
    """Declare the setting for the tool that leads to boxes; *words* are its values."""
    return setting(STRING, "", f'"{words[0]}"', help, OneOf(words), blank=True)


def check_reach(settings: CloudSettings, word: str) -> None:
    """
    Raise Conflict if another setting contradicts `reach`.

    Args:
        word: The value of `reach`.
    """
    for key in ("ssh_cidr", "allow_world_ssh", "jump"):
        if word and getattr(settings, key):
            raise Conflict(
                key,
                f'contradicts reach = "{word}", with which ssh connects through the '
                "cloud's own tool; remove one of the two",
            )


def is_name(text: str) -> bool:
    """Return whether a text means the same to every shell, and is no option."""
    return bool(_NAME.fullmatch(text))


def name(text: str) -> str:
    """
    Return a name that can be an argument of a tool.

    Raises:
        ProviderError: A shell or the tool could take the name for something else.
    """
    if not is_name(text):
        raise ProviderError(f"{text!r} cannot be a name in a command")
    return text


@dataclass(frozen=True)
class Tool:
    """
    A program that this machine needs to reach a box.

    Attributes:
        install: What to do if it is missing.

        version: The arguments with which the program prints its version.

        pattern: A regular expression for the version in that output. Its groups are the
            numbers of the version.

        least: The lowest version that has what is needed, () if any has.

        variables: The beginnings of the names of the variables that it reads.
    """

    program: str
    install: str
    version: tuple[str, ...]
    pattern: str
    least: tuple[int, ...] = ()
    variables: tuple[str, ...] = ()

    def look(self, *, version: bool = True) -> str:
        """
        Return the version and the path of the program.

        Args:
            version: Whether to look for the version if every version is good.

        Raises:
            SetupError: It is missing, too old or broken.
        """
        path = shutil.which(self.program)
        if path is None:
            raise SetupError(
                f"{self.program} is not on this machine", next=self.install
            )
        if not (version or self.least):
            return path
        code, output = run([self.program, *self.version], self.variables)
        found = re.search(self.pattern, output)
        if code or found is None:
            lines = output.strip().splitlines() or [f"exit {code}"]
            raise SetupError(
                f"{path} does not work: {lines[-1][:200]}", next=self.install
            )
        if tuple(map(int, found.groups())) < self.least:
            least = ".".join(map(str, self.least))
            raise SetupError(
                f"{path} is version {'.'.join(found.groups())}, and {least} or newer "
                "is needed",
                next=self.install,
            )
        return f"{'.'.join(found.groups())}, {path}"

    def check(self) -> Check:
        """Return the line of `inv doctor` about the program. Raises SetupError."""
        return Check(self.program, True, self.look())


def require(tools: Sequence[Tool]) -> None:
    """Raise SetupError if one of *tools* is missing or too old."""
    for tool in tools:
        tool.look(version=False)


def run(argv: Sequence[str], variables: tuple[str, ...]) -> tuple[int, str]:
    """Run a program of the user's; return its exit code and all its output."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ANSWER_SECONDS,
            check=False,
            env=subprocess_env.environment(variables),
        )
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {ANSWER_SECONDS:.0f} s"
    except OSError as error:
        return 1, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace")
