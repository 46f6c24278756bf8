"""Settings where users expect them, with real `inv` lines, and who says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import Project

USER_FILE = """\
[limits]
retries = 1
idle_minutes = 20

[tags]
cost-center = "42"
"""
PROFILE = """
[profile.night]
vm = "medium"

[profile.night.run.env]
SHIFT = "night"
"""


def rows(project: Project, *words: str, **env: str) -> dict[str, tuple[str, str]]:
    """Return the table of `inv doctor --settings`: value and source by name."""
    done = project.inv("doctor", "--settings", *words, env=env)
    assert done.code == 0, done.err
    cells = [line.split("\t") for line in done.out.splitlines()]
    assert cells[0] == ["setting", "value", "source"]
    return {name: (value, source) for name, value, source in cells[1:]}


def test_doctor_says_where_each_setting_comes_from(project: Project) -> None:
    """Every layer is named, with the line of a file, and the name of a flag."""
    project.home.joinpath("config").mkdir()
    project.home.joinpath("config/config.toml").write_text(USER_FILE)
    project.write("onebox.toml", project.read("onebox.toml") + PROFILE)
    project.write("invoke.yaml", "onebox:\n  limits:\n    retries: 0\n")
    project.write(
        "tasks.py",
        "import onebox\nns = onebox.ns\n"
        "ns.configure({'onebox': {'limits': {'max_log': '3 GB'}}})\n",
    )
    env = {"ONEBOX_PROFILE": "night", "ONEBOX_LIMITS_MAX_HOURS": "2"}

    found = rows(project, "--name=b", **env)

    assert found == {
        "vm": ('"medium"', "profile night (onebox.toml:8)"),
        "name": ('"b"', "--name"),
        "tags.cost-center": ('"42"', "~/config/config.toml:6"),
        "run.command": ('"sh job.sh"', "onebox.toml:2"),
        "run.env.SHIFT": ('"night"', "profile night (onebox.toml:11)"),
        "fetch.outputs": ('["results/"]', "onebox.toml:5"),
        "limits.max_hours": ("2", "ONEBOX_LIMITS_MAX_HOURS"),
        "limits.idle_minutes": ("20", "~/config/config.toml:3"),
        "limits.retries": ("0", "invoke.yaml"),
        "limits.max_log": ('"3 GB"', "collection.configure()"),
    }


def test_invokes_variables_and_runtime_file_are_read(project: Project) -> None:
    """Invoke's own order holds among its levels; a variable needs an existing key."""
    project.write("invoke.yaml", "onebox: {vm: small, limits: {retries: 0}}\n")
    project.write("more.yaml", "onebox: {limits: {retries: 3}}\n")
    done = project.inv(
        "-f", "more.yaml", "doctor", "--settings", env={"INVOKE_ONEBOX_VM": "large"}
    )
    assert 'vm\t"large"\tINVOKE_ONEBOX_*' in done.out
    assert "limits.retries\t3\tmore.yaml" in done.out


def test_a_variable_that_invoke_ignores_is_refused(project: Project) -> None:
    """Otherwise a limit would be lost without a word, in tasks and in Python."""
    env = {"INVOKE_ONEBOX_LIMITS_MAX_COST": "7"}

    done = project.inv("plan", env=env)
    code = "import onebox.api; onebox.api.status()"
    python = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.root,
        env={**project.environ, **env},
        capture_output=True,
        text=True,
    )

    assert 78 == done.code
    assert "INVOKE_ONEBOX_LIMITS_MAX_COST: Invoke ignores it" in done.err
    assert "next: ONEBOX_LIMITS_MAX_COST" in done.err
    assert "ConfigError: INVOKE_ONEBOX_LIMITS_MAX_COST" in python.stderr
    project.write("invoke.yaml", "onebox: {limits: {max_cost: 1}}\n")
    assert "limits.max_cost\t7\t" in project.inv("doctor", "--settings", env=env).out


def test_no_value_of_a_collection_is_lost(project: Project) -> None:
    """
    A task of the user has the limits of onebox's collection, and its own collection's;
    an outer collection overrides single values only.
    """
    project.write(
        "tasks.py",
        "import onebox\nfrom invoke import Collection, task\n"
        "@task\ndef mine(c):\n    onebox.doctor(c, settings=True)\n"
        "ns, exp = Collection(), Collection('exp', mine)\n"
        "ns.add_collection(onebox.ns, name='box')\n"
        "ns.add_collection(exp)\n"
        "ns.configure({'onebox': {'limits': {'max_cost': 3}}})\n"
        "onebox.ns.configure({'onebox': {'limits': {'max_cost': 9, 'retries': 1}}})\n"
        "exp.configure({'onebox': {'vm': 'medium'}})\n",
    )
    table = project.inv("exp.mine").out
    assert "limits.max_cost\t3\t" in table
    assert "limits.retries\t1\tcollection.configure()" in table
    assert 'vm\t"medium"\t' in table
    assert "medium" not in project.inv("box.doctor", "--settings").out


def test_a_job_gets_the_settings_of_its_profile(project: Project) -> None:
    """`--profile` is a flag of the whole line and a keyword of a stage."""
    project.write("onebox.toml", project.read("onebox.toml") + PROFILE)
    project.write("job.sh", "echo shift=$SHIFT; mkdir -p results; date > results/x\n")
    project.write(
        "tasks.py",
        "from invoke import task\nfrom onebox import *\n"
        "@task\ndef nightly(c):\n    run(c, profile='night')\n",
    )
    assert "shift=night" in project.inv("provision", "run", "--profile=night").out
    assert len(project.boxes()) == 1  # the box kept its name, so it is found again
    assert "shift=\n" in project.inv("run").out
    assert "shift=night" in project.inv("nightly").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("run", "--profile=nigth"),
            'onebox[78]: --profile: there is no profile "nigth", did you mean night?',
        ),
        (
            ("push", "--profile=night", "run", "--profile=day"),
            "onebox[64]: conflicting flags: --profile=night and --profile=day",
        ),
    ],
)
def test_a_wrong_profile_starts_nothing(
    project: Project, words: tuple[str, ...], message: str
) -> None:
    """One line says what is wrong."""
    project.write("onebox.toml", project.read("onebox.toml") + PROFILE)
    done = project.inv(*words)
    assert done.code in (64, 78)
    assert message in done.err
    assert project.boxes() == []


def test_a_mistake_in_the_users_file_is_one_line(project: Project) -> None:
    """The line names the file below the home folder, the line and the key."""
    project.home.joinpath("config").mkdir()
    project.home.joinpath("config/config.toml").write_text('name = "x"\n')
    done = project.inv("plan")
    assert (done.code, done.err) == (
        78,
        "onebox[78]: ~/config/config.toml:1: name: belongs to one project; set it in "
        "onebox.toml\n",
    )


def test_token_in_a_url_is_not_printed(project: Project) -> None:
    """The URL of notifications may hold a token of any form, so no report shows it."""
    url = "https://a.example/hook/open-sesame"

    found = rows(project, ONEBOX_NOTIFY_URL=url)

    assert found["notify.url"] == ("(hidden)", "ONEBOX_NOTIFY_URL")
    for words in (("doctor", "--settings", "--json"), ("plan", "--json")):
        done = project.inv(*words, env={"ONEBOX_NOTIFY_URL": url})
        assert "sesame" not in done.out + done.err
