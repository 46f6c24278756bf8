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
    DigitalOcean,
    Fetch,
    Image,
    Limits,
    Local,
    Push,
    Rehearse,
    Run,
    Settings,
    Size,
)
from onebox.config.templates import template
from onebox.config.units import format_bytes, parse_bytes, parse_duration

__all__ = [
    "AWS",
    "GCP",
    "DigitalOcean",
    "Fetch",
    "Image",
    "Limits",
    "Local",
    "Push",
    "Rehearse",
    "Run",
    "Settings",
    "Size",
    "check_files",
    "format_bytes",
    "load",
    "parse_bytes",
    "parse_duration",
    "project_name",
    "template",
]
