"""The documents of `--json` and the receipt are as docs/json.md describes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from onebox.boxes.under_way import UnderWay
from onebox.jobs.receipt import Receipt
from onebox.jobs.run_record import EarlierBox
from onebox.stages.cleanup import ListedFreeObject
from onebox.store.run_queue import WaitingRun
from onebox.ui.json_document import SCHEMA_VERSION
from tests.conftest import Project
from tests.fakes.object_stores.s3 import S3

TEXT = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "map": (dict,),
    "null": (type(None),),
}
STAGES = """\
from onebox import *

@stage(inputs=["raw/"], outputs=["clean/"])
def clean(c):
    pass

@stage(clean, push)
def train(c):
    pass
"""


def sections() -> dict[str, dict[str, str]]:
    """Return the type of each documented field, by section and path."""
    found: dict[str, dict[str, str]] = {}
    for section in TEXT.split("\n## ")[1:]:
        name, _, text = section.partition("\n")
        rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| [^|]+ \|$", text, re.M)
        assert len(rows) == text.count("\n| `"), name
        found[name] = {path: re.sub(r"\[(\w+)\]\(.*?\)", r"\1", t) for path, t in rows}
    return found


SECTIONS = sections()


def documented(section: str, prefix: str = "") -> dict[str, str]:
    """Return the type of each path of a document, those of shared objects too."""
    found = {}
    for path, type_ in SECTIONS[section].items():
        found[prefix + path] = type_
        one = type_.removeprefix("list of ")
        if one in SECTIONS:
            items = "[]" * type_.startswith("list of ")
            found.update(documented(one, f"{prefix}{path}{items}."))
    return found


def is_of(value: object, type_: str) -> bool:
    """Return whether a value has a documented type."""
    for one in type_.split(" or "):
        if one.startswith("list of "):
            if isinstance(value, list) and all(
                is_of(item, one.removeprefix("list of ")) for item in value
            ):
                return True
        elif one in SECTIONS:
            if isinstance(value, dict):
                return True
        elif isinstance(value, KINDS[one]) and (
            not isinstance(value, bool) or one == "boolean"
        ):
            return True
    return False


def walk(value: object, paths: dict[str, str], path: str = "") -> Iterator[str]:
    """Yield the documented path of each key in *value*; check its type."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield from walk(item, paths, f"{path}[]")
    elif isinstance(value, dict):
        for key, item in value.items():
            name = "*" if paths.get(path) == "map" else key
            below = f"{path}.{name}" if path else name
            yield below
            assert below in paths, f"docs/json.md does not have {below}"
            assert is_of(item, paths[below]), f"{below}: {item!r}"
            yield from walk(item, paths, below)


def of_lines(*lines: str) -> Callable[[Project], list[Any]]:
    """Return what runs these `inv` lines, and returns the documents among them."""

    def run(project: Project) -> list[Any]:
        outputs = [(line, project.inv(*line.split()).out) for line in lines]
        return [json.loads(out) for line, out in outputs if line.endswith("--json")]

    return run


def plans(project: Project) -> list[Any]:
    """Return a plan, and one of a run that would not start."""
    s3 = S3()
    s3.put("bucket", "file", b"1")
    project.write("onebox.toml", '[push]\ndata = ["s3://bucket/file"]\n')
    with s3.running() as address:
        project.environ.update(
            AWS_ENDPOINT_URL_S3=address,
            AWS_ACCESS_KEY_ID=s3.user.key,
            AWS_SECRET_ACCESS_KEY=s3.user.secret,
        )
        found = of_lines("plan --json")(project)
    project.write("onebox.toml", '[push]\ndata = ["gone/"]\n')
    return found + of_lines("plan --json")(project)


def graph(project: Project) -> list[Any]:
    """Return the graph of a project with stages of its own."""
    project.write("tasks.py", STAGES)
    return of_lines("plan --graph --json")(project)


def receipts(project: Project) -> list[Any]:
    """Return the receipt that the history names, and one of `map`."""
    (entry,) = of_lines("run", "history --json")(project)[0]["entries"]
    beside = project.read("results/onebox-receipt.json")
    assert beside == project.read(entry["receipt"])
    done = project.inv("map", "--over=n=1", "--", "true")
    assert 0 == done.code, done.err
    newest = max(project.root.glob(".onebox/jobs/*/receipt.json"))
    return [json.loads(beside), json.loads(newest.read_text())]


SOURCES = {
    "plan": plans,
    "graph": graph,
    "status": of_lines("run --keep", "status --json"),
    "history": of_lines("run", "history --json"),
    "offers": of_lines("offers --json"),
    "doctor": of_lines("doctor --json"),
    "settings": of_lines("doctor --settings --json"),
    "images": of_lines(
        "provision", "image --from-box --as=geo --yes", "image --list --json"
    ),
    "cleanup": of_lines(
        "provision", "image --from-box --as=geo --yes", "cleanup --yes --json"
    ),
    "error": of_lines("offers --vm=huge --json"),
    "receipt": receipts,
}


def names_of(kind: type, prefix: str) -> set[str]:
    """Return the paths of the fields of a data class."""
    return {prefix + field.name for field in fields(kind)}


# What the local box has not, or one run does not show.
UNSEEN = {
    "plan": documented("offer", "box.other_types[].").keys()
    | documented("offer", "box.other_sizes[].").keys(),
    "status": names_of(WaitingRun, "waiting.*[].") | names_of(UnderWay, "under_way[]."),
    "cleanup": names_of(ListedFreeObject, "free[].")
    | names_of(UnderWay, "under_way[]."),
    "receipt": names_of(EarlierBox, "attempts.earlier[].")
    | names_of(Receipt, "")
    | {"sent_by"},
}


class TestDocuments:
    @pytest.mark.parametrize("kind", SOURCES)
    def test_documents_have_the_documented_fields_and_no_others(
        self, project: Project, kind: str
    ) -> None:
        """Each field of a real document is documented, and each documented one real."""
        paths = {"schema_version": "integer", "kind": "string", **documented(kind)}
        found = SOURCES[kind](project)
        seen = {path for document in found for path in walk(document, paths)}
        assert found
        for document in found:
            assert (SCHEMA_VERSION, kind) == (
                document["schema_version"],
                document["kind"],
            )

        missing = {path for path in paths.keys() - seen if not path.endswith("*")}
        assert set() == missing - UNSEEN.get(kind, set())

    def test_each_section_is_a_document_or_a_shared_object(self) -> None:
        """No section is left over from an earlier version."""
        assert {*SOURCES, "offer", "command"} == SECTIONS.keys()

    def test_each_field_that_is_not_seen_is_documented(self) -> None:
        """What the local box does not have is documented too."""
        for kind, paths in UNSEEN.items():
            assert paths <= documented(kind).keys(), kind
