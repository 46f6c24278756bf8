"""
Images on a cluster: copies of the home of a box.

A Python environment contains the path of its own folder, and the home of a new box has
another path than that of the saved one. So an image lists the files and links that
contain the old path, and it is replaced in their copies. The ids of boxes are of equal
length, so these paths are too.

The home of the box is never moved or changed. Until the folder of the image gets its
name, that home is the only one that counts, and all that a crash leaves is a copy.
"""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, Optional

from ..folders import lifecycle
from ..folders.removal import remove
from ..folders.root import (
    RECORDS,
    Refusal,
    Root,
    check_owner,
    damaged,
    is_id,
    write_json,
)
from . import home_copy
from .home_copy import nothing


def find(root: Root, request: Dict[str, Any]) -> Dict[str, Any]:
    """
    Return the images of an owner, and remove what crashed commands have left.

    Also return the folders without a valid record, whose owner is unknown.
    """
    found, unreadable = [], []
    left = lifecycle.sweep(root, "images", request["owner"])
    for name in root.names("images"):
        if name.startswith("."):
            continue
        record, folder = root.image_record(name), root.image(name)
        if record is None:
            unreadable.append(folder)
        elif record["image"]["tags"].get("owner") == request["owner"]:
            found.append({"folder": folder, "image": record["image"]})
    return {"images": found, "damaged": unreadable, "left": left}


def save(root: Root, request: Dict[str, Any]) -> Dict[str, Any]:
    """Save the home of a stopped box as an image."""
    image, id = dict(request["image"]), str(request["box"])
    present = _present(root, image)
    if present is not None:
        return {"image": present["image"]}
    record = root.existing(id)
    check_owner(id, record, request["tags"])
    if not record.get("stopped"):
        raise Refusal("busy", "box %s has not stopped" % id)
    home, fresh = root.home(id), lifecycle.begin(root, "images", str(image["id"]))
    path = os.path.join(fresh, RECORDS["images"])
    beat, share = lifecycle.Heartbeat(fresh), record["tags"].get("kind") == "builder"
    try:
        # The record comes first, so that the owner of the folder is always known.
        write_json(path, {"image": image, "source": home, "paths": []})
        saved = os.path.join(fresh, "home")
        # A builder is removed afterwards, so its files need not be copied.
        home_copy.copy(home, saved, share=share, beat=beat)
        paths, size = home_copy.find_paths(saved, home, beat)
        image.update(created=time.time(), stored=size)
        write_json(path, {"image": image, "source": home, "paths": paths})
        lifecycle.complete(fresh, root.image(str(image["id"])))
    except BaseException:
        remove(fresh)
        raise
    present = _present(root, image)
    return {"image": image if present is None else present["image"]}


def delete(root: Root, request: Dict[str, Any]) -> Dict[str, Any]:
    """Delete an image; boxes have their own copies of it."""
    image = dict(request["image"])
    _present(root, image)
    lifecycle.delete(root, "images", str(image["id"]))
    return {}


def furnish(
    root: Root, image: str, home: str, final: str, beat: Callable[[], None] = nothing
) -> None:
    """
    Create the home of a box, from an image if *image* is not "".

    Args:
        home: Where the home is created.

        final: Its path once the box is complete.

        beat: Is called again and again meanwhile.

    Raises:
        Refusal: The image is gone, or damaged.
    """
    if not image:
        os.mkdir(home, 0o700)
        return
    if not is_id(image):
        raise Refusal("argument", "%r cannot be the id of an image" % image)
    record, folder = root.image_record(image), root.image(image)
    if record is None and os.path.lexists(folder):
        raise damaged(folder, "images")
    gone = Refusal("gone", "image %s has been removed" % image)
    if record is None:
        raise gone
    source, paths = os.path.join(folder, "home"), record["paths"]
    try:
        old = record["source"]
        home_copy.copy(source, home, paths=paths, old=old, new=final, beat=beat)
    except FileNotFoundError:
        if os.path.lexists(source):
            raise
        raise gone from None
    # A removal begins with a rename. So the copy is complete if the image is there now.
    if not os.path.lexists(source):
        raise gone


def _present(root: Root, image: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """
    Return the record of an image, None if there is no such image.

    Raises:
        Refusal: It belongs to another owner, or its record is damaged.
    """
    id = str(image["id"])
    if not is_id(id):
        raise Refusal("argument", "%r cannot be the id of an image" % id)
    present = root.image_record(id)
    if present is not None:
        check_owner(id, present["image"], image["tags"])
    elif os.path.lexists(root.image(id)):
        raise damaged(root.image(id), "images")
    return present
