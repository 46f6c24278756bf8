"""Define the record of one box, and check the values in state.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class Record:
    """
    The last known state of a box and of its latest job.

    Attributes:
        box: The id of the box, "" if there is none.

        place: The zone or region in which the box was created.

        host_key: The public host key that the box was last instructed to use.

        size: The name of the size that the user requested.

        hourly: The hourly cost of the box in USD, None if it is unknown.

        hourly_on_demand: The hourly cost of the same box on demand.

        created, deadline: Epoch seconds by the provider's clock.

        temporary: Whether a chain created the box for itself and must tear it down.

        job: The id of the latest job.

        job_outputs: The output paths of the latest job, one on each line.

        job_outputs_folder: The folder for the latest job's outputs, "" for the default
            folder.

        fetched: The digest of the latest job's outputs, if they were fetched and
            verified; else "".

        fetched_folder: The folder that received the latest job's outputs, "" before
            they are fetched.

        session: The time by the box's clock (epoch seconds) since which files of
            notebook sessions may not be here; 0 if all of them are.

        kept_builder: The id of the builder that `image --keep` left up.

        booted: Whether the box has finished booting. It is False from the create call
            until the box has booted.

        unknown: The fields that this version does not know; they are written back
            unchanged.
    """

    box: str = ""
    provider: str = ""
    place: str = ""
    host_key: str = ""
    size: str = ""
    hourly: float | None = None
    hourly_on_demand: float | None = None
    created: float = 0.0
    deadline: float = 0.0
    temporary: bool = False
    image: str = ""
    job: str = ""
    job_command: str = ""
    job_outputs: str = ""
    job_outputs_folder: str = ""
    job_started: float = 0.0
    fetched: str = ""
    fetched_folder: str = ""
    session: float = 0.0
    kept_builder: str = ""
    booted: bool = True
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Record:
        """Return the record that *document* holds; `is_valid` has accepted it."""
        values = {k: v for k, v in document.items() if k != "format"}
        known = {name: values.pop(name) for name in _DEFAULTS if name in values}
        return cls(**known, unknown=values)

    def has_unfetched_job(self, box_id: str) -> bool:
        """Return whether the record has a job of this box that was not fetched."""
        return self.box == box_id and bool(self.job) and not self.fetched

    def document(self) -> dict[str, Any]:
        """Return the JSON document that holds this record."""
        values = asdict(self)
        values.update(values.pop("unknown"))
        return {"format": FORMAT, **values}


_DEFAULTS = {f.name: f.default for f in fields(Record) if f.name != "unknown"}


def is_valid(document: Any) -> bool:
    """
    Return whether a JSON document is a record whose values have the right types.

    The values of a document in a newer format are not checked.
    """
    if not isinstance(document, dict):
        return False
    version = document.get("format", FORMAT)
    if not isinstance(version, int) or isinstance(version, bool):
        return False
    return is_newer(document) or all(
        _has_type_of(document[name], default)
        for name, default in _DEFAULTS.items()
        if name in document
    )


def is_newer(document: Mapping[str, Any]) -> bool:
    """Return whether a newer version of onebox wrote the document."""
    return bool(document.get("format", FORMAT) > FORMAT)


def _has_type_of(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if default is None:
        return value is None or isinstance(value, (int, float))
    return isinstance(value, (int, float) if isinstance(default, float) else str)
