"""
Read and keep the host key of a box, which the box publishes through Google.

The guest (cloud-init, or Google's agent) generates the key and publishes its public
half as a guest attribute. So no private key is sent, and no client has to trust a first
connection. Any process of the box can change a guest attribute at any time. So onebox
stores the first key that it sees in a label of the instance, and from then on reads
only the label. Only people of the project can change labels.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

from onebox.errors import Gone, NotAllowed, ProviderError
from onebox.providers.gcp.client import Cloud, last

LABEL = "onebox-hostkey"
_TYPE = b"ssh-ed25519"
_HEAD = struct.pack(">I", len(_TYPE)) + _TYPE + struct.pack(">I", 32)


def known(instance: Any) -> str:
    """Return the host key in an instance's label, "" if none is stored yet."""
    label = instance.labels.get(LABEL, "")
    if not label:
        return ""
    padded = label.upper() + "=" * (-len(label) % 8)
    try:
        raw = base64.b32decode(padded)
    except binascii.Error:
        return ""
    return _text(_HEAD + raw)


def find(cloud: Cloud, instance: Any) -> tuple[str, str]:
    """
    Return the host key of an instance, and the reason why it cannot be read.

    The key is "" until the box has published it. The reason is "" unless the permission
    to read the key is missing. That is no error, because the box can be deleted without
    the key.
    """
    key = known(instance)
    if key or instance.status != "RUNNING":
        return key, ""
    try:
        key = _published(cloud, instance)
    except NotAllowed as error:
        return (
            "",
            f"its host key cannot be read, so ssh cannot connect: {error.message}",
        )
    if key:
        _keep(cloud, instance, key)
    return key, ""


def _published(cloud: Cloud, instance: Any) -> str:
    try:
        found = cloud.ask(
            "instances",
            "get_guest_attributes",
            f"reading the host key of {instance.name}",
            zone=last(instance.zone),
            instance=instance.name,
            query_path="hostkeys/",
        )
    except Gone:
        # The guest is still booting and has published no keys.
        return ""
    for item in found.query_value.items:
        if item.key == _TYPE.decode():
            try:
                blob = base64.b64decode(item.value.split()[-1], validate=True)
            except (binascii.Error, IndexError):
                return ""
            if blob.startswith(_HEAD) and len(blob) == len(_HEAD) + 32:
                return _text(blob)
    return ""


def _keep(cloud: Cloud, instance: Any, key: str) -> None:
    """Store the key in a label; a failure is ignored."""
    raw = base64.b64decode(key.split()[1])[len(_HEAD) :]
    label = base64.b32encode(raw).decode().rstrip("=").lower()
    try:
        cloud.change(
            "instances",
            "set_labels",
            f"storing the host key of {instance.name}",
            token=f"{instance.id} {instance.label_fingerprint} {label}",
            zone=last(instance.zone),
            instance=instance.name,
            instances_set_labels_request_resource={
                "labels": {**instance.labels, LABEL: label},
                "label_fingerprint": instance.label_fingerprint,
            },
        )
    except ProviderError:
        # The call fails if the user may not change labels; such a user can still
        # connect. It also fails if another command has changed the labels just now. The
        # next call of `find` tries again.
        return


def _text(blob: bytes) -> str:
    return f"{_TYPE.decode()} {base64.b64encode(blob).decode()}"
