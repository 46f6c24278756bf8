"""Limits and words that client and agent share in a download."""

from __future__ import annotations

# The links of so many objects are asked for at once, and as many are in use at most.
LINKS = 256
# A link may expire while its object is downloaded, and a server may lose its support of
# ranges. At most so many links are made for one object.
MOST_LINKS = 20
# The answer names at most so many objects that have changed.
MOST_CHANGED = 1000
# Why a download can end early; see `http_source.Failed`.
PROBLEMS = (
    "checksum",
    "denied",
    "disk",
    "expired",
    "mistake",
    "no-ranges",
    "server",
    "unreachable",
    "worker",
)
