"""Define the settings in the table [slurm] of onebox.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onebox.settings.checks import Matching, OneOf, not_empty, one_line
from onebox.settings.fields import Conflict, ProviderTable, setting
from onebox.settings.kinds import STRING, STRINGS

# sbatch(1), "--time": acceptable time formats.
_TIME = Matching(
    r"\d+|\d+:\d{2}|\d+:\d{2}:\d{2}|\d+-\d{1,2}(:\d{2}){0,2}",
    'a time of Slurm: minutes, or "hours:minutes:seconds", or "days-hours"',
)
_WORD = Matching(r"[A-Za-z0-9_][A-Za-z0-9_.,@+-]*", "a plain name")
# These options are onebox's own. Another value would lose the job or its result.
_OWN = (
    *("array", "chdir", "dependency", "error", "export", "job-name", "no-requeue"),
    *("open-mode", "output", "requeue", "signal", "test-only", "parsable", "wrap"),
    *("comment", "wait"),
)


@dataclass(frozen=True)
class SlurmSettings(ProviderTable):
    """How the cluster is reached, and what its jobs ask for."""

    host: str = setting(
        STRING,
        "",
        '"login.example.edu"',
        "The login node, as your own ssh knows it.",
        Matching(
            r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.:-]*",
            "the name of a host, which may begin with USER@",
        ),
    )
    root: str = setting(
        STRING,
        "$HOME/.onebox",
        '"$SCRATCH/onebox"',
        "The folder of all boxes there; every node must see it.",
        # Slurm replaces % and \\ in the names of files.
        Matching(r"[/$~][^%\\\n\r]*", "a path that begins with /, ~ or a variable"),
    )
    partition: str | None = setting(
        STRING, None, '"cpu"', "The partition; if not set, the cluster's own.", _WORD
    )
    account: str | None = setting(
        STRING, None, '"physics"', "The account that is charged.", _WORD
    )
    qos: str | None = setting(STRING, None, '"long"', "The quality of service.", _WORD)
    time: str | None = setting(
        STRING, None, '"2-00"', "The time limit of a job, instead of max_hours.", _TIME
    )
    extra: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["--gres=gpu:1", "--constraint=avx512"]',
        "Further options of sbatch.",
        Matching(r"--[a-z][^\n]*", 'a long option such as "--gres=gpu:1"'),
    )
    build: str = setting(
        STRING,
        "node",
        '"login"',
        "Where images are built: by a job, or on the login node.",
        OneOf(("node", "login")),
    )
    python: str | None = setting(
        STRING,
        None,
        '"/opt/python/3.11/bin/python3"',
        "A Python of 3.8 or newer there; if not set, one in PATH.",
        Matching(r"/[^\n]*|[A-Za-z][A-Za-z0-9_.-]*", "a program or its path"),
    )
    ssh_config: str | None = setting(
        STRING,
        None,
        '"~/.ssh/cluster"',
        "A configuration of ssh, instead of ~/.ssh/config.",
        not_empty,
        one_line,
        of_user=True,
    )

    @property
    def sbatch_options(self) -> tuple[str, ...]:
        """Return the options of sbatch that the settings ask for."""
        found = [
            f"--{key}={value}"
            for key in ("partition", "account", "qos", "time")
            if (value := getattr(self, key))
        ]
        return (*found, *self.extra)

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise Conflict if *extra* has an option that onebox sets itself."""
        for option in self.extra:
            name = option.split("=")[0][2:]
            # sbatch accepts the beginning of an option's name too.
            if any(own.startswith(name) for own in _OWN):
                raise Conflict("extra", f"{option} is an option that onebox sets")
            for key in ("partition", "account", "qos", "time"):
                if key.startswith(name):
                    raise Conflict("extra", f"{option} is the setting {key}")
