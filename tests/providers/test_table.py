"""The table of providers: each is loaded by its name, and fails in plain words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import toml

from onebox import providers
from onebox.errors import ConfigError, OneboxError, ProviderError
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from onebox.providers.unexpected_errors import guarded
from onebox.providers.values import Box, Requirements

from ..conftest import Project

PROJECT = toml.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())


class Broken(Local):
    """A provider with a mistake in it."""

    def get(self, box: str, place: str = "") -> Box | None:
        """Fail as no provider should."""
        raise ValueError(f"no such\n thing: {box}")

    def console(self, box: Box) -> str:
        """Fail because the system does."""
        raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    "name", [name for name, row in providers.PROVIDERS.items() if row.library]
)
def test_a_missing_library_is_named_with_an_extra_that_exists(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command in the advice installs the library."""
    hint = providers.PROVIDERS[name].missing_sdk
    found = re.fullmatch(r"pip install 'onebox\[(\w+)\]'", hint)
    assert found
    extra = PROJECT["project"]["optional-dependencies"][found[1]]
    assert extra
    # A package that needs a newer Python than onebox cannot be a default dependency.
    everywhere = {package for package in extra if "python_version" not in package}
    assert everywhere <= set(PROJECT["project"]["dependencies"])


@pytest.mark.parametrize("name", providers.CLOUDS)
def test_a_missing_library_is_an_error_that_names_how_to_install_it(
    name: str, project: Project
) -> None:
    """The error names the library, and the command that installs it."""
    missing = providers.PROVIDERS[name].library.partition(".")[0]
    (project.home / "sitecustomize.py").write_text(
        f"import sys\nsys.modules[{missing!r}] = None\n"
    )
    project.write("onebox.toml", f'provider = "{name}"\n[run]\ncommand = "true"\n')
    done = project.inv("status", env={"PYTHONPATH": str(project.home)})
    assert 78 == done.code, done.err
    assert f"pip install 'onebox[{name}]'" in done.err


def test_an_unexpected_exception_becomes_an_error_with_provider_and_call(
    tmp_path: Path,
) -> None:
    """It also has the next step."""
    broken = guarded(Broken(LocalSettings(), tmp_path))
    with pytest.raises(ProviderError) as caught:
        broken.get("ob-1")
    assert "provider local failed at get" in caught.value.message
    assert "ValueError: no such thing: ob-1" in caught.value.message
    assert "inv doctor" in caught.value.next
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ProviderError, match="failed at leftovers"):
        broken.leftovers(None)  # type: ignore[arg-type] # a mistake of a caller's


def test_expected_errors_pass_unchanged(tmp_path: Path) -> None:
    """So do errors of the system and results."""
    broken = guarded(Broken(LocalSettings(), tmp_path))
    [size] = broken.offers(Requirements("small", 1, 1))
    assert (size.name, broken.name, broken.stopped_is_free) == ("small", "local", True)
    with pytest.raises(PermissionError):
        broken.console(None)  # type: ignore[arg-type] # it is not looked at
    with pytest.raises(OneboxError) as caught:
        broken.policy()
    assert "has no policy" in caught.value.message


def test_an_exception_while_a_provider_is_loaded_is_named_too(tmp_path: Path) -> None:
    """A wrong setting passes unchanged."""
    local = providers.load("local", LocalSettings(), tmp_path)
    with pytest.raises(ProviderError, match="failed at"):
        local.leftovers(None)  # type: ignore[arg-type] # a mistake of a caller's
    with pytest.raises(ConfigError):
        providers.load("local", LocalSettings(), tmp_path / "with space")
    with pytest.raises(ProviderError, match="provider local failed at its start"):
        providers.load("local", LocalSettings(), None)  # type: ignore[arg-type] # such a mistake


def test_an_unexpected_exception_ends_a_command_with_70_and_no_traceback(
    project: Project,
) -> None:
    """A provider's mistake ends a line with 70 and its name, not with a traceback."""
    (project.home / "sitecustomize.py").write_text(
        "from onebox.providers.local.provider import Local\n"
        "def find(*about, **more):\n"
        "    raise ValueError('that was not to be')\n"
        "Local.find = find\n"
    )
    done = project.inv("status", env={"PYTHONPATH": str(project.home)})
    assert 70 == done.code, done.err
    assert "provider local failed at find" in done.err
    assert "that was not to be" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("image", "provider"),
    [
        ("ami-0123456789abcdef0", "aws"),
        ("projects/debian-cloud/global/images/debian-12-v1", "gcp"),
    ],
)
def test_image_id_belongs_to_its_own_cloud_only(image: str, provider: str) -> None:
    """An image id of one cloud is an unknown name at all others."""
    owners = [
        name for name, row in providers.PROVIDERS.items() if row.has_image_id(image)
    ]
    assert owners == [provider]


def test_name_of_a_saved_image_is_no_image_id() -> None:
    """A name that the user gave to an image is looked up among the saved images."""
    assert not any(row.has_image_id("my-image") for row in providers.PROVIDERS.values())
