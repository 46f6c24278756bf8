"""The project, and the API methods of its instances, disks and addresses."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from typing import Any

from tests.fakes.gcp import catalog, filters
from tests.fakes.gcp.faults import Answer, no_access, refusal
from tests.fakes.gcp.lists import PROJECT, drop, exists, unknown, zone_of
from tests.fakes.gcp.operations import ROOT, fingerprint
from tests.fakes.gcp.resources import Handler, Resources
from tests.fakes.gcp.schema import Call
from tests.fakes.gcp.validation import (
    InvalidError,
    check_items,
    check_labels,
    check_maintenance,
    check_run_time,
    last,
)


class Account(Resources):
    """
    A Google Cloud project.

    Attributes:
        permitted: The permissions of the caller; None: the API cannot answer.

        required_label: The key of a label without which nothing that can have labels
            may be created, "" if no label is required.

        service_accounts: The emails of the project's service accounts, and whether the
            caller may attach each.
    """

    def __init__(self, seconds: float = 0.01) -> None:
        super().__init__(seconds)
        self.lock = threading.RLock()
        self.addresses: dict[tuple[str, str], dict[str, Any]] = {}
        self.permitted: set[str] | None = set()
        self.service_accounts: dict[str, bool] = {}
        self._answered: dict[tuple[str, str], dict[str, Any]] = {}

    def answer(self, call: Call, error: str = "", message: str = "") -> Any:
        """
        Carry out a call; return the body of its response, or a refusal.

        Args:
            error: The code with which the call's operation fails.
        """
        with self.lock:
            self.later.run()
            handler = self.handlers().get(call.method)
            if handler is None:
                return refusal(
                    501, f"the fake has no method {call.method}", "notImplemented"
                )
            if call.path.get("zone", catalog.ALL_ZONES[0]) not in catalog.ALL_ZONES:
                return unknown(f"projects/{PROJECT}/zones/{call.path['zone']}")
            token = call.query.get("requestId", "")
            if token and not _is_uuid(token):
                return refusal(400, "Invalid value for field 'requestId'.", "invalid")
            if token and (call.method, token) in self._answered:
                return self._answered[call.method, token]
            try:
                found = handler(call, error, message)
            except (InvalidError, filters.FilterError) as refused:
                return refusal(400, str(refused), "invalid")
            if token and not isinstance(found, Answer):
                self._answered[call.method, token] = found
            return found

    def settle(self) -> None:
        """Run the events that are due."""
        with self.lock:
            self.later.run()

    def instance(self, name: str) -> dict[str, Any]:
        """Return an instance by its name; a test may change it."""
        self.settle()
        [found] = [one for (_, its), one in self.instances.all.items() if its == name]
        return found

    def preempt(self, name: str) -> None:
        """Preempt a spot instance."""
        with self.lock:
            self.instances.stop(self.instance(name), "compute.instances.preempted")

    def power_off(self, name: str) -> None:
        """Power an instance off from inside."""
        with self.lock:
            kind = "compute.instances.guestTerminate"
            self.instances.stop(self.instance(name), kind)

    def handlers(self) -> Mapping[str, Handler]:
        """Return the function of each API method."""
        return {
            **super().handlers(),
            "compute.instances.insert": self._insert,
            "compute.instances.get": self._instance_get,
            "compute.instances.aggregatedList": self._instances_everywhere,
            "compute.instances.delete": self._instance_delete,
            "compute.instances.start": self._start,
            "compute.instances.stop": self._stop,
            "compute.instances.setLabels": self._set_labels,
            "compute.instances.setMetadata": self._set_metadata,
            "compute.instances.setScheduling": self._set_scheduling,
            "compute.instances.setMachineType": self._set_machine_type,
            "compute.instances.getGuestAttributes": self._guest_attributes,
            "compute.instances.getSerialPortOutput": self._console,
            "compute.instances.testIamPermissions": self._permissions,
            "compute.zoneOperations.get": self._operation,
            "compute.zoneOperations.list": self._zone_operations,
            "compute.globalOperations.get": self._operation,
            "compute.disks.list": self._disks,
            "compute.disks.aggregatedList": self._disks_everywhere,
            "compute.disks.delete": self._disk_delete,
            "compute.addresses.list": self._addresses,
            "compute.addresses.aggregatedList": self._addresses_everywhere,
        }

    # -- instances -------------------------------------------------------------

    def _insert(self, call: Call, error: str, message: str) -> Any:
        zone, name = call.path["zone"], call.body["name"]
        if (zone, name) in self.instances.all:
            return exists(f"projects/{PROJECT}/zones/{zone}/instances/{name}")
        self.require_label(call.body)
        self.require_label(call.body["disks"][0]["initializeParams"])
        if not error:
            error, message = self._refused_identity(call.body)
        return self.instances.insert(zone, call.body, error, message)

    def _refused_identity(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """Return code and message of Google for an insert's service account."""
        for one in body.get("serviceAccounts", ()):
            email = one.get("email", "")
            if email not in self.service_accounts:
                text = f"The resource 'One of [{email}]' of type 'serviceAccount' was "
                return "RESOURCE_NOT_FOUND", f"{text}not found."
            if not self.service_accounts[email]:
                return "SERVICE_ACCOUNT_ACCESS_DENIED", no_access(email)
        return "", ""

    def _instance_get(self, call: Call, error: str, message: str) -> Any:
        return self._found(call)

    def _instances_everywhere(self, call: Call, error: str, message: str) -> Any:
        shown = [
            one
            for zone, name in self.instances.all
            for one in [self.instances.shown(zone, name)]
            if one is not None
        ]
        return self.scoped("instances", shown, call)

    def _instance_delete(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        if found.get("deletionProtection"):
            text = "Invalid resource usage: 'Resource cannot be deleted: deletion "
            return refusal(412, f"{text}protection is on'.", "conditionNotMet")
        return self.instances.delete(found, error)

    def _start(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        return (
            found if isinstance(found, Answer) else self.instances.start(found, error)
        )

    def _stop(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        return found if isinstance(found, Answer) else self.instances.stop(found)

    def _set_labels(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        if call.body.get("labelFingerprint") != found["labelFingerprint"]:
            return refusal(412, "Labels fingerprint is invalid.", "conditionNotMet")
        check_labels(call.body["labels"])
        found["labels"] = dict(call.body["labels"])
        found["labelFingerprint"] = fingerprint(found["labels"])
        return self.operations.begin("setLabels", found, zone_of(call))

    def _set_metadata(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        if call.body.get("fingerprint") != found["metadata"]["fingerprint"]:
            return refusal(412, "Supplied fingerprint is stale.", "conditionNotMet")
        check_items(call.body["items"])
        mark = fingerprint(call.body["items"])
        found["metadata"] = {"items": call.body["items"], "fingerprint": mark}
        return self.operations.begin("setMetadata", found, zone_of(call))

    def _set_scheduling(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        if found["status"] != "TERMINATED":
            raise InvalidError("the run time can only be set while it is stopped")
        check_run_time(call.body)
        check_maintenance(last(found["machineType"]), call.body)
        found["scheduling"] = dict(call.body)
        return self.operations.begin("setScheduling", found, zone_of(call))

    def _set_machine_type(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        wanted = call.body["machineType"]
        zone = call.path["zone"]
        known = {t["name"] for t in catalog.machine_types(zone)}
        if found["status"] != "TERMINATED" or wanted.rpartition("/")[2] not in known:
            raise InvalidError("the machine type can be changed while it is stopped")
        found["machineType"] = f"{ROOT}/{wanted}"
        return self.operations.begin("setMachineType", found, zone_of(call))

    def _guest_attributes(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        path = call.query.get("queryPath", "")
        attributes = {
            key: value
            for key, value in self.instances.attributes(found["name"]).items()
            if key.startswith(path)
        }
        if not attributes:
            return unknown(f"guestAttributes/{path}")
        items = [
            {"namespace": key.partition("/")[0], "key": key.partition("/")[2]}
            | {"value": value}
            for key, value in attributes.items()
        ]
        return {"queryPath": path, "queryValue": {"items": items}}

    def _console(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        text = "".join(f"[    {n}.0] {found['name']} boots\r\n" for n in range(100))
        return {"contents": text, "next": str(len(text)), "start": "0"}

    def _permissions(self, call: Call, error: str, message: str) -> Any:
        if call.path["zone"] not in catalog.ALL_ZONES:
            return unknown(f"zones/{call.path['zone']}")
        if self.permitted is None:
            return unknown(f"instances/{call.path['resource']}")
        asked = call.body["permissions"]
        return {"permissions": [one for one in asked if one in self.permitted]}

    def _found(self, call: Call) -> Any:
        zone, name = call.path["zone"], call.path["instance"]
        found = self.instances.shown(zone, name)
        missing = unknown(f"projects/{PROJECT}/zones/{zone}/instances/{name}")
        return missing if found is None else found

    # -- operations, disks, addresses ------------------------------------------

    def _operation(self, call: Call, error: str, message: str) -> Any:
        found = self.operations.all.get(call.path["operation"])
        right = found is not None and (
            found.get("zone", "").rpartition("/")[2] == call.path.get("zone", "")
        )
        return found if right else unknown(f"operations/{call.path['operation']}")

    def _zone_operations(self, call: Call, error: str, message: str) -> Any:
        zone = f"{ROOT}/zones/{call.path['zone']}"
        mine = (one for one in self.operations.all.values() if one.get("zone") == zone)
        return self.paged(mine, call)

    def _disks(self, call: Call, error: str, message: str) -> Any:
        here = (
            disk
            for (zone, _), disk in self.instances.disks.items()
            if zone == call.path["zone"]
        )
        return self.paged(here, call)

    def _disks_everywhere(self, call: Call, error: str, message: str) -> Any:
        return self.scoped("disks", self.instances.disks.values(), call)

    def _disk_delete(self, call: Call, error: str, message: str) -> Any:
        key = call.path["zone"], call.path["disk"]
        disk = self.instances.disks.get(key)
        if disk is None:
            return unknown(f"projects/{PROJECT}/zones/{key[0]}/disks/{key[1]}")
        if disk["users"]:
            text = f"The disk resource '{key[1]}' is already being used"
            return refusal(400, text, "resourceInUseByAnotherResource")
        return self.operations.begin(
            "delete", disk, zone_of(call), lambda: drop(self.instances.disks, key)
        )

    def _addresses(self, call: Call, error: str, message: str) -> Any:
        here = (
            address
            for (region, _), address in self.addresses.items()
            if region == call.path["region"]
        )
        return self.paged(here, call)

    def _addresses_everywhere(self, call: Call, error: str, message: str) -> Any:
        return self.scoped("addresses", self.addresses.values(), call)


def _is_uuid(text: str) -> bool:
    try:
        return uuid.UUID(text).int != 0
    except ValueError:
        return False
