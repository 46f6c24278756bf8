"""The class that validates documents with our JSON Schema."""

from __future__ import annotations

from typing import Any


def schema_validator() -> Any:
    """
    Return the class.

    It is imported at its first use: the import takes 3 s of CPU time, and each process
    that runs tests imports all their modules.
    """
    import jsonschema  # type: ignore[import-untyped,unused-ignore] # stubs are optional

    return jsonschema.Draft202012Validator
