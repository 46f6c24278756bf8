"""What describes one setting."""

from __future__ import annotations

from dataclasses import dataclass

from onebox.config.kinds import Check, Kind

CLOUDS = ("aws", "gcp", "digitalocean")
PROVIDERS = ("local", *CLOUDS)
GB = 1 << 30


@dataclass(frozen=True)
class Key:
    """
    One setting.

    *path* is the full name ("limits.max_hours", "vm.*.cpus"), *default* None
    means: not set. *example* is a value as TOML writes it. With *blank*, "" in
    the file means: not set.
    """

    path: str
    kind: Kind
    default: object
    example: str
    help: str
    checks: tuple[Check, ...]
    blank: bool

    @property
    def table(self) -> str:
        """The table it stands in, "" at the top."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The key in its table."""
        return self.path.rpartition(".")[2]

    @property
    def variable(self) -> str:
        """The ONEBOX_* variable that sets it, "" if none does."""
        if not self.kind.scalar or self.table == "vm.*":
            return ""
        return "ONEBOX_" + self.path.replace(".", "_").upper()


def key(
    path: str,
    kind: Kind,
    default: object,
    example: str,
    help: str,
    *checks: Check,
    blank: bool = False,
) -> Key:
    """Describe one setting."""
    return Key(path, kind, default, example, help, checks, blank)
