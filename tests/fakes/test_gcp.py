"""The fake Compute Engine refuses what Compute Engine refuses."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.gcp.account import Account
from tests.fakes.gcp.server import Server, serving

INSTANCES = "/compute/v1/projects/test-project/zones/us-central1-a/instances"
BODY = {
    "name": "ob-1",
    "machineType": "zones/us-central1-a/machineTypes/n2d-standard-4",
    "labels": {"a": "b"},
    "scheduling": {"provisioningModel": "STANDARD"},
    "networkInterfaces": [{"network": "projects/test-project/global/networks/default"}],
    "disks": [
        {
            "boot": True,
            "initializeParams": {
                "diskType": "zones/us-central1-a/diskTypes/pd-balanced",
                "sourceImage": "projects/debian-cloud/global/images/family/debian-12",
            },
        }
    ],
}


@pytest.fixture
def server() -> Iterator[Server]:
    """The server, which may refuse here."""
    with serving(Account()) as server:
        yield server


def send(server: Server, verb: str, path: str, body: object = None) -> tuple[int, Any]:
    """Send a request by hand; return the status and what was answered."""
    raw = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}
    url = server.address + path
    request = urllib.request.Request(url, raw, headers, method=verb)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_fake_server_accepts_described_requests(server: Server) -> None:
    """Google's description is the measure."""
    assert send(server, "POST", INSTANCES, BODY)[0] == 200
    assert server.refused == []


@pytest.mark.parametrize(
    "change",
    [
        {"nmae": "x"},
        {"name": "Ob_1"},
        {"name": 1},
        {"name": None},
        {"labels": ["a"]},
        {"labels": {"a": 1}},
        {"scheduling": {"provisioningModel": "SPOTTY"}},
        {"scheduling": {"automaticRestart": "false"}},
        {"scheduling": {"maxRunDuration": {"seconds": 60}}},
        {"scheduling": {"maxRunDuration": {"seconds": "a while"}}},
        {"disks": [{"boot": True, "initializeParams": {"disksizeGb": "1"}}]},
        {"disks": [{"boot": True, "initializeParams": {"diskSizeGb": 10}}]},
        {"status": "RUNNING"},
        {"id": "1"},
        {"metadata": {"items": [{"key": "a b", "value": "x"}]}},
    ],
)
def test_the_fake_server_refuses_undescribed_bodies(
    server: Server, change: dict[str, Any]
) -> None:
    """A wrong name, type or value is refused."""
    body = {
        key: value for key, value in {**BODY, **change}.items() if value is not None
    }
    assert send(server, "POST", INSTANCES, body)[0] == 400
    assert len(server.refused) == 1


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", f"{INSTANCES}?fliter=x"),
        ("GET", f"{INSTANCES}?maxResults=many"),
        ("GET", f"{INSTANCES}?returnPartialSuccess=yes"),
        ("GET", "/compute/v1/projects/test-project/zones/Us/instances"),
        ("GET", "/compute/v1/projects/test-project/nowhere"),
        ("PUT", INSTANCES),
        ("POST", INSTANCES),
    ],
)
def test_the_fake_server_refuses_undescribed_addresses(
    server: Server, verb: str, path: str
) -> None:
    """So is a wrong method or parameter."""
    assert send(server, verb, path)[0] == 400
    assert len(server.refused) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"A": "b"}},
        {"labels": {"a": "B.c"}},
        {"labels": {f"k{n}": "v" for n in range(65)}},
        {"tags": {"items": ["Under_score"]}},
        {"scheduling": {"provisioningModel": "SPOT"}},
        {
            "scheduling": {"provisioningModel": "STANDARD"}
            | {"maxRunDuration": {"seconds": "5"}}
        },
        {"metadata": {"items": [{"key": "a", "value": "x" * (257 << 10)}]}},
        {"metadata": {"items": [{"key": "a", "value": "x"}] * 2}},
        {"machineType": "zones/us-central1-b/machineTypes/n2d-standard-4"},
        {"machineType": "zones/us-central1-a/machineTypes/g2-standard-4"},
        {"machineType": "zones/us-central1-a/machineTypes/c3-standard-192-metal"},
        {"machineType": "zones/us-central1-a/machineTypes/n4-standard-4"},
    ],
)
def test_the_fake_server_refuses_impossible_values(
    server: Server, change: dict[str, Any]
) -> None:
    """As Compute Engine does."""
    status, answer = send(server, "POST", INSTANCES, {**BODY, **change})
    assert status == 400, answer


def test_one_request_id_is_one_operation(server: Server) -> None:
    """Only a UUID is accepted."""
    token = "?requestId=6f6e6562-6f78-5000-8000-676370000001"
    first = send(server, "POST", INSTANCES + token, BODY)
    again = send(server, "POST", INSTANCES + token, BODY)
    assert json.loads(first[1])["name"] == json.loads(again[1])["name"]
    assert send(server, "POST", INSTANCES, BODY)[0] == 409
    for wrong in ("x", "00000000-0000-0000-0000-000000000000"):
        path = f"{INSTANCES}?requestId={wrong}"
        assert send(server, "POST", path, {**BODY, "name": "ob-2"})[0] == 400


@pytest.mark.parametrize(
    "text", ["a%20=", "(a%20=%20b", "a%20=%20b%20AND%20c%20=%20d%20OR%20e%20=%20f"]
)
def test_the_fake_server_refuses_unreadable_filters(server: Server, text: str) -> None:
    """It does not ignore them."""
    path = "/compute/v1/projects/test-project/zones/us-central1-a/machineTypes"
    assert send(server, "GET", f"{path}?filter={text}")[0] == 400
