"""The settings of the box itself and of the six stages."""

from __future__ import annotations

import re

from onebox.config import kinds
from onebox.config.key import GB, PROVIDERS, Key, key
from onebox.config.kinds import (
    COUNT,
    DURATION,
    FLAG,
    NUMBER,
    PAIRS,
    SIZE,
    TEXT,
    TEXT_OR_TEXTS,
    TEXTS,
    between,
    distinct,
    inside,
    left_by_job,
    matching,
    not_empty,
    one_line,
    one_of,
    seconds_between,
    sizes_between,
)

_USD = between(0.01, 1_000_000, "0.01 or more")
# As uv takes it: a version, a range of them, or another implementation.
_PYTHON = re.compile(r"(?:[a-z]+@?)?[<>=~!]*[0-9][0-9A-Za-z.,<>=~!*]*")
_HOURS = between(
    10 / 60, 14 * 24, 'from 0.17 (10 minutes) to 336 (14 days); there is no "off"'
)

BOX: tuple[Key, ...] = (
    key(
        "provider",
        TEXT,
        "local",
        '"aws"',
        "Where boxes are made: local, aws, gcp or digitalocean.",
        one_of(*PROVIDERS),
    ),
    key(
        "vm",
        TEXT,
        "small",
        '"large"',
        "The size: a name of [vm.*], a cloud's own type, or a need.",
        not_empty,
        one_line,
    ),
    key(
        "project",
        TEXT,
        None,
        '"census"',
        "What the project is called; the folder's name if not set.",
        kinds.slug,
    ),
    key(
        "name",
        TEXT,
        "main",
        '"main"',
        "Which box of the project this is: one lives per name.",
        kinds.slug,
    ),
    key(
        "spot",
        FLAG,
        None,
        "true",
        "Spot capacity or not; what the size says if not set.",
    ),
)

SIZE_KEYS: tuple[Key, ...] = (
    key(
        "vm.*.cpus",
        COUNT,
        None,
        "64",
        "How many vCPUs it needs at least.",
        between(1, 2048),
    ),
    key(
        "vm.*.memory",
        SIZE,
        None,
        '"256 GB"',
        "How much memory it needs at least.",
        sizes_between(GB // 8, 65536 * GB),
    ),
    key(
        "vm.*.spot",
        FLAG,
        None,
        "true",
        "Whether this size is spot capacity; false if not set.",
    ),
    key(
        "vm.*.disk",
        SIZE,
        None,
        '"500 GB"',
        "Its disk; what the provider's table says if not set.",
        sizes_between(8 * GB, 65536 * GB),
    ),
    key(
        "vm.*.max_price",
        NUMBER,
        None,
        "4.0",
        "The most that an hour of it may cost, in USD.",
        _USD,
    ),
    *(
        key(
            f"vm.*.{cloud}",
            TEXT_OR_TEXTS,
            (),
            example,
            f"Types of {called} to take; the first one available wins.",
            not_empty,
            distinct,
            kinds.types(cloud),
        )
        for cloud, called, example in (
            ("aws", "AWS", '["m7i.16xlarge", "m7a.16xlarge"]'),
            ("gcp", "Google", '"n2d-standard-64"'),
            ("digitalocean", "DigitalOcean", '"m-32vcpu-256gb"'),
        )
    ),
)

IMAGE: tuple[Key, ...] = (
    key(
        "image.base",
        TEXT,
        "ubuntu-24.04",
        '"debian-12"',
        "The system that the environment is built on.",
        one_of("ubuntu-22.04", "ubuntu-24.04", "debian-12", "debian-13"),
    ),
    key(
        "image.size",
        TEXT,
        "small",
        '"small"',
        "The size of the box that it is built on.",
        not_empty,
        one_line,
    ),
    key(
        "image.setup",
        TEXT,
        None,
        '"setup.sh"',
        "A script that builds the environment, run once.",
        inside,
        blank=True,
    ),
    key(
        "image.python",
        TEXT,
        None,
        '"3.12"',
        "The Python of the job, in ~/.venv; after setup, if there is one.",
        matching(_PYTHON, "a version of Python, such as 3.12"),
        blank=True,
    ),
    key(
        "image.requirements",
        TEXT,
        None,
        '"requirements.txt"',
        "What it needs: such a list, pyproject.toml or uv.lock.",
        inside,
        blank=True,
    ),
    key(
        "image.packer",
        TEXT,
        None,
        '"image.pkr.hcl"',
        "Or a Packer template that builds it.",
        inside,
        blank=True,
    ),
    key(
        "image.use",
        TEXT,
        None,
        '"ami-0abc1234"',
        "Or a finished image, by the provider's own id.",
        one_line,
        blank=True,
    ),
    key(
        "image.include",
        TEXTS,
        (),
        '["requirements.txt"]',
        "Files it needs; a change of one makes a new image.",
        inside,
        distinct,
    ),
    key(
        "image.env",
        PAIRS,
        {},
        '{ PIP_NO_CACHE_DIR = "1" }',
        "Variables of the set-up script, and of uv.",
        kinds.environment,
    ),
    key(
        "image.vars",
        PAIRS,
        {},
        '{ release = "2026.1" }',
        "Variables of the Packer template.",
        kinds.parameters,
    ),
)

PUSH: tuple[Key, ...] = (
    key(
        "push.code",
        TEXTS,
        (".",),
        '["."]',
        "What git would track below these goes to the box.",
        inside,
        distinct,
    ),
    key(
        "push.data",
        TEXTS,
        (),
        '["data/"]',
        "These go to the box as they are, ignored by git or not.",
        inside,
        distinct,
    ),
)

RUN: tuple[Key, ...] = (
    key(
        "run.command",
        TEXT,
        None,
        '"python train.py"',
        "The job: a line of shell.",
        not_empty,
    ),
    key(
        "run.env",
        PAIRS,
        {},
        '{ OMP_NUM_THREADS = "64" }',
        "Variables of the job.",
        kinds.environment,
    ),
    key(
        "run.secrets",
        TEXTS,
        (),
        '["HF_TOKEN"]',
        "Variables whose values reach the job, but no disk.",
        kinds.variables,
        distinct,
    ),
    key(
        "run.when",
        TEXT,
        "always",
        '"changed"',
        "Or changed: only if command, code, data or image did.",
        one_of("always", "changed"),
    ),
    key(
        "run.cancel_grace",
        DURATION,
        30.0,
        '"30 s"',
        "How long a cancelled job may take to end by itself.",
        seconds_between(0, 3600),
    ),
)

FETCH: tuple[Key, ...] = (
    key(
        "fetch.outputs",
        TEXTS,
        ("results/",),
        '["results/"]',
        "What the job leaves, brought here when it has ended.",
        left_by_job,
        distinct,
    ),
    key(
        "fetch.checkpoints",
        TEXTS,
        (),
        '["ckpt/"]',
        "What is brought here also while the job runs.",
        left_by_job,
        distinct,
    ),
    key(
        "fetch.outputs_to",
        TEXT,
        None,
        '"runs/{name}"',
        "Where they are put, instead of the project; {name} is the box's.",
        kinds.folder_of_box,
    ),
    key(
        "fetch.every",
        DURATION,
        300.0,
        '"5 min"',
        "How often checkpoints are brought here.",
        seconds_between(1, 86400),
    ),
)

LIMITS: tuple[Key, ...] = (
    key(
        "limits.max_hours",
        NUMBER,
        8.0,
        "8",
        "The deadline: a box powers itself off after so long.",
        _HOURS,
    ),
    key(
        "limits.max_cost",
        NUMBER,
        None,
        "20.0",
        "Refuse what could cost more by the deadline, in USD.",
        _USD,
    ),
    key(
        "limits.max_price",
        NUMBER,
        None,
        "4.0",
        "Refuse a box that costs more an hour, in USD.",
        _USD,
    ),
    key(
        "limits.idle_minutes",
        NUMBER,
        30.0,
        "30",
        "How long a box waits with no job and nobody attached.",
        between(1, 1440),
    ),
    key(
        "limits.setup_minutes",
        NUMBER,
        45.0,
        "45",
        "How long a set-up may take, or a first job to come.",
        between(1, 1440),
    ),
    key(
        "limits.boot_minutes",
        NUMBER,
        10.0,
        "10",
        "How long a box may take until it answers.",
        between(1, 120),
    ),
    key(
        "limits.retries",
        COUNT,
        2,
        "2",
        "How often a run starts over when spot capacity was lost.",
        between(0, 100),
    ),
    key(
        "limits.max_log",
        SIZE,
        5 * GB,
        '"5 GB"',
        "Of a longer output the box keeps start and end.",
        sizes_between(1 << 20, 65536 * GB),
    ),
    key(
        "limits.spot_fallback",
        FLAG,
        False,
        "true",
        "Take on-demand capacity where there is no spot.",
    ),
)
