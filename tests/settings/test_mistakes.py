"""Every mistake is one line: its place, its key, and the expected value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onebox.errors import ConfigError, InputError
from onebox.providers import PROVIDERS
from onebox.providers.local.settings import LocalSettings
from onebox.settings import check_files, conda, load
from onebox.settings.schema import Settings, keys

# Only newer versions of Python can tell that it is valid.
MIXED_LIST = (
    "is TOML that the toml package cannot read: write it with spaces around =, and "
    "with lists of one type"
    if sys.version_info >= (3, 11)
    else "is not valid TOML: write key = value, strings in quotes, lists of one type"
)


def error_message(root: Path, text: str) -> str:
    """Load an invalid file and return the error message."""
    (root / "onebox.toml").write_bytes(text.encode())
    with pytest.raises(ConfigError) as caught:
        load(root, {}, {})
    assert caught.value.code == 78
    return caught.value.message


FILE_MISTAKES = [
    # Names that do not exist.
    ('provdier = "aws"', "1: provdier: unknown key, did you mean provider?"),
    (
        "[limits]\n\nmax_hour = 1",
        "3: [limits] max_hour: unknown key, did you mean max_hours?",
    ),
    ("max_hours = 1", "1: max_hours: unknown key, it belongs in [limits]"),
    (
        '[run]\nprovider = "aws"',
        "2: [run] provider: unknown key, it belongs at the top",
    ),
    ("[limit]\nx = 1", "1: [limit]: unknown table, did you mean [limits]?"),
    ("[rnu]\nx = 1", "1: [rnu]: unknown table, did you mean [run]?"),
    ("[mpa]\nover = [0.1, 1]", "1: [mpa]: unknown table, did you mean [map]?"),
    (
        "[map]\novr = { a = [0.1, 1] }",
        "2: [map] ovr: unknown key, did you mean over?",
    ),
    ("[map.ovr]\na = 1", "1: [map] ovr: unknown key, did you mean over?"),
    (
        "[profile.gpu.mpa]\nover = [0.1, 1]",
        "1: [profile.gpu.mpa]: unknown table, did you mean [map]?",
    ),
    ("[zzz]", "1: [zzz]: unknown table"),
    ("zzz.y = 1", "1: [zzz]: unknown table"),
    ("run.zzz.y = 1", "1: [run.zzz]: unknown table"),
    ("[run]\nzzz = 1", "2: [run] zzz: unknown key"),
    ("[size.large]\ncpu = 4", "2: [size.large] cpu: unknown key, did you mean cpus?"),
    (
        "[size]\nlarge = 4",
        "2: [size] large: a size is a table such as [size.large]",
    ),
    ('"run.env".A = "x"', '1: ["run.env"]: unknown table'),
    ("vm.default = 'x'", '1: vm.default is now written vm = "NAME", above all tables'),
    (
        "[vm]\ndefault = 'x'",
        '2: vm.default is now written vm = "NAME", above all tables',
    ),
    (
        'vm = "odd"\n\n[vm.odd]\ncpus = 3',
        "3: [vm.odd] is now written [size.odd]",
    ),
    ('"limits.max_hours" = 2', '1: "limits.max_hours": unknown key'),
    ('"a\\nb" = 2', '1: "a\\nb": unknown key'),
    # Tables for values and values for tables.
    ("limits = 3", "1: limits: is a table; write [limits]"),
    ("[provider]\nx = 1", "1: [provider]: is not a table; write provider = …"),
    (
        '[run]\nenv = "A=1"',
        "2: [run] env: expected a table of strings, numbers and booleans such as "
        "{ OMP_NUM_THREADS = 64, DEBUG = true }",
    ),
    # Other kinds of values.
    ("provider = 3", '1: provider: expected a string such as "aws", got 3'),
    ('spot = "yes"', '1: spot: expected true or false such as true, got "yes"'),
    (
        '[limits]\nmax_hours = "8"',
        '2: [limits] max_hours: expected a number such as 8, got "8"',
    ),
    (
        "[limits]\nretries = 1.5",
        "2: [limits] retries: expected a whole number such as 2, got 1.5",
    ),
    (
        "[limits]\nretries = true",
        "2: [limits] retries: expected a whole number such as 2, got true",
    ),
    (
        '[size.large]\nmemory = "lots"',
        '2: [size.large] memory: expected an amount of bytes such as "256 GB", '
        'got "lots"',
    ),
    (
        "[size.large]\nmemory = -5",
        '2: [size.large] memory: expected an amount of bytes such as "256 GB", got -5',
    ),
    (
        '[fetch]\nevery = "soon"',
        '2: [fetch] every: expected a duration such as "5 min", got "soon"',
    ),
    (
        '[push]\ncode = "src"',
        '2: [push] code: expected a list of strings such as ["."], got "src"',
    ),
    (
        '[push]\ncode = ["src", 1]',
        f"2: [push] code: {MIXED_LIST}",
    ),
    (
        '[run]\nsecrets = { A = "b" }',
        "2: [run.secrets]: is not a table; write secrets = …",
    ),
    (
        "[run.env]\nTHREADS = [4]",
        "2: [run.env] THREADS: expected a table of strings, numbers and booleans such "
        "as { OMP_NUM_THREADS = 64, DEBUG = true }, got a list",
    ),
    ("vm = []", '1: vm: expected a string such as "large", got a list'),
    # Impossible values.
    (
        'provider = "azure"',
        f'1: provider: "azure" is not one of {", ".join(PROVIDERS)}',
    ),
    (
        'provider = "digitalocaen"',
        f'1: provider: "digitalocaen" is not one of {", ".join(PROVIDERS)}, '
        "did you mean digitalocean?",
    ),
    (
        "[limits]\nmax_hours = 0",
        "2: [limits] max_hours: 0 is out of range; use 0.17 (10 minutes) to 336 "
        '(14 days); there is no "off"',
    ),
    (
        "[limits]\nmax_hours = 337",
        "2: [limits] max_hours: 337 is out of range; use 0.17 (10 minutes) to "
        '336 (14 days); there is no "off"',
    ),
    (
        "[limits]\nmax_cost = -1",
        "2: [limits] max_cost: -1 is out of range; use 0.01 or more",
    ),
    (
        "[limits]\nidle_minutes = -0.5",
        "2: [limits] idle_minutes: -0.5 is out of range; use 1 to 1440",
    ),
    (
        "[size.large]\ncpus = 0",
        "2: [size.large] cpus: 0 is out of range; use 1 to 2048",
    ),
    (
        '[size.large]\nmemory = "1 MB"',
        "2: [size.large] memory: 1 MB is out of range; use 128 MB to 64 TB",
    ),
    (
        '[run]\ncancel_grace = "2 h"',
        "2: [run] cancel_grace: 7200 s is out of range; use 0 s to 3600 s",
    ),
    (
        'name = "Main"',
        '1: name: "Main" is not a name: a lower-case letter, then at most 30 '
        "lower-case letters, digits or dashes",
    ),
    (
        f'project = "{"a" * 32}"',
        f'1: project: "{"a" * 32}" is not a name: a lower-case letter, then at most 30 '
        "lower-case letters, digits or dashes",
    ),
    ('vm = ""', "1: vm: is empty"),
    ('[run]\ncommand = ""', "2: [run] command: is empty"),
    ('[run]\ncommand = " \\n"', "2: [run] command: is empty"),
    ('[run]\ncommand = "a\\u0000b"', "2: [run] command: contains a control character"),
    (
        '[push]\ncode = ["/etc"]',
        '2: [push] code: "/etc" is not relative to the project',
    ),
    (
        '[push]\ndata = ["~/x"]',
        '2: [push] data: "~/x" is not relative to the project',
    ),
    (
        '[fetch]\noutputs = ["a/../../b"]',
        '2: [fetch] outputs: "a/../../b" leaves the project; write a path without ..',
    ),
    (
        '[image]\nsetup = ".."',
        '2: [image] setup: ".." leaves the project; write a path without ..',
    ),
    (
        '[push]\ncode = [""]',
        '2: [push] code: "" is not a path; "." is the whole project',
    ),
    ('[push]\ncode = ["a", "a"]', '2: [push] code: "a" is listed twice'),
    (
        '[push]\ncode = ["a\\nb"]',
        '2: [push] code: "a\\nb" contains a line break or a tab',
    ),
    (
        '[run]\nsecrets = ["A=b"]',
        '2: [run] secrets: "A=b" is not a variable\'s name: letters, digits and '
        "_, not a digit first",
    ),
    (
        '[run.env]\n"A B" = "c"',
        '2: [run.env] "A B": "A B" is not a variable\'s name: letters, digits and '
        "_, not a digit first",
    ),
    (
        '[run.env]\nONEBOX_X = "c"',
        "2: [run.env] ONEBOX_X: ONEBOX_X is reserved for onebox",
    ),
    (
        '[run]\nwhen = "never"',
        '2: [run] when: "never" is not one of always, changed',
    ),
    (
        '[size.Big]\ncpus = 1\nmemory = "1 GB"',
        '1: [size.Big]: "Big" is not a name: a lower-case letter, then at most 30 '
        "lower-case letters, digits or dashes",
    ),
    (
        "[size.big]\ncpus = 4",
        "1: [size.big]: needs cpus and memory, or a machine type such as "
        'aws = ["m7i.16xlarge", "m7a.16xlarge"]',
    ),
    (
        "[size.big]",
        "1: [size.big]: needs cpus and memory, or a machine type such as "
        'aws = ["m7i.16xlarge", "m7a.16xlarge"]',
    ),
    (
        '[size.large]\naws = "n2-standard-4"',
        '2: [size.large] aws: "n2-standard-4" is not a machine type of aws',
    ),
    (
        '[fetch]\noutputs = ["sub/.git/"]',
        '2: [fetch] outputs: "sub/.git/" cannot be an output: version control runs '
        "programs that are configured there",
    ),
    (
        '[fetch]\ncheckpoints = ["ckpt/.GIT/x"]',
        '2: [fetch] checkpoints: "ckpt/.GIT/x" cannot be an output: version control '
        "runs programs that are configured there",
    ),
    (
        '[fetch]\noutputs = [".onebox/jobs"]',
        '2: [fetch] outputs: ".onebox/jobs" belongs to onebox; name another folder',
    ),
    (
        '[local]\nread = ["~no-such-user/x"]',
        '2: [local] read: "~no-such-user/x" names a user that does not exist',
    ),
    (
        '[aws]\nssh_cidr = "me"',
        '2: [aws] ssh_cidr: "me" is not a network such as 203.0.113.7/32',
    ),
    (
        '[aws]\nssh_cidr = "0.0.0.0/0"',
        "2: [aws] ssh_cidr: opens ssh to the whole internet; to accept that, set "
        "allow_world_ssh = true",
    ),
    (
        '[gcp]\nssh_cidr = "::/0"',
        "2: [gcp] ssh_cidr: opens ssh to the whole internet; to accept that, set "
        "allow_world_ssh = true",
    ),
    (
        '[gcp]\nendpoint = "compute"',
        '2: [gcp] endpoint: "compute" is not a URL such as https://example.com',
    ),
    (
        '[gcp]\nendpoint = "http://example.com"',
        '2: [gcp] endpoint: "http://example.com" needs https: credentials '
        "are sent there",
    ),
    (
        "[local.rehearse]\ndrop_after = -1",
        "2: [local.rehearse] drop_after: -1 s is out of range; use 0 s to 86400 s",
    ),
    (
        "[local.rehearse]\ndrop_every = 0",
        "2: [local.rehearse] drop_every: 0 s is out of range; use 0.1 s to 86400 s",
    ),
    # What is right alone, and wrong together.
    (
        '[image]\nuse = "ami-1"\nsetup = "a.sh"',
        "2: [image] use: excludes setup: an image is built in one way",
    ),
    (
        '[image]\npacker = "a.json"\nrequirements = "r.txt"',
        "2: [image] packer: excludes requirements: an image is built in one way",
    ),
    (
        '[image]\nsetup = "a.sh"\n[image.vars]\nregion = "x"',
        "4: [image.vars] region: needs a Packer template; set [image] packer",
    ),
    (
        '[image]\npython = "three"',
        '2: [image] python: "three" is not a version of Python such as 3.12',
    ),
    (
        '[image]\nsize = "smal"',
        '2: [image] size: there is no size "smal", did you mean small?',
    ),
    (
        '[run]\nsecrets = ["A"]\nenv = { A = "b" }',
        "2: [run] secrets: A is in [run] env too",
    ),
    (
        'vm = "larg"',
        '1: vm: there is no size "larg", did you mean large?',
    ),
    (
        'vm = "qq"',
        '1: vm: there is no size "qq"; the sizes are small, medium, large, xlarge',
    ),
    (
        'provider = "gcp"\nvm = "m7i.16xlarge"',
        '2: vm: "m7i.16xlarge" is a machine type of aws, but the provider is gcp',
    ),
    (
        'provider = "gcp"\nvm = "b"\n[size.b]\naws = ["m7i.16xlarge"]',
        "2: vm: b has no machine type of gcp; set gcp, or cpus and memory, in [size.b]",
    ),
    ('vm = "cpus=64"', '1: vm: "cpus=64" needs both: cpus=64,memory=256 GB'),
    ('vm = "cpu=64"', '1: vm: "cpu" is not a requirement; write cpus=64,memory=256 GB'),
    (
        'vm = "cpus=6,memory=x"',
        '1: vm memory: expected an amount of bytes such as 256 GB, got "x"',
    ),
    (
        'vm = "small"\nvm.default = "small"',
        '2: vm.default is now written vm = "NAME", above all tables',
    ),
    # Not TOML: all of it is in test_document.
    (
        "[run]\ncommand = train",
        "2: [run] command: is not valid TOML: write key = value, strings in quotes, "
        "lists of one type",
    ),
    ("[run]\nwhen = 1\nwhen = 1", "3: [run] when: is already in line 2"),
    ("[run]\n[run]", "2: [run]: is already in line 1"),
]


@pytest.mark.parametrize(("text", "message"), FILE_MISTAKES)
def test_mistake_in_the_file_names_file_line_key_and_expectation(
    tmp_path: Path, text: str, message: str
) -> None:
    """The message also has what is expected instead."""
    assert error_message(tmp_path, text) == f"onebox.toml:{message}"


SECRETS = [
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    "dop_v1_0123456789abcdef0123456789abcdef",
    "ghp_0123456789abcdefghijABCDEFGHIJ",
    "github_pat_0123456789abcdefghijABCDEFGHIJ",
    "hf_abcdefghijKLMNOPQRSTuvwxyz01234567",
    "sk-0123456789abcdefghijABCDEFGHIJ",
    "sk-proj-0123_456789-abcdefghijABCDEFGHIJ",
    "AIzaSyA0123456789abcdefghijABCDEFGHIJ",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "https://me:hunter2@example.com/x.git",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "q1nXf0v+W9dJt3bYc5sRm7uKzA2gLhE8oPxT4iVC",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "GOCSPX-0123456789abcdefghij",
    "npm_0123456789abcdefghijABCDEFGHIJ0123",
    "dapi0123456789abcdef0123456789abcdef",
    "hvs.0123456789abcdefghijABCDEFGHIJ",
    "sk_" + "live_0123456789abcdefghij",
    "SG.0123456789abcdefghij.0123456789abcdefghij",
    "AccountKey=0123456789abcdefghijABCDEFGHIJ0123456789abcdefghij==",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_value_that_looks_like_a_secret_is_refused_and_not_printed(
    tmp_path: Path, secret: str
) -> None:
    """Such a value is refused in every table."""
    advice = "looks like a secret; list the name of its variable in [run] secrets"
    for text, label in (
        (f'vm = "{secret}"', "1: vm"),
        (f'[push]\ncode = ["a", "{secret}"]', "2: [push] code"),
        (f'[run]\ncommand = "KEY={secret} x"', "2: [run] command"),
        (f'[gcp]\nendpoint = "{secret}"', "2: [gcp] endpoint"),
    ):
        assert error_message(tmp_path, text) == f"onebox.toml:{label}: {advice}"
    message = error_message(tmp_path, f'[run.env]\nTOKEN = "{secret}"')
    assert message == f"onebox.toml:2: [run.env] TOKEN: TOKEN: {advice}"
    for text in (
        f"vm = {secret}",
        f'zzz = "{secret}"',
        f'"{secret}" = 1',
        f'["{secret}"]',
        f'[run.env]\n"{secret}" = "x"',
        f'[limits]\nmax_hours = "{secret}"',
    ):
        assert secret not in error_message(tmp_path, text)
    (tmp_path / "onebox.toml").unlink()
    for environ, flags in (({"ONEBOX_VM": secret}, {}), ({}, {"vm": secret})):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, environ, flags)
        assert secret not in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "short"),
        ("DB_PASSWORD", "hunter2"),
        ("PGPASSWORD", "hunter2"),
        ("MYSQL_PWD", "hunter2"),
        ("client_secret", "abc"),
        ("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567"),
        ("KAGGLE_KEY", "0123456789abcdef0123456789abcdef"),
        ("GITHUB_TOKEN", "0123456789abcdef0123"),
    ],
)
def test_variable_with_the_name_of_a_secret_may_not_have_a_literal(
    tmp_path: Path, name: str, value: str
) -> None:
    """A literal is refused in every table of variables, and in a command."""
    advice = "looks like a secret; list the name of its variable in [run] secrets"
    option = name.lower().replace("_", "-")
    for text, label in (
        (f'[run.env]\n{name} = "{value}"', f"[run.env] {name}: {name}"),
        (f'[image.env]\n{name} = "{value}"', f"[image.env] {name}: {name}"),
        (f'[image.vars]\n{name} = "{value}"', f"[image.vars] {name}: {name}"),
        (f'[run]\ncommand = "{name}={value} python x.py"', "[run] command"),
        (f'[run]\ncommand = "x --{option} {value}"', "[run] command"),
    ):
        assert error_message(tmp_path, text) == f"onebox.toml:2: {label}: {advice}"


def test_password_without_quotes_is_refused_like_one_in_quotes(tmp_path: Path) -> None:
    """A number can be a password too; a number of tokens is none."""
    message = error_message(tmp_path, "[run]\nenv = { DB_PASSWORD = 12345678 }")
    assert "DB_PASSWORD: looks like a secret" in message
    (tmp_path / "onebox.toml").write_text("[run]\nenv = { MAX_TOKENS = 4096 }\n")
    assert load(tmp_path, {}, {}).run.env == {"MAX_TOKENS": "4096"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("PAD_TOKEN", "<|endoftext|>"),
        ("MAX_TOKENS", "4096"),
        ("SORT_KEY", "customer_id"),
        ("CACHE_KEY", "v1-linux-python-3.11-2024"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/secrets/aws"),
        ("HF_TOKEN_PATH", "/run/token"),
        ("REQUIRE_PASSWORD", "true"),
        ("DB_PASSWORD", "$PGPASSWORD"),
        ("GIT_COMMIT", "0123456789abcdef0123456789abcdef01234567"),
        ("S3_PREFIX", "s3://Bucket9/Experiments/Resnet50/Final01"),
        ("HASH", "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4"),
    ],
)
def test_ordinary_variables_are_accepted(tmp_path: Path, name: str, value: str) -> None:
    """Paths, switches, hashes and words do not count as secrets."""
    (tmp_path / "onebox.toml").write_text(f'[run.env]\n{name} = "{value}"\n')
    assert load(tmp_path, {}, {}).run.env == {name: value}


@pytest.mark.parametrize("folder", ["/", "{home}", "{home}/.config", "{key}", "{link}"])
def test_local_read_refuses_folders_that_hold_the_owners_key(
    tmp_path: Path, folder: str
) -> None:
    """[local] read may name data folders, but under no name the folder of the key."""
    home = tmp_path / "home"
    key = home / ".config" / "onebox"
    (home / "datasets").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    named = folder.format(home=home, key=key, link=tmp_path / "link")
    file = tmp_path / "onebox.toml"
    file.write_text(f'[local]\nread = ["{named}"]\n')
    environ = {"HOME": str(home)}

    with pytest.raises(ConfigError, match=r"\[local\] read: .* would expose onebox"):
        load(tmp_path, environ, {})
    file.write_text(f'[local]\nread = ["{home}/datasets"]\n')
    assert load(tmp_path, environ, {}).providers["local"] == LocalSettings(
        read=(f"{home}/datasets",)
    )


@pytest.mark.parametrize(
    "text", ["sk-learn-experiments-and-more-of-them", "task-1", "hf_cache_dir", "AKIA"]
)
def test_words_that_begin_like_a_key_are_accepted(tmp_path: Path, text: str) -> None:
    """A name that only begins like a key is a name."""
    (tmp_path / "onebox.toml").write_text(f'[run]\ncommand = "run {text} $A@b:c"\n')
    assert load(tmp_path, {}, {}).run.command == f"run {text} $A@b:c"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"ONEBOX_LIMIT_MAX_HOURS": "3"},
            "ONEBOX_LIMIT_MAX_HOURS: unknown variable, did you mean "
            "ONEBOX_LIMITS_MAX_HOURS?",
        ),
        ({"ONEBOX_": "3"}, "ONEBOX_: unknown variable, did you mean ONEBOX_VM?"),
        (
            {"ONEBOX_PUSH_CODE": "src"},
            "ONEBOX_PUSH_CODE: no variable can set it; write [push] code in "
            "onebox.toml",
        ),
        (
            {"ONEBOX_SIZE_LARGE_CPUS": "3"},
            "ONEBOX_SIZE_LARGE_CPUS: no variable can change a size; write [size.NAME] "
            "in "
            "onebox.toml",
        ),
        (
            {"ONEBOX_LIMITS_MAX_HOURS": "off"},
            'ONEBOX_LIMITS_MAX_HOURS: expected a number such as 8, got "off"',
        ),
        (
            {"ONEBOX_SPOT": "maybe"},
            'ONEBOX_SPOT: expected true or false such as true, got "maybe"',
        ),
        (
            {"ONEBOX_LIMITS_MAX_COST": "inf"},
            'ONEBOX_LIMITS_MAX_COST: expected a number such as 20.0, got "inf"',
        ),
        (
            {"ONEBOX_LIMITS_RETRIES": "-1"},
            "ONEBOX_LIMITS_RETRIES: -1 is out of range; use 0 to 100",
        ),
        ({"ONEBOX_RUN_COMMAND": "\udcff"}, "ONEBOX_RUN_COMMAND: is not valid UTF-8"),
        (
            {"ONEBOX_VM": "larg"},
            'ONEBOX_VM: there is no size "larg", did you mean large?',
        ),
        ({"ONEBOX_CONFIG": "gone.toml"}, "ONEBOX_CONFIG: gone.toml does not exist"),
    ],
)
def test_mistake_in_a_variable_names_the_variable(
    tmp_path: Path, environ: dict[str, str], message: str
) -> None:
    """The message names the environment variable."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, environ, {})
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"vm": "larg"}, '--vm: there is no size "larg", did you mean large?'),
        ({"vm": True}, "--vm: expected a string such as large, got true"),
        (
            {"limits.max_hours": "0"},
            'limits.max_hours: 0 is out of range; use 0.17 (10 minutes) to 336 '
            '(14 days); there is no "off"',
        ),
        ({"vmm": "x"}, "--vmm: unknown setting, did you mean vm?"),
        ({"size.*.cpus": 3}, "size.*.cpus: unknown setting, did you mean size.*.cpus?"),
    ],
)  # fmt: skip
def test_mistake_in_a_flag_names_the_flag(
    tmp_path: Path, flags: dict[str, object], message: str
) -> None:
    """The message names the flag."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {}, flags)
    assert caught.value.message == message


def test_mistake_in_the_file_is_refused_although_a_flag_overrides_it(
    tmp_path: Path,
) -> None:
    """An overridden value is checked, too."""
    (tmp_path / "onebox.toml").write_text('provider = "azure"\n')
    with pytest.raises(ConfigError, match=r"^onebox\.toml:1: provider"):
        load(tmp_path, {"ONEBOX_PROVIDER": "aws"}, {"provider": "local"})


def test_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    """A file must be readable UTF-8 text of a sensible size."""
    file = tmp_path / "onebox.toml"

    def error_message() -> str:
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, {}, {})
        return caught.value.message

    file.mkdir()
    assert error_message() == "onebox.toml: is a folder; expected a file"
    file.rmdir()
    os.mkfifo(file)
    assert error_message() == "onebox.toml: is not a regular file; expected a file"
    file.unlink()
    file.symlink_to("nowhere")
    assert error_message() == "onebox.toml: is a link to a missing file"
    file.unlink()
    file.symlink_to("onebox.toml")
    assert error_message().startswith("onebox.toml: cannot be read: ")
    file.unlink()
    file.write_bytes(b'name = "a"\nvm = "\xff"\n')
    assert error_message() == "onebox.toml:2: is not UTF-8"
    file.write_bytes(b'\xef\xbb\xbfname = "a"\n')
    bom = "begins with a byte order mark; save it as UTF-8 without one"
    assert error_message() == f"onebox.toml:1: {bom}"
    file.write_bytes('name = "a"\n'.encode("utf-16"))
    assert error_message() == f"onebox.toml:1: {bom}"
    file.write_bytes(b"#" * (1 << 16) + b"\n")
    assert error_message() == "onebox.toml: is larger than 64 KB"


def test_missing_paths_are_reported_before_a_run_and_not_on_load(
    tmp_path: Path,
) -> None:
    """Loading does not check whether paths exist; the check before a run does."""
    (tmp_path / "onebox.toml").write_text(
        '[image]\nsetup = "setup.sh"\ninclude = ["r.txt"]\n'
        '[push]\ncode = ["src"]\ndata = ["data"]\n'
    )
    settings = load(tmp_path, {}, {})

    def error_message() -> str:
        with pytest.raises(InputError) as caught:
            check_files(settings, tmp_path)
        return caught.value.message

    missing = 'onebox.toml:2: [image] setup: "setup.sh" does not exist'
    assert error_message() == missing
    (tmp_path / "setup.sh").mkdir()
    assert error_message() == 'onebox.toml:2: [image] setup: "setup.sh" is not a file'
    (tmp_path / "setup.sh").rmdir()
    (tmp_path / "setup.sh").touch()
    assert error_message() == 'onebox.toml:3: [image] include: "r.txt" does not exist'
    (tmp_path / "r.txt").touch()
    assert error_message() == 'onebox.toml:5: [push] code: "src" does not exist'
    (tmp_path / "src").mkdir()
    assert error_message() == 'onebox.toml:6: [push] data: "data" does not exist'
    (tmp_path / "data").mkdir()
    check_files(settings, tmp_path)


KEYS = list(keys().values())
VARIABLES = sorted(key.variable for key in KEYS if key.variable)
NAMES = sorted({part for key in KEYS for part in key.path.split(".")} - {"*"})
NOISE = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.one_of(
            st.sampled_from(NAMES),
            st.sampled_from(
                ["[", "]", "=", ".", "\n", '"', "'", "{", "}", ",", "#", " ", "\\", "e"]
            ),
            st.sampled_from([key.example for key in KEYS]),
            st.text(max_size=3),
            st.integers().map(str),
        ),
        max_size=30,
    ).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass")),
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from([k.example for k in KEYS])),
        max_size=4,
    ).map(lambda pairs: "\n".join(f"{a} = {b}" for a, b in pairs).encode()),
)


@settings(
    max_examples=600,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
@given(
    NOISE,
    st.dictionaries(st.sampled_from(VARIABLES), st.text(max_size=8), max_size=2),
)
def test_any_file_and_variables_give_settings_or_a_line_for_each_mistake(
    tmp_path: Path, data: bytes, environ: dict[str, str]
) -> None:
    """
    Any content of the file and the variables is valid, or raises a ConfigError with
    a few lines of limited length.
    """
    (tmp_path / "onebox.toml").write_bytes(data)
    try:
        assert isinstance(load(tmp_path, environ, {}), Settings)
    except ConfigError as error:
        lines = error.message.split("\n")
        assert 1 <= len(lines) <= 11
        assert all(line and len(line) < 400 and line.isprintable() for line in lines)


@pytest.mark.parametrize("text", ["sk-a-", "://a:", "://a:b", "AKIA", "ghp_", "1 "])
def test_long_text_is_checked_for_secrets(tmp_path: Path, text: str) -> None:
    """The check of a very long text ends."""
    command = text * (60_000 // len(text))
    (tmp_path / "onebox.toml").write_text(f'[run]\ncommand = "{command}"\n')
    try:
        load(tmp_path, {}, {})
    except ConfigError as error:
        assert len(error.message) < 100
    key = text.strip().replace(":", "x").replace("/", "x") * 900
    assert len(error_message(tmp_path, f"{key} = 1".replace(" ", ""))) < 200


def test_file_of_conda_is_refused_with_the_script_that_installs_it(
    tmp_path: Path,
) -> None:
    """
    uv cannot read it; micromamba can create the same ~/.venv in the set-up.

    The script is complete: it runs here with a micromamba that only prints its words.
    """
    (tmp_path / "onebox.toml").write_text('[image]\nrequirements = "env/my a.yml"\n')
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, {}, {})
    assert refused.value.message == (
        'onebox.toml:2: [image] requirements: "env/my a.yml" is a file of conda, and '
        "uv installs the packages"
    )
    keys, script = refused.value.next.split("\n", 1)
    assert 'setup = "setup.sh", include = ["env/my a.yml"]; setup.sh is:' == keys

    release = tmp_path / "micromamba-linux-64"
    release.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    local = script.replace(conda.RELEASES, tmp_path.as_uri())
    home = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    uname = tmp_path / "uname"
    uname.write_text("#!/bin/sh\necho x86_64\n")
    uname.chmod(0o755)
    assert 0 == subprocess.run(["bash", "-n"], input=script, text=True).returncode
    done = subprocess.run(
        ["sh", "-s"], input=local, env=home, text=True, capture_output=True, check=False
    )
    assert ("", 0) == (done.stderr, done.returncode)
    assert done.stdout.splitlines() == [
        *("create", "-y", "-p", f"{tmp_path}/.venv", "-f", "env/my a.yml")
    ]


def test_all_independent_mistakes_are_reported_in_their_order(tmp_path: Path) -> None:
    """Each has its line; the settings of a wrong table are no further mistakes."""
    text = (
        'vmm = "x"\n[runn]\ncommand = "x"\n[run]\ncommand = "a"\nports = "a"\n'
        '[profile."b b"]\nvm = 1\n[limits]\nmax_hours = -1\n'
    )
    lines = error_message(tmp_path, text).splitlines()
    assert [
        "onebox.toml:1: vmm: unknown key, did you mean vm?",
        "onebox.toml:2: [runn]: unknown table, did you mean [run]?",
        'onebox.toml:6: [run] ports: expected a list of ports such as [8888], got "a"',
    ] == lines[:3]
    assert lines[3].startswith('onebox.toml:7: [profile."b b"]: "b b" is not a name')
    assert lines[4].startswith("onebox.toml:10: [limits] max_hours: -1 is out of range")
    assert 5 == len(lines)


def test_mistakes_beyond_the_tenth_are_counted(tmp_path: Path) -> None:
    """A file with other content has a mistake in each line."""
    lines = error_message(tmp_path, "".join(f"x{n} = 1\n" for n in range(25)))
    assert 11 == len(lines.splitlines())
    assert lines.endswith("\nand 15 more mistakes")


def test_a_syntax_error_is_reported_alone(tmp_path: Path) -> None:
    """Nothing is known of the lines of such a file."""
    assert 1 == len(error_message(tmp_path, "vmm = 1\n[run\n").splitlines())
