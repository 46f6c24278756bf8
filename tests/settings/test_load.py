"""The sources of settings: defaults, then the file, then variables, then flags."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onebox.errors import ConfigError
from onebox.providers import CLOUDS, PROVIDERS
from onebox.providers.digitalocean.base_images import slug
from onebox.providers.gcp.base_images import family
from onebox.settings import Places, Settings, Size, load
from onebox.settings.load import project_name
from onebox.settings.schema import RESERVED, SIZES, keys
from onebox.settings.units import format_bytes
from onebox.stages.init import template
from onebox.stages.project_survey import Survey

GB = 1 << 30
KEYS = [key for key in keys().values() if key.table != "size.*"]


def write(root: Path, text: str) -> Path:
    (root / "onebox.toml").write_text(text, encoding="utf-8")
    return root


def value_at(settings: Settings, path: str) -> object:
    """Return the value at a full name in the settings."""
    table, _, rest = path.partition(".")
    found: object = settings
    if table in settings.providers:
        found, path = settings.providers[table], rest
    for part in path.split("."):
        found = getattr(found, part)
    return found


def test_without_file_variables_and_flags_all_settings_are_defaults(
    tmp_path: Path,
) -> None:
    """The provider is local."""
    root = tmp_path / "Über My_Census 2"
    root.mkdir()
    got = load(root, {"PATH": "/bin"}, {})
    for key in KEYS:
        if key.path != "project":
            assert value_at(got, key.path) == key.default, key.path
            assert got.source(key.path) == "default"
    assert (got.provider, got.project, got.name) == ("local", "ber-my-census-2", "main")
    assert got.size == got.sizes["small"] == Size("small", 4, 16 * GB)
    assert not got.wants_spot
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("census", "census"),
        ("2024_Wahl!", "wahl"),
        ("a" * 40, "a" * 31),
        ("x" * 30 + "-y", "x" * 30),
        ("数据", "project"),
        ("-", "project"),
    ],
)
def test_project_name_is_derived_from_its_folder(folder: str, name: str) -> None:
    """A folder's name is shortened to a name that is valid everywhere."""
    assert project_name(Path("/home") / folder) == name


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"])))
def test_any_folder_name_gives_a_valid_project_name(folder: str) -> None:
    """Whatever the folder's name is, the project's name is accepted."""
    name = project_name(Path("/") / folder)
    for check in keys()["project"].checks:
        check(name)


@pytest.mark.parametrize("flag", [None, "f"])
@pytest.mark.parametrize("variable", [None, "", "e"])
@pytest.mark.parametrize("file", [None, "t"])
def test_flags_precede_variables_which_precede_the_file(
    tmp_path: Path, flag: str | None, variable: str | None, file: str | None
) -> None:
    """The nearest source with a value is used, and is named as the source."""
    if file:
        write(tmp_path, f'# first line\nname = "{file}"\n')
    environ = {} if variable is None else {"ONEBOX_NAME": variable}
    got = load(tmp_path, environ, {"name": flag})
    assert (got.name, got.source("name")) == next(
        (setting, source)
        for setting, source in (
            (flag, "--name"),
            (variable, "ONEBOX_NAME"),
            (file, "onebox.toml:2"),
            ("main", "default"),
        )
        if setting
    )


def test_keys_of_tables_come_from_all_sources(tmp_path: Path) -> None:
    """Each key of a table is looked up separately."""
    write(tmp_path, "[limits]\nmax_hours = 1\nretries = 5\nmax_cost = 3\n")
    environ = {"ONEBOX_LIMITS_MAX_HOURS": " 2.5 ", "ONEBOX_LIMITS_RETRIES": "4"}
    got = load(tmp_path, environ, {"limits.max_hours": 3})
    assert (got.limits.max_hours, got.limits.retries, got.limits.max_cost) == (3, 4, 3)
    assert got.source("limits.max_hours") == "limits.max_hours"
    assert got.source("limits.retries") == "ONEBOX_LIMITS_RETRIES"
    assert got.source("limits.max_cost") == "onebox.toml:4"


def test_flag_may_be_a_python_list_or_dict(tmp_path: Path) -> None:
    """A keyword of a Python call may be a list or a dict."""
    flags = {"fetch.outputs": ["a"], "run.env": {"A": "b"}, "push.data": ("c",)}
    got = load(tmp_path, {}, flags)
    assert got.fetch.outputs == ("a",)
    assert got.run.env == {"A": "b"}
    assert got.push.data == ("c",)


@pytest.mark.parametrize(
    ("flag", "size", "expected", "source"),
    [
        (None, None, False, "default"),
        (None, True, True, "default"),
        (True, False, True, "--spot"),
        (False, True, False, "--no-spot"),
    ],
)
def test_spot_flag_precedes_the_setting_of_the_size(
    tmp_path: Path, flag: bool | None, size: bool | None, expected: bool, source: str
) -> None:
    """The value for the command line precedes the value of the size."""
    if size is not None:
        write(tmp_path, f"[size.large]\nspot = {str(size).lower()}\n")
    got = load(tmp_path, {}, {"vm": "large", "spot": flag})
    assert (got.wants_spot, got.source("spot")) == (expected, source)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, True) for text in ("1", "Yes", "on", "TRUE")),
        *((text, False) for text in ("0", "no", "OFF", "false")),
        ("", None),
    ],
)
def test_boolean_variables_accept_the_usual_words(
    tmp_path: Path, text: str, expected: bool | None
) -> None:
    """An empty variable counts as unset."""
    assert load(tmp_path, {"ONEBOX_SPOT": text}, {}).spot is expected


def test_every_setting_has_a_variable(tmp_path: Path) -> None:
    """The variable is named after the table and the key."""
    by_variable = {key.variable: key for key in KEYS if key.variable}
    for name, key in by_variable.items():
        assert name == "ONEBOX_" + key.path.upper().replace(".", "_")
        also = ""
        if key.name in ("jump", "private"):
            also = f'{key.table}.ssh_cidr = "10.0.0.0/8"\n'
        write(tmp_path, also)
        got = load(tmp_path, {name: key.example.strip('"')}, {})
        assert got.source(key.path) == name
        file = write(tmp_path, f"{also}{key.path} = {key.example}\n") / "onebox.toml"
        # Some settings count in the user's own file only.
        own = (
            Places(user_file=file.rename(tmp_path / "own")) if key.of_user else Places()
        )
        there = load(tmp_path, {}, {}, own)
        assert value_at(there, key.path) == value_at(got, key.path)
        file.unlink(missing_ok=True)
    assert len(by_variable) == len([key for key in KEYS if key.kind.scalar])
    assert not set(by_variable) & set(RESERVED)


def test_other_variables_of_onebox_are_no_unknown_settings(tmp_path: Path) -> None:
    """Variables of other parts of onebox cause no error."""
    environ = dict.fromkeys(RESERVED, "x")
    for name in ("ONEBOX_CONFIG", "ONEBOX_PROFILE"):
        del environ[name]
    assert load(tmp_path, environ, {}) == load(tmp_path, {}, {})


def test_onebox_config_names_another_file(tmp_path: Path) -> None:
    """The path is relative to the project, or absolute."""
    (tmp_path / "sub").mkdir()
    other = tmp_path / "sub" / "big.toml"
    other.write_text('name = "big"\n')
    write(tmp_path, 'name = "small"\n')
    for path in ("sub/big.toml", str(other)):
        got = load(tmp_path, {"ONEBOX_CONFIG": path}, {})
        assert got.name == "big"
        assert got.source("name") == f"{path[:39] + '…' if len(path) > 40 else path}:1"


def test_size_tables_change_built_in_sizes_or_add_new_ones(tmp_path: Path) -> None:
    """A table changes a built-in size key by key."""
    write(
        tmp_path,
        '[size.large]\nspot = true\nmax_price = 2\n[size.beast]\naws = "r7i.24xlarge"\n'
        'gcp = ["n2-highmem-96", "n2d-highmem-96"]\ndisk = "1 TB"\n'
        "[size.odd]\ncpus = 3\nmemory = 5\n",
    )
    got = load(tmp_path, {"ONEBOX_PROVIDER": "aws"}, {"vm": "beast"})
    assert list(got.sizes) == ["small", "medium", "large", "xlarge", "beast", "odd"]
    assert got.sizes["large"] == Size("large", 64, 256 * GB, spot=True, max_price=2)
    assert got.sizes["odd"] == Size("odd", 3, 5 * GB)
    types = {"aws": ("r7i.24xlarge",), "gcp": ("n2-highmem-96", "n2d-highmem-96")}
    assert got.size == Size("beast", 0, 0, disk=1024 * GB, types=types)
    assert got.source("size.beast.disk") == "onebox.toml:7"


@pytest.mark.parametrize(
    ("provider", "vm", "types"),
    [
        ("aws", "m7i.16xlarge", {"aws": ("m7i.16xlarge",)}),
        ("aws", "u-6tb1.metal", {"aws": ("u-6tb1.metal",)}),
        ("aws", "m7i.metal-24xl", {"aws": ("m7i.metal-24xl",)}),
        ("gcp", "n2d-highmem-64", {"gcp": ("n2d-highmem-64",)}),
        ("gcp", "custom-4-8192", {"gcp": ("custom-4-8192",)}),
        ("digitalocean", "c-32", {"digitalocean": ("c-32",)}),
        ("digitalocean", "m-32vcpu-256gb", {"digitalocean": ("m-32vcpu-256gb",)}),
        ("local", "m7i.16xlarge", {"aws": ("m7i.16xlarge",)}),
    ],
)
def test_machine_type_of_the_provider_is_a_size(
    tmp_path: Path, provider: str, vm: str, types: dict[str, tuple[str, ...]]
) -> None:
    """Local accepts the types of all clouds, as a rehearsal."""
    got = load(tmp_path, {}, {"provider": provider, "vm": vm})
    assert got.size == Size(vm, 0, 0, types=types)


def test_size_may_be_written_as_requirements(tmp_path: Path) -> None:
    """Requirements such as CPUs and memory define a size."""
    text = "cpus=64, memory=256 GB,spot=yes,disk=1TB,max_price=4"
    got = load(tmp_path, {}, {"vm": text})
    assert got.size == Size(text, 64, 256 * GB, True, 1024 * GB, 4.0)
    assert load(tmp_path, {}, {"vm": "cpus=1,memory=2"}).size.memory == 2 * GB


def test_vm_is_a_plain_key_beside_size_tables(tmp_path: Path) -> None:
    """`vm = "NAME"` names a size of a [size.NAME] table in the same file."""
    write(tmp_path, 'vm = "odd"\n[size.odd]\ncpus = 3\nmemory = 5\n')
    got = load(tmp_path, {}, {})
    assert (got.vm, got.size.cpus, got.source("vm")) == ("odd", 3, "onebox.toml:1")


def test_file_with_all_notations_is_read(tmp_path: Path) -> None:
    """All notations of one complete file give the expected values."""
    got = load(
        write(
            tmp_path,
            'provider = "aws"   # local | aws\n'
            "[image]\n"
            'setup = "setup.sh"\n'
            "packer = ''\n"
            "[push]\n"
            'code = ["."]\n'
            "data = [\n"
            '  "data/", # raw\n'
            "  'more [x]/',\n"
            "]\n"
            "[run]\n"
            'command = """\n'
            "python train.py \\\n"
            '  --all"""\n'
            'env = { OMP_NUM_THREADS = "64", "A" = "b=c, d" }\n'
            'secrets = ["HF_TOKEN"]\n'
            "[limits]\n"
            "max_hours = 1_0\n"
            "[fetch]\n"
            "every = 90\n"
            "[aws]\n"
            'ssh_cidr = "::/0"\n'
            "allow_world_ssh = true\n",
        ),
        {},
        {},
    )
    assert (got.image.setup, got.image.packer) == ("setup.sh", None)
    assert got.push.data == ("data/", "more [x]/")
    assert got.run.command == "python train.py --all"
    assert got.run.env == {"OMP_NUM_THREADS": "64", "A": "b=c, d"}
    assert got.run.secrets == ("HF_TOKEN",)
    assert got.limits.max_hours == 10
    assert got.fetch.every == 90
    assert value_at(got, "aws.ssh_cidr") == "::/0"


@pytest.mark.parametrize("provider", list(PROVIDERS))
def test_file_of_init_is_short_and_valid(tmp_path: Path, provider: str) -> None:
    """The file that `init` writes explains itself."""
    text = template(provider, Survey())
    got = load(write(tmp_path, text), {}, {})
    assert got.provider == provider
    assert len(text.splitlines()) <= 22
    assert max(map(len, text.splitlines())) <= 88


@pytest.mark.parametrize("key", ["run.env", "image.env", "image.vars"])
def test_numbers_and_booleans_in_a_table_of_variables_become_texts(
    tmp_path: Path, key: str
) -> None:
    """A variable has the text that TOML shows, in an inline table or a table."""
    table, name = key.split(".")
    packer = 'packer = "x.pkr.hcl"\n' if name == "vars" else ""
    values = {"N": "2", "LESS": "-1", "RATE": "0.5", "ON": "true", "OFF": "false"}
    for text in (
        f"{name} = {{ N = 2, LESS = -1, RATE = 0.5, ON = true, OFF = false }}",
        f"[{key}]\nN = 2\nLESS = -1\nRATE = 0.5\nON = true\nOFF = false",
    ):
        got = load(write(tmp_path, f"[{table}]\n{packer}{text}\n"), {}, {})
        assert value_at(got, key) == values


def test_settings_are_immutable(tmp_path: Path) -> None:
    """Neither a setting nor a default can be changed."""
    got = load(tmp_path, {}, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        got.limits.max_hours = 1  # type: ignore[misc]
    assert got.run.env is not load(tmp_path, {}, {}).run.env


def test_import_of_settings_loads_neither_toml_nor_rich() -> None:
    """They are imported only if there is a file to read."""
    code = (
        "import sys, pathlib, onebox.settings as c\n"
        "c.load(pathlib.Path('/nowhere'), {}, {})\n"
        "sys.exit(bool({'toml', 'rich', 'asyncssh', 'pathspec'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _is_readable(text: str) -> bool:
    """Return whether toml reads a text between brackets without a mistake."""
    return not text.startswith(",") and '",' not in text


# What a user may write for each kind, beside the example.
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
PATHS = st.lists(
    st.from_regex(
        r"[a-zA-Z0-9_ü.][a-zA-Z0-9_ü\"'#\[\]=,]{0,6}/?", fullmatch=True
    ).filter(lambda path: path.rstrip("/") not in (".", "..") and _is_readable(path)),
    unique=True,
    max_size=3,
)
WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="@"), max_size=12
).filter(lambda text: text != '"' and text[:2] != '""')  # toml misreads these
GIVEN: dict[str, st.SearchStrategy[Any]] = {
    "project": NAMES,
    "name": NAMES,
    "spot": st.booleans(),
    "image.setup": st.just("a b.sh"),
    "image.include": PATHS,
    "push.code": PATHS,
    "push.data": PATHS,
    "run.command": WORDS.filter(lambda text: text.strip() != ""),
    "run.env": st.dictionaries(
        st.from_regex(r"[A-NP-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
        WORDS.filter(_is_readable),
        max_size=3,
    ),
    "run.when": st.sampled_from(["always", "changed"]),
    "run.cancel_grace": st.integers(0, 3600),
    "fetch.outputs": PATHS,
    "limits.max_hours": st.floats(0.2, 336),
    "limits.max_price": st.floats(0.01, 1000),
    "limits.retries": st.integers(0, 100),
    "local.rehearse.drop_every": st.floats(0.1, 100),
    "aws.disk": st.integers(8, 4096).map(lambda number: f"{number} GB"),
    "aws.zones": st.sampled_from([[], ["us-east-1a", "us-east-1b"]]),
    "gcp.network": st.sampled_from(["default", "a/b"]),
}


def as_toml(value: object) -> str:
    """Return a value in TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {as_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower() if isinstance(value, bool) else repr(value)


@settings(
    max_examples=250,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
@given(st.fixed_dictionaries({}, optional=GIVEN), st.booleans())
def test_written_settings_are_read_back_unchanged(
    tmp_path: Path, written: dict[str, Any], dotted: bool
) -> None:
    """Any valid settings, in tables or with dotted keys, are read back."""
    if dotted:
        text = "".join(f"{path} = {as_toml(item)}\n" for path, item in written.items())
    else:
        paths = sorted(written, key=lambda path: path.rpartition(".")[0])
        text, table = "", ""
        for path in paths:
            home, _, key = path.rpartition(".")
            text += f"[{home}]\n" if home != table else ""
            text += f"{key} = {as_toml(written[path])}\n"
            table = home
    got = load(write(tmp_path, text), {}, {})
    for setting in KEYS:
        path = setting.path
        if path in written:
            assert value_at(got, path) == setting.kind.read(written[path])
            assert (got.source(path) == "default") == (written[path] == {})
        elif path != "project":
            assert value_at(got, path) == setting.default
            assert got.source(path) == "default"


def test_built_in_sizes_are_the_documented_ones() -> None:
    """The built-in sizes are those of the documentation."""
    assert [(size.name, size.cpus, format_bytes(size.memory)) for size in SIZES] == [
        ("small", 4, "16 GB"),
        ("medium", 16, "64 GB"),
        ("large", 64, "256 GB"),
        ("xlarge", 64, "512 GB"),
    ]


def test_first_mistake_of_the_file_is_reported(tmp_path: Path) -> None:
    """Of several mistakes, the first one in the file is reported."""
    write(tmp_path, 'name = "A"\nproject = "B"\n')
    with pytest.raises(ConfigError, match=r"^onebox\.toml:1: name"):
        load(tmp_path, {}, {})


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize(
    ("cidr", "world"),
    [
        *[(cidr, True) for cidr in ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1")],
        *[(cidr, True) for cidr in ("10.0.0.0/7", "::/0", "2000::/3", "::/1")],
        *[(cidr, True) for cidr in ("::ffff:0:0/96", "::ffff:0.0.0.0/97")],
        *[(cidr, False) for cidr in ("10.0.0.0/8", "203.0.113.7/32", "fc00::/7")],
        *[(cidr, False) for cidr in ("2001:db8::/32", "::ffff:10.0.0.0/104")],
    ],
)
def test_wide_ssh_network_needs_allow_world_ssh_in_every_cloud(
    tmp_path: Path, cloud: str, cidr: str, world: bool
) -> None:
    """A network that is wider than any private one needs allow_world_ssh."""
    file = tmp_path / "onebox.toml"
    file.write_text(f'[{cloud}]\nssh_cidr = "{cidr}"\n')
    if world:
        with pytest.raises(ConfigError, match="whole internet"):
            load(tmp_path, {}, {})
        file.write_text(f'[{cloud}]\nssh_cidr = "{cidr}"\nallow_world_ssh = true\n')

    assert value_at(load(tmp_path, {}, {}), f"{cloud}.ssh_cidr") == cidr


@pytest.mark.parametrize(
    "base", ["ubuntu-22.04", "ubuntu-24.04", "debian-12", "debian-13"]
)
def test_every_base_image_of_the_clouds_is_accepted(tmp_path: Path, base: str) -> None:
    """[image] base accepts all base images of the providers."""
    (tmp_path / "onebox.toml").write_text(f'[image]\nbase = "{base}"\n')

    assert load(tmp_path, {}, {}).image.base == base
    assert family(base) is not None
    assert slug(base) == f"{base.replace('.', '-')}-x64"
