"""Find the id of a project, which is in the tags of its boxes."""

from __future__ import annotations

from pathlib import Path

from onebox.errors import ConfigError
from onebox.settings.schema import Settings
from onebox.store.identity import (
    follow_move,
    other_holder,
    project_id,
    refuse_unreadable,
)


def project_of(root: Path, settings: Settings, state: Path) -> str:
    """
    Return the project id from the settings, or else that of the project folder.

    Raises:
        ConfigError: The settings give the id of another folder.

        StateError: The file that records the project's id belongs to another user.
    """
    source = settings.source("project")
    if source == "default":
        refuse_unreadable(root)
        project = project_id(root, settings.project, state)
        follow_move(root, project, state)
        return project
    holder = other_holder(settings.project, root, state)
    if holder is not None:
        raise ConfigError(
            f"{source}: project: {settings.project} is the project in {holder}",
            next="choose another name, or work in that folder",
        )
    return settings.project
