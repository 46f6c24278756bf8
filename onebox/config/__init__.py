"""
The settings: onebox.toml, ONEBOX_* variables and flags, checked and merged.

Nothing else in onebox reads them, and toml is imported only when there is a
file to read.
"""

from __future__ import annotations

from onebox.config.files import check_files
from onebox.config.load import load, project_name
from onebox.config.settings import (
    AWS,
    GCP,
    VM,
    DigitalOcean,
    Fetch,
    Image,
    Limits,
    Local,
    Push,
    Rehearse,
    Run,
    Settings,
)
from onebox.config.templates import template
from onebox.config.units import duration, say_size, size

__all__ = [
    "AWS",
    "GCP",
    "VM",
    "DigitalOcean",
    "Fetch",
    "Image",
    "Limits",
    "Local",
    "Push",
    "Rehearse",
    "Run",
    "Settings",
    "check_files",
    "duration",
    "load",
    "project_name",
    "say_size",
    "size",
    "template",
]
