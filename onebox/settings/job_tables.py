"""
Declare the settings of the job: the tables [image], [push], [run] and [fetch].

They belong to one project, so the user-wide file cannot hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onebox.settings.checks import (
    Matching,
    OneOf,
    distinct,
    environment,
    in_project,
    is_variable,
    job_output,
    not_empty,
    one_line,
    outputs_folder,
    packages_file,
    packer_variables,
    ports,
    seconds_between,
)
from onebox.settings.data_sources import DataSource, is_address
from onebox.settings.data_sources import data as data_entries
from onebox.settings.fields import Conflict, Table, setting
from onebox.settings.kinds import (
    BOOLEAN,
    DURATION,
    PORTS,
    STRING,
    STRING_TABLE,
    STRINGS,
)

# This matches the value of [image] python, which uv receives: a version, a range of
# versions, or another implementation of Python with its version.
_PYTHON = r"(?:[a-z]+@?)?[<>=~!]*[0-9][0-9A-Za-z.,<>=~!*]*"
_BASES = ("ubuntu-22.04", "ubuntu-24.04", "debian-12", "debian-13")


@dataclass(frozen=True)
class ImageTable(Table):
    """
    The environment of the job.

    *packer* builds it, or *setup*, *python* and *requirements* build it, or *use* names
    an image that exists already. *size* names the size of the box that builds the
    image; `Settings.builder_size` is that size. *vars* are the variables of the Packer
    template.
    """

    base: str = setting(
        STRING,
        "ubuntu-24.04",
        '"debian-12"',
        "The operating system of the environment.",
        OneOf(_BASES),
    )
    size: str = setting(
        STRING,
        "small",
        '"small"',
        "The size of the box that builds it.",
        not_empty,
        one_line,
    )
    setup: str | None = setting(
        STRING,
        None,
        '"setup.sh"',
        "A script that builds the environment, run once.",
        in_project,
        blank=True,
    )
    python: str | None = setting(
        STRING,
        None,
        '"3.12"',
        "The Python of the job, in ~/.venv; installed after setup.",
        Matching(_PYTHON, "a version of Python such as 3.12"),
        blank=True,
    )
    requirements: str | None = setting(
        STRING,
        None,
        '"requirements.txt"',
        "Its packages: such a list, pyproject.toml or uv.lock.",
        packages_file,
        blank=True,
    )
    packer: str | None = setting(
        STRING,
        None,
        '"image.pkr.hcl"',
        "Instead: a Packer template that builds it.",
        in_project,
        blank=True,
    )
    use: str | None = setting(
        STRING,
        None,
        '"ami-0abc1234"',
        "Instead: a finished image, by the provider's own id.",
        one_line,
        blank=True,
    )
    include: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["requirements.txt"]',
        "Files it needs; a change of one builds a new image.",
        in_project,
        distinct,
    )
    env: Mapping[str, str] = setting(
        STRING_TABLE,
        {},
        '{ PIP_NO_CACHE_DIR = "1" }',
        "Variables of the set-up script, and of uv.",
        environment,
    )
    vars: Mapping[str, str] = setting(
        STRING_TABLE,
        {},
        '{ release = "2026.1" }',
        "Variables of the Packer template.",
        packer_variables,
    )

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise Conflict for two sources of the image, or *vars* without *packer*."""
        built = [
            key for key in ("setup", "python", "requirements") if getattr(self, key)
        ]
        ways = [*built[:1], *(key for key in ("packer", "use") if getattr(self, key))]
        if len(ways) > 1:
            raise Conflict(ways[1], f"excludes {ways[0]}: an image is built in one way")
        if self.vars and not self.packer:
            raise Conflict("vars", "needs a Packer template; set [image] packer")


@dataclass(frozen=True)
class PushTable(Table):
    """The files that are copied to the box; paths are relative to the project."""

    code: tuple[str, ...] = setting(
        STRINGS,
        (".",),
        '["."]',
        "Copy what git would track below these, without .venv and caches.",
        in_project,
        distinct,
    )
    data: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["data/", "s3://bucket/x/"]',
        "Copy all files below these; the box downloads addresses.",
        data_entries,
        distinct,
    )

    into_image: bool = setting(
        BOOLEAN,
        False,
        "true",
        "Download the data into the image too, when it is built.",
    )

    @property
    def local_data(self) -> tuple[str, ...]:
        """Return the paths in *data*."""
        return tuple(name for name in self.data if not is_address(name))

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """Return what the addresses in *data* name."""
        return tuple(DataSource.parse(name) for name in self.data if is_address(name))

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise Conflict for two addresses whose files would be in one place."""
        targets: dict[str, DataSource] = {}
        for source in self.sources:
            for other in targets.values():
                if overlap(source.target, other.target):
                    raise Conflict(
                        "data",
                        f"{source.shown} and {other.shown} would both be in "
                        f"{min(source.target, other.target, key=len)}; give one "
                        'another place: "ADDRESS -> FOLDER/"',
                    )
            targets[source.target] = source


def overlap(one: str, other: str) -> bool:
    """Return whether one of two paths is the other one, or is below it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


@dataclass(frozen=True)
class RunTable(Table):
    """The job; *secrets* are names of variables, *cancel_grace* is in seconds."""

    command: str | None = setting(
        STRING, None, '"python train.py"', "The job: a line of shell.", not_empty
    )
    env: Mapping[str, str] = setting(
        STRING_TABLE,
        {},
        "{ OMP_NUM_THREADS = 64, DEBUG = true }",
        'Variables of the job, as texts: "64", "true".',
        environment,
    )
    secrets: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["HF_TOKEN"]',
        "Variables whose values are for the job, never on disk.",
        is_variable,
        distinct,
    )
    ports: tuple[str, ...] = setting(
        PORTS,
        (),
        "[8888]",
        'Ports of the job that are forwarded to this machine; "8080:80" too.',
        ports,
        distinct,
    )
    when: str = setting(
        STRING,
        "always",
        '"changed"',
        '"changed": only after a change of command, code, data or image.',
        OneOf(("always", "changed")),
    )
    cancel_grace: float = setting(
        DURATION,
        30.0,
        '"30 s"',
        "The time a cancelled job has to end by itself.",
        seconds_between(0, 3600),
    )

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise Conflict for a variable that is both public and secret."""
        for name in self.secrets:
            if name in self.env:
                raise Conflict("secrets", f"{name} is in [run] env too")


@dataclass(frozen=True)
class FetchTable(Table):
    """
    The files that are copied back; *every* is in seconds.

    *outputs_to* is the folder that receives the outputs, in which `{name}` stands for
    the box's name. None means the project itself.
    """

    outputs: tuple[str, ...] = setting(
        STRINGS,
        ("results/",),
        '["results/"]',
        "The outputs, fetched when the job has ended.",
        job_output,
        distinct,
    )
    checkpoints: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["ckpt/"]',
        "The outputs that are fetched during the job too.",
        job_output,
        distinct,
    )
    outputs_to: str | None = setting(
        STRING,
        None,
        '"runs/{name}"',
        "The folder for outputs, if not the project; {name} is the box's.",
        outputs_folder,
    )
    every: float = setting(
        DURATION,
        300.0,
        '"5 min"',
        "The time between two fetches of checkpoints.",
        seconds_between(1, 86400),
    )
