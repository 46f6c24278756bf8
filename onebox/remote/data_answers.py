"""Check the frames that a box sends about its download of objects."""

from __future__ import annotations

from dataclasses import dataclass

from onebox.agent.downloads.limits import LINKS, MOST_CHANGED, PROBLEMS
from onebox.remote.json_fields import Fields


@dataclass(frozen=True)
class DownloadReport:
    """
    How far a download is: the complete files, and the bytes that have arrived.

    *of_files* and *of_bytes* are all that this download brings.
    """

    files: int
    of_files: int
    bytes: int
    of_bytes: int


@dataclass(frozen=True)
class DownloadProblem:
    """Why a download ended early; *index* is the number of the object that shows it."""

    kind: str
    index: int
    message: str


@dataclass(frozen=True)
class DownloadResult:
    """
    The answer that ends a download; `agent.downloads.conversation` has the details.

    *changed* are the numbers of objects that were not as they had been listed.
    """

    missing: int
    bytes: int
    deleted: int
    from_image: int
    downloaded: int
    checked: int
    changed: tuple[int, ...]
    problem: DownloadProblem | None

    @classmethod
    def parse(cls, value: object, count: int) -> DownloadResult:
        """Return the answer about *count* objects from the JSON object *value*."""
        fields = Fields(value, "answer to a download")
        problem = None
        if fields["problem"] is not None:
            inner = Fields(fields["problem"], "problem of a download")
            problem = DownloadProblem(
                inner.one_of("kind", PROBLEMS),
                inner.integer("object", most=max(count - 1, 0)),
                inner.text("message"),
            )
        return cls(
            missing=fields.integer("missing", most=count),
            bytes=fields.integer("bytes"),
            deleted=fields.integer("deleted"),
            from_image=fields.integer("from_image", most=count),
            downloaded=fields.integer("downloaded", most=count),
            checked=fields.integer("checked", most=count),
            changed=fields.integers("changed", MOST_CHANGED, most=count - 1),
            problem=problem,
        )


def note(value: object, count: int) -> DownloadReport | tuple[int, ...]:
    """
    Return a report, or the numbers of the objects whose links are needed.

    Args:
        count: The number of the objects.
    """
    fields = Fields(value, "report of a download")
    if fields["links"] is not None:
        return fields.integers("links", LINKS, most=count - 1)
    return DownloadReport(
        files=fields.integer("files", most=count),
        of_files=fields.integer("of_files", most=count),
        bytes=fields.integer("bytes"),
        of_bytes=fields.integer("of_bytes"),
    )
