"""What pyproject.toml says about a project, without a parser of TOML."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebox.images import python_project

PROJECT = '[project]\nname = "my-lib"  # its name\nversion = "1"\n'
BUILD = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
GROUPS = '[dependency-groups]\ndev = [\n  "six",\n  {include-group = "x"},\n]\n'


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (PROJECT + BUILD, "my-lib"),
        (BUILD + GROUPS + PROJECT, "my-lib"),
        (PROJECT + " [ build-system ] # how\nrequires = []\n", "my-lib"),
        (PROJECT + "[tool.uv]\npackage = true\n", "my-lib"),
        # A script with dependencies is no package, as for uv itself.
        (PROJECT, ""),
        (PROJECT + BUILD + "[tool.uv]\npackage = false\n", ""),
        ("[tool.ruff]\nline-length = 88\n", ""),
        (BUILD + '[tool.other]\nname = "x"\n', ""),
        ("", ""),
    ],
)
def test_project_is_a_package_if_uv_would_install_it(text: str, name: str) -> None:
    """It has a name and a build system, and `[tool.uv] package` has the last word."""
    assert python_project.package_name(text) == name


@pytest.mark.parametrize(
    ("line", "spec"),
    [
        ("-e .", "."),
        ("  --editable=./  # this one", "."),
        ("-e .[dev,test]", ".[dev,test]"),
        (".", "."),
        ("-e ./other", None),
        ("# -e .", None),
        ("-e ..", None),
        ("six", None),
    ],
)
def test_list_of_packages_may_name_the_project(
    tmp_path: Path, line: str, spec: str | None
) -> None:
    """Other folders are not the project; without a [build-system] setuptools builds."""
    (tmp_path / "needs.txt").write_text(f"numpy\n{line}\nscipy\n")
    found = python_project.find(tmp_path, "needs.txt")
    assert (found.spec if found else None) == spec
    if found:
        assert (found.folder, found.name) == (tmp_path, "the project")
        assert "setuptools" in found.build_system


def test_build_system_is_the_whole_table() -> None:
    """The table ends where the next one begins."""
    assert python_project.build_system(PROJECT + BUILD + GROUPS) == BUILD
    assert python_project.build_system(PROJECT) == ""


def test_settings_of_linters_do_not_count() -> None:
    """The settings of other tools may name dependencies, so they count."""
    ruff = '[tool.ruff]\nline-length = 88\n[tool.ruff.lint]\nselect = ["E"]\n'
    setuptools = '[tool.setuptools.dynamic]\ndependencies = {file = ["r.txt"]}\n'
    text = PROJECT + "\n" + ruff + setuptools + "[tool.pytest.ini_options]\nx = 1\n"
    for shorter in (PROJECT + setuptools, PROJECT + setuptools + "\n"):
        assert python_project.without_other_tools(
            text
        ) == python_project.without_other_tools(shorter)
    assert python_project.without_other_tools(
        PROJECT
    ) != python_project.without_other_tools(text)
