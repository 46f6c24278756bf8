"""List the minimal permissions that onebox needs on Google Cloud."""

from __future__ import annotations

PERMISSIONS = (
    "compute.disks.create",
    "compute.disks.delete",
    "compute.disks.get",
    "compute.disks.list",
    "compute.disks.setLabels",
    "compute.disks.use",
    "compute.disks.useReadOnly",
    "compute.firewalls.create",
    "compute.firewalls.delete",
    "compute.firewalls.get",
    "compute.firewalls.list",
    "compute.firewalls.update",
    "compute.globalOperations.get",
    "compute.images.create",
    "compute.images.delete",
    "compute.images.get",
    "compute.images.getFromFamily",
    "compute.images.list",
    "compute.images.setLabels",
    "compute.images.update",
    "compute.images.useReadOnly",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.getGuestAttributes",
    "compute.instances.getSerialPortOutput",
    "compute.instances.list",
    "compute.instances.setLabels",
    "compute.instances.setMachineType",
    "compute.instances.setMetadata",
    "compute.instances.setScheduling",
    "compute.instances.setTags",
    "compute.instances.start",
    "compute.instances.stop",
    "compute.addresses.list",
    "compute.machineTypes.list",
    "compute.networks.updatePolicy",
    "compute.projects.get",
    "compute.regions.get",
    "compute.subnetworks.use",
    "compute.subnetworks.useExternalIp",
    "compute.zoneOperations.get",
    "compute.zoneOperations.list",
)


def document() -> str:
    """
    Return a role with all PERMISSIONS, in the format of `gcloud iam roles create`.
    """
    head = (
        "# gcloud iam roles create onebox --project=PROJECT --file=THIS_FILE\n"
        "title: onebox\n"
        "description: Create, use and delete boxes; no service account is attached.\n"
        "stage: GA\n"
        "includedPermissions:\n"
    )
    return head + "".join(f"- {name}\n" for name in sorted(PERMISSIONS))
