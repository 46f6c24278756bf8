"""One project of Compute Engine: what each method does there."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import filters, kinds
from .clockwork import ROOT, Later, Operations, fingerprint, now
from .discovery import Call
from .faults import Answer, refusal
from .instances import (
    Instances,
    InvalidError,
    check_items,
    check_labels,
    check_run_time,
)

PROJECT = "test-project"


class Project:
    """
    The state of the project, and its methods.

    Attributes:
        page: How many things a page of a list holds.

        unreachable: Zones that do not answer when all are asked.

        permitted: The permissions that the caller has; None: nobody can tell.
    """

    def __init__(self, seconds: float = 0.01) -> None:
        self.lock = threading.RLock()
        self.later = Later()
        self.operations = Operations(self.later, seconds)
        self.instances = Instances(self.later, self.operations)
        self.firewalls: dict[str, dict[str, Any]] = {}
        self.images = self.instances.images
        self.addresses: dict[tuple[str, str], dict[str, Any]] = {}
        self.page = 2
        self.unreachable: set[str] = set()
        self.permitted: set[str] | None = set()
        self.quota = {"CPUS": (4.0, 24.0), "IN_USE_ADDRESSES": (1.0, 8.0)}
        self._answered: dict[tuple[str, str], dict[str, Any]] = {}

    def answer(self, call: Call, error: str = "", message: str = "") -> Any:
        """
        Do what a call asks for; return the answer's body, or a refusal.

        Args:
            error: The code with which the operation is to fail.
        """
        with self.lock:
            self.later.run()
            handler = self._handlers().get(call.method)
            if handler is None:
                return refusal(501, f"{call.method} is not played here", "notPlayed")
            if call.path.get("zone", kinds.ALL_ZONES[0]) not in kinds.ALL_ZONES:
                return _unknown(f"projects/{PROJECT}/zones/{call.path['zone']}")
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
        """Let everything happen whose time has come."""
        with self.lock:
            self.later.run()

    def instance(self, name: str) -> dict[str, Any]:
        """Return an instance by its name, for a test to look at or to change."""
        self.settle()
        [found] = [one for (_, its), one in self.instances.all.items() if its == name]
        return found

    def preempt(self, name: str) -> None:
        """Take a spot instance back."""
        with self.lock:
            self.instances.stop(self.instance(name), "compute.instances.preempted")

    def power_off(self, name: str) -> None:
        """Have an instance switch itself off."""
        with self.lock:
            kind = "compute.instances.guestTerminate"
            self.instances.stop(self.instance(name), kind)

    def _handlers(self) -> Mapping[str, Callable[[Call, str, str], Any]]:
        return {
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
            "compute.machineTypes.list": self._machine_types,
            "compute.regions.get": self._region,
            "compute.projects.get": self._project,
            "compute.firewalls.list": self._firewall_list,
            "compute.firewalls.insert": self._firewall_insert,
            "compute.firewalls.patch": self._firewall_patch,
            "compute.firewalls.delete": self._firewall_delete,
            "compute.images.get": self._image,
            "compute.images.getFromFamily": self._family,
            "compute.images.list": self._image_list,
            "compute.images.insert": self._image_insert,
            "compute.images.delete": self._image_delete,
            "compute.images.patch": self._image_patch,
            "compute.images.setLabels": self._image_labels,
        }

    # -- instances -------------------------------------------------------------

    def _insert(self, call: Call, error: str, message: str) -> Any:
        zone, name = call.path["zone"], call.body["name"]
        if (zone, name) in self.instances.all:
            return _exists(f"projects/{PROJECT}/zones/{zone}/instances/{name}")
        return self.instances.insert(zone, call.body, error, message)

    def _instance_get(self, call: Call, error: str, message: str) -> Any:
        return self._found(call)

    def _instances_everywhere(self, call: Call, error: str, message: str) -> Any:
        shown = [
            one
            for zone, name in self.instances.all
            for one in [self.instances.shown(zone, name)]
            if one is not None
        ]
        return self._scoped("instances", shown, call)

    def _instance_delete(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        if found.get("deletionProtection"):
            said = "Invalid resource usage: 'Resource cannot be deleted: deletion "
            return refusal(412, f"{said}protection is on'.", "conditionNotMet")
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
        return self.operations.begin("setLabels", found, _zone(call))

    def _set_metadata(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        if call.body.get("fingerprint") != found["metadata"]["fingerprint"]:
            return refusal(412, "Supplied fingerprint is stale.", "conditionNotMet")
        check_items(call.body["items"])
        mark = fingerprint(call.body["items"])
        found["metadata"] = {"items": call.body["items"], "fingerprint": mark}
        return self.operations.begin("setMetadata", found, _zone(call))

    def _set_scheduling(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        if found["status"] != "TERMINATED":
            raise InvalidError("the run time can only be set while it is stopped")
        check_run_time(call.body)
        found["scheduling"] = dict(call.body)
        return self.operations.begin("setScheduling", found, _zone(call))

    def _set_machine_type(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        wanted = call.body["machineType"]
        zone = call.path["zone"]
        known = {t["name"] for t in kinds.machine_types(zone)}
        if found["status"] != "TERMINATED" or wanted.rpartition("/")[2] not in known:
            raise InvalidError("the machine type can be changed while it is stopped")
        found["machineType"] = f"{ROOT}/{wanted}"
        return self.operations.begin("setMachineType", found, _zone(call))

    def _guest_attributes(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        path = call.query.get("queryPath", "")
        told = {
            key: value
            for key, value in self.instances.attributes(found["name"]).items()
            if key.startswith(path)
        }
        if not told:
            return _unknown(f"guestAttributes/{path}")
        items = [
            {"namespace": key.partition("/")[0], "key": key.partition("/")[2]}
            | {"value": value}
            for key, value in told.items()
        ]
        return {"queryPath": path, "queryValue": {"items": items}}

    def _console(self, call: Call, error: str, message: str) -> Any:
        found = self._found(call)
        if isinstance(found, Answer):
            return found
        said = "".join(f"[    {n}.0] {found['name']} boots\r\n" for n in range(100))
        return {"contents": said, "next": str(len(said)), "start": "0"}

    def _permissions(self, call: Call, error: str, message: str) -> Any:
        if self.permitted is None:
            return _unknown(f"instances/{call.path['resource']}")
        asked = call.body["permissions"]
        return {"permissions": [one for one in asked if one in self.permitted]}

    def _found(self, call: Call) -> Any:
        zone, name = call.path["zone"], call.path["instance"]
        found = self.instances.shown(zone, name)
        missing = _unknown(f"projects/{PROJECT}/zones/{zone}/instances/{name}")
        return missing if found is None else found

    # -- operations, disks, addresses ------------------------------------------

    def _operation(self, call: Call, error: str, message: str) -> Any:
        found = self.operations.all.get(call.path["operation"])
        right = found is not None and (
            found.get("zone", "").rpartition("/")[2] == call.path.get("zone", "")
        )
        return found if right else _unknown(f"operations/{call.path['operation']}")

    def _zone_operations(self, call: Call, error: str, message: str) -> Any:
        zone = f"{ROOT}/zones/{call.path['zone']}"
        mine = (one for one in self.operations.all.values() if one.get("zone") == zone)
        return self._paged(mine, call)

    def _disks(self, call: Call, error: str, message: str) -> Any:
        here = (
            disk
            for (zone, _), disk in self.instances.disks.items()
            if zone == call.path["zone"]
        )
        return self._paged(here, call)

    def _disks_everywhere(self, call: Call, error: str, message: str) -> Any:
        return self._scoped("disks", self.instances.disks.values(), call)

    def _disk_delete(self, call: Call, error: str, message: str) -> Any:
        key = call.path["zone"], call.path["disk"]
        disk = self.instances.disks.get(key)
        if disk is None:
            return _unknown(f"projects/{PROJECT}/zones/{key[0]}/disks/{key[1]}")
        if disk["users"]:
            said = f"The disk resource '{key[1]}' is already being used"
            return refusal(400, said, "resourceInUseByAnotherResource")
        return self.operations.begin(
            "delete", disk, _zone(call), lambda: _drop(self.instances.disks, key)
        )

    def _addresses(self, call: Call, error: str, message: str) -> Any:
        here = (
            address
            for (region, _), address in self.addresses.items()
            if region == call.path["region"]
        )
        return self._paged(here, call)

    def _addresses_everywhere(self, call: Call, error: str, message: str) -> Any:
        return self._scoped("addresses", self.addresses.values(), call)

    # -- what there is to choose from ------------------------------------------

    def _machine_types(self, call: Call, error: str, message: str) -> Any:
        return self._paged(kinds.machine_types(call.path["zone"]), call)

    def _region(self, call: Call, error: str, message: str) -> Any:
        region = call.path["region"]
        if region not in kinds.ZONES:
            return _unknown(f"projects/{PROJECT}/regions/{region}")
        return {
            "kind": "compute#region",
            "name": region,
            "status": "UP",
            "zones": [f"{ROOT}/zones/{zone}" for zone in kinds.ZONES[region]],
            "quotas": [
                {"metric": metric, "usage": usage, "limit": limit}
                for metric, (usage, limit) in self.quota.items()
            ],
        }

    def _project(self, call: Call, error: str, message: str) -> Any:
        return {"kind": "compute#project", "name": PROJECT, "id": "42", "quotas": []}

    # -- firewall rules --------------------------------------------------------

    def _firewall_list(self, call: Call, error: str, message: str) -> Any:
        return self._paged(self.firewalls.values(), call)

    def _firewall_insert(self, call: Call, error: str, message: str) -> Any:
        name = call.body["name"]
        if name in self.firewalls:
            return _exists(f"projects/{PROJECT}/global/firewalls/{name}")
        rule = {**call.body, "kind": "compute#firewall", "id": str(hash(name) % 10**9)}
        rule["network"] = f"https://www.googleapis.com/compute/v1/{rule['network']}"
        self.firewalls[name] = rule
        return self._ruled("insert", call, rule)

    def _firewall_patch(self, call: Call, error: str, message: str) -> Any:
        rule = self.firewalls.get(call.path["firewall"])
        if rule is None:
            return _unknown(f"global/firewalls/{call.path['firewall']}")
        network = f"https://www.googleapis.com/compute/v1/{call.body['network']}"
        rule.update(call.body, network=network)
        return self._ruled("patch", call, rule)

    def _firewall_delete(self, call: Call, error: str, message: str) -> Any:
        name = call.path["firewall"]
        if name not in self.firewalls:
            return _unknown(f"projects/{PROJECT}/global/firewalls/{name}")
        rule = self.firewalls[name]
        return self._ruled("delete", call, rule, lambda: _drop(self.firewalls, name))

    def _ruled(
        self,
        kind: str,
        call: Call,
        rule: dict[str, Any],
        done: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        project = call.path["project"]
        return self.operations.begin(kind, rule, {}, done, project=project)

    # -- images ----------------------------------------------------------------

    def _image(self, call: Call, error: str, message: str) -> Any:
        found = self.images.get(call.path["image"])
        missing = f"projects/{PROJECT}/global/images/{call.path['image']}"
        return _unknown(missing) if found is None else found

    def _family(self, call: Call, error: str, message: str) -> Any:
        key = call.path["project"], call.path["family"]
        name = kinds.FAMILIES.get(key)
        if name is None:
            return _unknown(f"projects/{key[0]}/global/images/family/{key[1]}")
        licenses = [f"https://www.googleapis.com/compute/v1/projects/{key[0]}/x"]
        return {"name": name, "family": key[1], "licenses": licenses}

    def _image_list(self, call: Call, error: str, message: str) -> Any:
        return self._paged(self.images.values(), call)

    def _image_insert(self, call: Call, error: str, message: str) -> Any:
        name = call.body["name"]
        if name in self.images:
            return _exists(f"projects/{PROJECT}/global/images/{name}")
        source = call.body["sourceDisk"].split("/")
        disk = self.instances.disks.get((source[-3], source[-1]))
        if disk is None:
            return _unknown(call.body["sourceDisk"])
        check_labels(call.body.get("labels", {}))
        using = self.instances.all.get((source[-3], source[-1]), {"status": ""})
        if disk["users"] and using["status"] != "TERMINATED":
            said = "The disk resource is already being used by an instance"
            return refusal(400, said, "resourceInUseByAnotherResource")
        image = {
            **call.body,
            "kind": "compute#image",
            "id": str(abs(hash(name))),
            "status": "PENDING",
            "creationTimestamp": now(),
            "diskSizeGb": disk["sizeGb"],
            "archiveSizeBytes": str(1 << 30),
            "architecture": disk["architecture"],
            "labelFingerprint": fingerprint(call.body.get("labels")),
            "licenses": [],
        }
        self.images[name] = image

        def ready() -> None:
            image["status"] = "FAILED" if error else "READY"
            if self.instances.hardware:
                self.instances.hardware.save(source[-1], name)

        return self.operations.begin(
            "insert", image, {}, ready, error=error, message=message
        )

    def _image_delete(self, call: Call, error: str, message: str) -> Any:
        name = call.path["image"]
        if name not in self.images:
            return _unknown(f"projects/{PROJECT}/global/images/{name}")
        image = self.images[name]
        return self.operations.begin(
            "delete", image, {}, lambda: _drop(self.images, name)
        )

    def _image_patch(self, call: Call, error: str, message: str) -> Any:
        found = self._image(call, error, message)
        if isinstance(found, Answer):
            return found
        if not set(call.body) <= {"family", "description", "deprecated"}:
            raise InvalidError("of an image only its description can be changed")
        found.update(call.body)
        return self.operations.begin("patch", found, {})

    def _image_labels(self, call: Call, error: str, message: str) -> Any:
        found = self.images.get(call.path["resource"])
        if found is None:
            return _unknown(f"global/images/{call.path['resource']}")
        if call.body.get("labelFingerprint") != found["labelFingerprint"]:
            return refusal(412, "Labels fingerprint is invalid.", "conditionNotMet")
        check_labels(call.body["labels"])
        found["labels"] = dict(call.body["labels"])
        return self.operations.begin("setLabels", found, {})

    # -- lists -----------------------------------------------------------------

    def _paged(self, found: Iterable[dict[str, Any]], call: Call) -> dict[str, Any]:
        """Return one page of a list, filtered."""
        test = filters.parse(call.query.get("filter", ""))
        fitting = [one for one in found if test(one)]
        first = int(call.query.get("pageToken", "0"))
        answer: dict[str, Any] = {"items": fitting[first : first + self.page]}
        if first + self.page < len(fitting):
            answer["nextPageToken"] = str(first + self.page)
        return answer

    def _scoped(
        self, kind: str, found: Iterable[dict[str, Any]], call: Call
    ) -> dict[str, Any]:
        """Return one page of what there is in all zones, zone by zone."""
        page = self._paged(found, call)
        scopes: dict[str, Any] = {
            f"zones/{zone}": {"warning": _warning("NO_RESULTS_ON_PAGE", zone)}
            for zone in kinds.ALL_ZONES
        }
        for one in page["items"]:
            where = one.get("zone", one.get("region", ""))
            scope = f"{'zones' if 'zone' in one else 'regions'}/{where.split('/')[-1]}"
            if kind not in scopes.get(scope, {}):
                scopes[scope] = {kind: []}
            scopes[scope][kind].append(one)
        for zone in self.unreachable:
            scopes[f"zones/{zone}"] = {"warning": _warning("UNREACHABLE", zone)}
        return {**page, "items": scopes}


def _drop(things: dict[Any, Any], key: Any) -> None:
    things.pop(key, None)


def _warning(code: str, zone: str) -> dict[str, Any]:
    data = [{"key": "scope", "value": f"zones/{zone}"}]
    return {"code": code, "message": f"'{zone}': {code}", "data": data}


def _zone(call: Call) -> dict[str, str]:
    return {"zone": call.path["zone"]}


def _unknown(what: str) -> Answer:
    return refusal(404, f"The resource '{what}' was not found", "notFound")


def _exists(what: str) -> Answer:
    return refusal(409, f"The resource '{what}' already exists", "alreadyExists")


def _is_uuid(text: str) -> bool:
    try:
        return uuid.UUID(text).int != 0
    except ValueError:
        return False
