"""The API methods of machine types, regions, firewall rules and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.gcp import catalog
from tests.fakes.gcp.faults import Answer, refusal
from tests.fakes.gcp.lists import PROJECT, Lists, drop, exists, unknown
from tests.fakes.gcp.operations import ROOT, fingerprint, now
from tests.fakes.gcp.schema import Call
from tests.fakes.gcp.validation import InvalidError, check_labels

Handler = Callable[[Call, str, str], Any]


class Resources(Lists):
    """
    The methods of machine types, regions, firewall rules and images.

    Attributes:
        quota: The used amount and the limit of each quota, in every region.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.firewalls: dict[str, dict[str, Any]] = {}
        self.images = self.instances.images
        self.required_label = ""
        self.quota = {"CPUS": (4.0, 24.0), "IN_USE_ADDRESSES": (1.0, 8.0)}

    def handlers(self) -> Mapping[str, Handler]:
        """Return the function of each API method."""
        return {
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

    def _machine_types(self, call: Call, error: str, message: str) -> Any:
        return self.paged(catalog.machine_types(call.path["zone"]), call)

    def _region(self, call: Call, error: str, message: str) -> Any:
        region = call.path["region"]
        if region not in catalog.ZONES:
            return unknown(f"projects/{PROJECT}/regions/{region}")
        return {
            "kind": "compute#region",
            "name": region,
            "status": "UP",
            "zones": [f"{ROOT}/zones/{zone}" for zone in catalog.ZONES[region]],
            "quotas": [
                {"metric": metric, "usage": usage, "limit": limit}
                for metric, (usage, limit) in self.quota.items()
            ],
        }

    def _project(self, call: Call, error: str, message: str) -> Any:
        return {"kind": "compute#project", "name": PROJECT, "id": "42", "quotas": []}

    # -- firewall rules --------------------------------------------------------

    def _firewall_list(self, call: Call, error: str, message: str) -> Any:
        return self.paged(self.firewalls.values(), call)

    def _firewall_insert(self, call: Call, error: str, message: str) -> Any:
        name = call.body["name"]
        if name in self.firewalls:
            return exists(f"projects/{PROJECT}/global/firewalls/{name}")
        rule = {**call.body, "kind": "compute#firewall", "id": str(hash(name) % 10**9)}
        rule["network"] = f"https://www.googleapis.com/compute/v1/{rule['network']}"
        self.firewalls[name] = rule
        return self._ruled("insert", call, rule)

    def _firewall_patch(self, call: Call, error: str, message: str) -> Any:
        rule = self.firewalls.get(call.path["firewall"])
        if rule is None:
            return unknown(f"global/firewalls/{call.path['firewall']}")
        network = f"https://www.googleapis.com/compute/v1/{call.body['network']}"
        rule.update(call.body, network=network)
        return self._ruled("patch", call, rule)

    def _firewall_delete(self, call: Call, error: str, message: str) -> Any:
        name = call.path["firewall"]
        if name not in self.firewalls:
            return unknown(f"projects/{PROJECT}/global/firewalls/{name}")
        rule = self.firewalls[name]
        return self._ruled("delete", call, rule, lambda: drop(self.firewalls, name))

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
        return unknown(missing) if found is None else found

    def _family(self, call: Call, error: str, message: str) -> Any:
        key = call.path["project"], call.path["family"]
        name = catalog.FAMILIES.get(key)
        if name is None:
            return unknown(f"projects/{key[0]}/global/images/family/{key[1]}")
        licenses = [f"https://www.googleapis.com/compute/v1/projects/{key[0]}/x"]
        return {"name": name, "family": key[1], "licenses": licenses}

    def _image_list(self, call: Call, error: str, message: str) -> Any:
        return self.paged(self.images.values(), call)

    def require_label(self, body: Mapping[str, Any]) -> None:
        """Refuse an object without the label that the organization requires."""
        if self.required_label and self.required_label not in body.get("labels", {}):
            raise InvalidError(f"denied by policy: no label {self.required_label}")

    def _image_insert(self, call: Call, error: str, message: str) -> Any:
        name = call.body["name"]
        if name in self.images:
            return exists(f"projects/{PROJECT}/global/images/{name}")
        source = call.body["sourceDisk"].split("/")
        disk = self.instances.disks.get((source[-3], source[-1]))
        if disk is None:
            return unknown(call.body["sourceDisk"])
        check_labels(call.body.get("labels", {}))
        self.require_label(call.body)
        using = self.instances.all.get((source[-3], source[-1]), {"status": ""})
        if disk["users"] and using["status"] != "TERMINATED":
            text = "The disk resource is already being used by an instance"
            return refusal(400, text, "resourceInUseByAnotherResource")
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
            return unknown(f"projects/{PROJECT}/global/images/{name}")
        image = self.images[name]
        return self.operations.begin(
            "delete", image, {}, lambda: drop(self.images, name)
        )

    def _image_patch(self, call: Call, error: str, message: str) -> Any:
        found = self._image(call, error, message)
        if isinstance(found, Answer):
            return found
        if not set(call.body) <= {"family", "description", "deprecated"}:
            raise InvalidError("only the description of an image can be patched")
        found.update(call.body)
        return self.operations.begin("patch", found, {})

    def _image_labels(self, call: Call, error: str, message: str) -> Any:
        found = self.images.get(call.path["resource"])
        if found is None:
            return unknown(f"global/images/{call.path['resource']}")
        if call.body.get("labelFingerprint") != found["labelFingerprint"]:
            return refusal(412, "Labels fingerprint is invalid.", "conditionNotMet")
        check_labels(call.body["labels"])
        found["labels"] = dict(call.body["labels"])
        return self.operations.begin("setLabels", found, {})
