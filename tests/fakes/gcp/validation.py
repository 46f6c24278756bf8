"""Checks of values that the API's description allows and Compute Engine refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.fakes.gcp import catalog

_LABEL_KEY = re.compile(r"[a-z][-_a-z0-9]{0,62}")
_LABEL_VALUE = re.compile(r"[-_a-z0-9]{0,63}")
_NETWORK_TAG = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_METADATA_KEY = re.compile(r"[a-zA-Z0-9-_]{1,128}")
_EMAIL = re.compile(r"[a-z0-9.:-]+@[a-z0-9.-]+gserviceaccount\.com")
_SCOPES = "https://www.googleapis.com/auth/"
_VALUE_BYTES, _ALL_BYTES = 256 << 10, 512 << 10


class InvalidError(Exception):
    """A well-formed request that Compute Engine refuses."""


def check(zone: str, body: Mapping[str, Any], images: Mapping[str, Any]) -> None:
    """Raise InvalidError for an insert that Compute Engine refuses."""
    for one in (_check_machine, _check_scheduling, _check_names, _check_metadata):
        one(zone, body)
    _check_service_accounts(body)
    _check_disk(zone, body, images)


def _check_machine(zone: str, body: Mapping[str, Any]) -> None:
    wanted = body["machineType"]
    known = {
        f"zones/{zone}/machineTypes/{m['name']}" for m in catalog.machine_types(zone)
    }
    if wanted not in known:
        raise InvalidError(
            "Invalid value for field 'resource.machineType': "
            f"'projects/test-project/{wanted}'. The referenced resource does not exist."
        )


def _check_service_accounts(body: Mapping[str, Any]) -> None:
    found = body.get("serviceAccounts", ())
    if len(found) > 1:
        raise InvalidError("Only one service account per VM instance is supported.")
    for account in found:
        email, scopes = account.get("email", ""), account.get("scopes", ())
        if not _EMAIL.fullmatch(email):
            raise InvalidError(
                "Invalid value for field 'resource.serviceAccounts[0].email': "
                f"'{email}'. The service account email is not valid."
            )
        for place, scope in enumerate(scopes):
            if not scope.startswith(_SCOPES):
                raise InvalidError(
                    "Invalid value for field "
                    f"'resource.serviceAccounts[0].scopes[{place}]': '{scope}'."
                )


def _check_scheduling(zone: str, body: Mapping[str, Any]) -> None:
    wanted = body["scheduling"]
    check_run_time(wanted)
    check_maintenance(last(body["machineType"]), wanted)
    if wanted["provisioningModel"] == "SPOT":
        if wanted.get("automaticRestart", True):
            raise InvalidError("Scheduling must have automatic restart be false.")
        if wanted.get("onHostMaintenance", "MIGRATE") != "TERMINATE":
            raise InvalidError("Scheduling must have on host maintenance TERMINATE.")


def check_maintenance(type_: str, wanted: Mapping[str, Any]) -> None:
    """Refuse live migration for a type that does not support it."""
    if wanted.get("onHostMaintenance", "MIGRATE") == "TERMINATE":
        return
    if type_ in catalog.ACCELERATORS:
        raise InvalidError(
            "Instances with guest accelerators do not support live migration."
        )
    if type_.endswith("-metal"):
        raise InvalidError(f"{type_} does not support live migration.")


def last(address: str) -> str:
    """Return the name at the end of an address."""
    return address.rpartition("/")[2]


def check_run_time(wanted: Mapping[str, Any]) -> None:
    """Refuse a run time out of range, or without a termination action."""
    if "maxRunDuration" in wanted:
        seconds = int(wanted["maxRunDuration"]["seconds"])
        if not 30 <= seconds <= 120 * 86400:
            raise InvalidError("maxRunDuration must be from 30 seconds to 120 days")
        if "instanceTerminationAction" not in wanted:
            raise InvalidError("a limited run time requires a termination action")


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse invalid labels."""
    if len(labels) > 64:
        raise InvalidError("more than 64 labels")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise InvalidError(
                "Invalid value for field 'resource.labels': "
                f"'{key}={value}'. Label is not valid."
            )


def _check_names(zone: str, body: Mapping[str, Any]) -> None:
    check_labels(body.get("labels", {}))
    for tag in body.get("tags", {}).get("items", ()):
        if not _NETWORK_TAG.fullmatch(tag):
            raise InvalidError(f"Invalid value for field 'resource.tags': '{tag}'.")
    interface = body["networkInterfaces"][0]
    network = interface.get("network", "")
    if not network.endswith(("/networks/default", "/networks/lab")):
        raise InvalidError(
            f"Invalid value for field 'resource.networkInterfaces[0].network': "
            f"'{network}'. The referenced network resource cannot be found."
        )
    subnet = interface.get("subnetwork", "")
    region = zone.rpartition("-")[0]
    if subnet and f"/regions/{region}/subnetworks/" not in subnet:
        raise InvalidError(f"The subnetwork '{subnet}' is in another region.")


def _check_metadata(zone: str, body: Mapping[str, Any]) -> None:
    check_items(body.get("metadata", {}).get("items", ()))


def check_items(items: Any) -> None:
    """Refuse metadata with an invalid or repeated key, or of too many bytes."""
    keys = [item["key"] for item in items]
    sizes = [len(item["value"].encode()) for item in items]
    if len(set(keys)) != len(keys):
        raise InvalidError("a metadata key occurs twice")
    if not all(_METADATA_KEY.fullmatch(key) for key in keys):
        raise InvalidError("a metadata key is not valid")
    if max(sizes, default=0) > _VALUE_BYTES or sum(sizes) > _ALL_BYTES:
        raise InvalidError("metadata is too large")


def _check_disk(
    zone: str, body: Mapping[str, Any], images: Mapping[str, Mapping[str, Any]]
) -> None:
    wanted = body["disks"][0]["initializeParams"]
    check_labels(wanted.get("labels", {}))
    kind = body["machineType"].rpartition("/")[2].partition("-")[0]
    if wanted["diskType"].rpartition("/")[2] not in catalog.DISKS[kind]:
        raise InvalidError(f"{wanted['diskType']} cannot be used with {kind}")
    source = wanted["sourceImage"]
    family = re.fullmatch(r"projects/([^/]+)/global/images/family/([^/]+)", source)
    own = re.fullmatch(r"projects/test-project/global/images/([^/]+)", source)
    if family and family.groups() in catalog.FAMILIES:
        return
    if own and own[1] in images:
        if int(wanted["diskSizeGb"]) < int(images[own[1]]["diskSizeGb"]):
            raise InvalidError("the disk is smaller than its image")
        return
    raise InvalidError(
        f"Invalid value for field 'resource.disks[0].initializeParams.sourceImage': "
        f"'{source}'. The referenced image resource cannot be found."
    )
