"""
The table of all settings: kind, default, checks and one sentence each.

Validation, defaults, the ONEBOX_* names and the test of onebox.toml.example
are all made from it.
"""

from __future__ import annotations

from onebox.config import provider_keys, stage_keys
from onebox.config.key import GB, Key

KEYS: tuple[Key, ...] = (
    *stage_keys.BOX,
    *stage_keys.SIZE_KEYS,
    *stage_keys.IMAGE,
    *stage_keys.PUSH,
    *stage_keys.RUN,
    *stage_keys.FETCH,
    *stage_keys.LIMITS,
    *provider_keys.LOCAL,
    *provider_keys.REHEARSE,
    *provider_keys.AWS,
    *provider_keys.GCP,
    *provider_keys.DIGITALOCEAN,
)

BY_PATH = {key.path: key for key in KEYS}
BY_VARIABLE = {key.variable: key for key in KEYS if key.variable}
TABLES = {key.table for key in KEYS} - {"", "vm.*"}

# Read by other parts of onebox; not settings.
RESERVED = (
    "ONEBOX_STATE",
    "ONEBOX_IDENTITY",
    "ONEBOX_CONFIG",
    "ONEBOX_LOCAL_ROOT",
    "ONEBOX_BOX",
    "ONEBOX_JOB",
)

# Name, vCPUs, memory: the sizes there are without any [vm.*] table.
SIZES = (
    ("small", 4, 16 * GB),
    ("medium", 16, 64 * GB),
    ("large", 64, 256 * GB),
    ("xlarge", 64, 512 * GB),
)
