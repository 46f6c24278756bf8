"""
Learn a box's host key from the box itself, through Google.

The guest (cloud-init, or Google's agent) makes its own key and publishes it as a
guest attribute: no private key travels, and nobody has to trust a first
connection. Guest attributes can be written by any process of the box, at any
time; so the first key that is seen becomes a label, which only the account's own
people can change, and from then on the label counts.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

from onebox.errors import Gone, NotAllowed, ProviderError
from onebox.providers.gcp.client import Cloud, Exists, last

LABEL = "onebox-hostkey"
_TYPE = b"ssh-ed25519"
_HEAD = struct.pack(">I", len(_TYPE)) + _TYPE + struct.pack(">I", 32)


def known(instance: Any) -> str:
    """Return the host key in OpenSSH's format, as it was first seen, or ""."""
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
    Return the host key of a running instance, "" until it has told.

    Beside it: why it cannot be asked for, should that not be permitted. The box can
    be removed all the same.
    """
    key = known(instance)
    if key or instance.status != "RUNNING":
        return key, ""
    try:
        key = _published(cloud, instance)
    except NotAllowed as error:
        return "", f"its host key cannot be read, so nobody logs in: {error.message}"
    if key:
        _keep(cloud, instance, key)
    return key, ""


def _published(cloud: Cloud, instance: Any) -> str:
    try:
        found = cloud.ask(
            "instances",
            "get_guest_attributes",
            f"asking for the host key of {instance.name}",
            zone=last(instance.zone),
            instance=instance.name,
            query_path="hostkeys/",
        )
    except Gone:
        # Not yet: the guest is still booting.
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
    """Write the key down with the instance, unless somebody else does just now."""
    raw = base64.b64decode(key.split()[1])[len(_HEAD) :]
    label = base64.b32encode(raw).decode().rstrip("=").lower()
    try:
        cloud.change(
            "instances",
            "set_labels",
            f"writing down the host key of {instance.name}",
            token=f"{instance.id} {instance.label_fingerprint} {label}",
            zone=last(instance.zone),
            instance=instance.name,
            instances_set_labels_request_resource={
                "labels": {**instance.labels, LABEL: label},
                "label_fingerprint": instance.label_fingerprint,
            },
        )
    except (ProviderError, Exists):
        # Who may only look can still connect; else the next look tries again.
        return


def _text(blob: bytes) -> str:
    return f"{_TYPE.decode()} {base64.b64encode(blob).decode()}"
