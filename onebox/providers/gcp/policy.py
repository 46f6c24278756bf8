"""List the minimal permissions that onebox needs on Google Cloud."""

from __future__ import annotations

from onebox.providers.gcp import reach
from onebox.providers.gcp.errors import may_attach_command

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


def document(service_account: str = "", way: str = "") -> str:
    """
    Return a role with all PERMISSIONS, in the format of `gcloud iam roles create`.

    Args:
        service_account: The service account of the boxes, "" for none. The permission
            to attach it is granted on this account, and not by the role: in a role of
            the project it would cover every service account of the project.

        way: The value of the setting `reach`, which may need one more permission.
    """
    names = [*PERMISSIONS, *([reach.PERMISSION] if way == reach.IAP else [])]
    head = "# gcloud iam roles create onebox --project=PROJECT --file=THIS_FILE\n"
    attached = "no service account is attached"
    if service_account:
        attached = f"boxes act as {service_account}"
        head += (
            "# iam.serviceAccounts.actAs, for this service account only:\n"
            f"# {may_attach_command(service_account)}\n"
        )
    head += (
        "title: onebox\n"
        f"description: Create, use and delete boxes; {attached}.\n"
        "stage: GA\n"
        "includedPermissions:\n"
    )
    return head + "".join(f"- {name}\n" for name in sorted(names))
