"""The layers that hold tables: the user's file, Invoke's config, and profiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from onebox.errors import ConfigError
from onebox.settings import InvokeLevel, Places, Settings, load


def loaded(
    root: Path,
    *,
    project: str = "",
    user: str = "",
    invoke: tuple[InvokeLevel, ...] = (),
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Load the settings of a project with these files."""
    (root / "onebox.toml").write_text(project, encoding="utf-8")
    home = root / "home"
    own = home / ".config" / "onebox"
    own.mkdir(parents=True, exist_ok=True)
    (own / "config.toml").write_text(user, encoding="utf-8")
    places = Places(user_file=own / "config.toml", invoke=invoke)
    return load(root, {"HOME": str(home), **(environ or {})}, flags or {}, places)


def problem(root: Path, **layers: object) -> str:
    """Load settings with a mistake, and return the message."""
    with pytest.raises(ConfigError) as caught:
        loaded(root, **layers)  # type: ignore[arg-type] # handed on
    return caught.value.message


ALL = {
    "user": "[limits]\nmax_hours = 1",
    "invoke": (InvokeLevel("invoke.yaml", False, {"limits": {"max_hours": 2}}),),
    "project": "[limits]\nmax_hours = 3\n[profile.long.limits]\nmax_hours = 4",
}


@pytest.mark.parametrize(
    ("names", "environ", "flags", "expected", "source"),
    [
        ((), {}, {}, 8, "default"),
        (("user",), {}, {}, 1, "~/.config/onebox/config.toml:2"),
        (("user", "invoke"), {}, {}, 2, "invoke.yaml"),
        (("user", "invoke", "project"), {}, {}, 3, "onebox.toml:2"),
        (ALL, {"ONEBOX_PROFILE": "long"}, {}, 4, "profile long (onebox.toml:4)"),
        (ALL, {}, {"profile": "long"}, 4, "profile long (onebox.toml:4)"),
        (
            ALL,
            {"ONEBOX_LIMITS_MAX_HOURS": "5", "ONEBOX_PROFILE": "long"},
            {},
            5,
            "ONEBOX_LIMITS_MAX_HOURS",
        ),
        (
            ALL,
            {"ONEBOX_LIMITS_MAX_HOURS": "5", "ONEBOX_PROFILE": "long"},
            {"limits.max_hours": 6},
            6,
            "limits.max_hours",
        ),
    ],
)
def test_each_layer_overrides_those_below(
    tmp_path: Path,
    names: tuple[str, ...],
    environ: dict[str, str],
    flags: dict[str, object],
    expected: float,
    source: str,
) -> None:
    """User file, Invoke's config, onebox.toml, profile, variable, flag."""
    layers = {name: ALL[name] for name in names}
    got = loaded(tmp_path, environ=environ, flags=flags, **layers)  # type: ignore[arg-type] # handed on
    assert (got.limits.max_hours, got.source("limits.max_hours")) == (expected, source)


def test_the_strings_of_a_table_are_merged(tmp_path: Path) -> None:
    """A layer overrides one tag or variable, and leaves the others in force."""
    got = loaded(
        tmp_path,
        user='[tags]\nteam = "blue"\ncost-center = "42"',
        project='tags = { team = "red" }\n[run.env]\nA = "1"\nB = "1"\n'
        '[profile.gpu.run.env]\nB = "2"',
        flags={"profile": "gpu"},
    )
    assert got.tags == {"team": "red", "cost-center": "42"}
    assert got.run.env == {"A": "1", "B": "2"}
    assert [got.source(f"tags.{name}") for name in got.tags] == [
        "onebox.toml:1",
        "~/.config/onebox/config.toml:3",
    ]
    assert got.source("run.env.B") == "profile gpu (onebox.toml:6)"


def test_a_missing_user_file_is_no_mistake(tmp_path: Path) -> None:
    """The file and its folder are optional."""
    places = Places(user_file=tmp_path / "none" / "config.toml")
    assert load(tmp_path, {}, {}, places) == load(tmp_path, {}, {})


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('project = "census"', "1: project"),
        ('name = "second"', "1: name"),
        ('\n[run]\ncommand = "python a.py"', "2: [run]"),
        ('run.command = "python a.py"', "1: [run]"),
        ("[push]\ncode = []", "1: [push]"),
        ('[profile.a]\nname = "b"', "2: [profile.a] name"),
        ('[profile.a.image]\nsetup = "b"', "1: [profile.a.image]"),
    ],
)
def test_the_user_file_refuses_settings_of_one_project(
    tmp_path: Path, text: str, label: str
) -> None:
    """The line names the file, the line of the file, and the setting."""
    assert problem(tmp_path, user=text) == (
        f"~/.config/onebox/config.toml:{label}: belongs to one project; set it in "
        "onebox.toml"
    )


def test_a_user_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    """Another user could otherwise choose what runs in this user's name."""
    loaded(tmp_path)
    file = tmp_path / "home/.config/onebox/config.toml"
    file.chmod(0o666)
    assert problem(tmp_path) == (
        "~/.config/onebox/config.toml: other users can change it: chmod o-w "
        "~/.config/onebox/config.toml"
    )


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            {"user": 'provdier = "aws"'},
            "~/.config/onebox/config.toml:1: provdier: unknown key, did you mean "
            "provider?",
        ),
        (
            {"user": "x"},
            "~/.config/onebox/config.toml:1: expected key = value, or a [table]",
        ),
        (
            {"project": "[profile.gpu]\nprovdier = 'aws'"},
            "onebox.toml:2: [profile.gpu] provdier: unknown key, did you mean "
            "provider?",
        ),
        (
            {"project": "[profile.gpu.limits]\nmax_hours = 0"},
            "onebox.toml:2: [profile.gpu.limits] max_hours: 0 is out of range; use "
            '0.17 (10 minutes) to 336 (14 days); there is no "off"',
        ),
        (
            {"project": "[profile.gpu.limit]"},
            "onebox.toml:1: [profile.gpu.limit]: unknown table, did you mean [limits]?",
        ),
        (
            {"project": "[profile.GPU]"},
            'onebox.toml:1: [profile.GPU]: "GPU" is not a name: a lower-case letter, '
            "then at most 30 lower-case letters, digits or dashes",
        ),
        (
            {"project": 'profile = "gpu"'},
            "onebox.toml:1: profile: a profile is a table such as [profile.gpu]; "
            "--profile=gpu or ONEBOX_PROFILE chooses it",
        ),
        (
            {"project": "[profile.gpu]\n[profile.cpu]", "flags": {"profile": "gpuu"}},
            '--profile: there is no profile "gpuu", did you mean gpu?',
        ),
        (
            {"project": "[profile.gpu]", "environ": {"ONEBOX_PROFILE": "night"}},
            'ONEBOX_PROFILE: there is no profile "night"; the profiles are gpu',
        ),
        (
            {"flags": {"profile": "gpu"}},
            '--profile: there is no profile "gpu"; no [profile.NAME] is in onebox.toml',
        ),
        (
            {"project": "[profile.x]\nvm = 'larg'", "flags": {"profile": "x"}},
            'onebox.toml:2: [profile.x] vm: there is no size "larg", did you mean '
            "large?",
        ),
        (
            {"invoke": (InvokeLevel("invoke.yaml", False, {"vm": 3}),)},
            'invoke.yaml: [onebox] vm: expected a string such as "large", got 3',
        ),
        (
            {"invoke": (InvokeLevel("invoke.yaml", False, {"limits": {"x": 1}}),)},
            "invoke.yaml: [onebox.limits] x: unknown key",
        ),
        (
            {"invoke": (InvokeLevel("invoke.yaml", False, "large"),)},
            'invoke.yaml: onebox: expected a table of settings, got "large"',
        ),
        (
            {"invoke": (InvokeLevel("~/.invoke.yaml", True, {"name": "a"}),)},
            "~/.invoke.yaml: [onebox] name: belongs to one project; set it in "
            "onebox.toml",
        ),
        (
            {"project": 'tags = { Name = "a" }'},
            'onebox.toml:1: [tags] Name: the key "Name" is reserved for onebox',
        ),
        (
            {"project": '[tags]\n"onebox:owner" = "a"'},
            'onebox.toml:2: [tags] "onebox:owner": the key "onebox:owner" is reserved '
            "for onebox",
        ),
        (
            {"project": "[tags]\n" + "".join(f'a{n} = "b"\n' for n in range(21))},
            "onebox.toml:22: [tags]: has 21 tags; at most 20 are possible",
        ),
    ],
)
def test_a_mistake_in_a_layer_is_one_line(
    tmp_path: Path, layers: dict[str, object], message: str
) -> None:
    """The line names the place, the setting, and what is expected."""
    assert problem(tmp_path, **layers) == message


@pytest.mark.parametrize(
    ("provider", "tag", "problem_text"),
    [
        ("aws", '"aws:x" = "a"', "AWS refuses this key"),
        ("aws", 'team = "a#b"', "AWS refuses this value"),
        ("gcp", 'Team = "a"', "Google Cloud refuses this key"),
        ("gcp", 'team = "A"', "Google Cloud refuses this value"),
        ("gcp", f'team = "{"a" * 64}"', "Google Cloud refuses this value"),
        ("digitalocean", '"a.b" = "a"', "DigitalOcean refuses this key"),
        ("digitalocean", 'team = "a b"', "DigitalOcean refuses this value"),
        ("hetzner", '"hetzner.cloud/x" = "a"', "Hetzner Cloud refuses this key"),
        ("hetzner", 'team = "-a"', "Hetzner Cloud refuses this value"),
        ("local", '"any thing" = "#"', ""),
        ("aws", 'Cost-Center = "a = b"', ""),
        ("gcp", 'cost-center = ""', ""),
        ("digitalocean", 'Cost-Center = "a:b"', ""),
        ("hetzner", '"example.com/Team" = "a.b"', ""),
    ],
)
def test_a_tag_that_the_cloud_would_refuse_is_a_mistake(
    tmp_path: Path, provider: str, tag: str, problem_text: str
) -> None:
    """The rules are those of the provider in use; the line names file and tag."""
    text = f'provider = "{provider}"\n[tags]\n{tag}'
    if not problem_text:
        assert len(loaded(tmp_path, project=text).tags) == 1
        return
    message = problem(tmp_path, project=text)
    assert message.startswith("onebox.toml:3: [tags] ")
    assert f": {problem_text}: it accepts " in message


def test_a_profile_leaves_the_name_of_the_box(tmp_path: Path) -> None:
    """A profile changes only the settings it has; so it can be used on a live box."""
    text = 'name = "b"\n[profile.gpu]\nvm = "large"\n[profile.other]\nname = "c"'
    got = loaded(tmp_path, project=text, flags={"profile": "gpu"})
    assert (got.name, got.vm, got.overrides_file("name")) == ("b", "large", False)
    got = loaded(tmp_path, project=text, flags={"profile": "other"})
    assert (got.name, got.overrides_file("name")) == ("c", True)


def test_another_file_gives_the_box_its_name(tmp_path: Path) -> None:
    """The default name is the file's stem, unless a layer sets the name."""
    (tmp_path / "GPU jobs.toml").write_text('vm = "large"')
    places = Places(file="GPU jobs.toml")
    got = load(tmp_path, {"ONEBOX_CONFIG": "other.toml"}, {}, places)
    assert (got.name, got.vm, got.config_file) == ("gpu-jobs", "large", "GPU jobs.toml")
    assert load(tmp_path, {}, {"name": "x"}, places).name == "x"
    (tmp_path / "main.toml").touch()
    assert load(tmp_path, {}, {}, Places(file="main.toml")).name == "main-2"
    (tmp_path / "GPU jobs.toml").write_text('name = "y"')
    assert load(tmp_path, {}, {}, places).name == "y"
    with pytest.raises(ConfigError, match=r"^onebox.collection: a.toml does not exist"):
        load(tmp_path, {}, {}, Places(file="a.toml"))
