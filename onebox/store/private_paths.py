"""Folders and files that must not leave this machine."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from onebox.store.box_store import config_dir, local_root, state_dir

# Where programs keep keys, tokens and passwords, below a home folder or anywhere else.
_FOLDERS = (
    *(".ssh", ".aws", ".azure", ".gnupg", ".kube", ".oci", ".password-store"),
    *(".kaggle", ".config/gcloud", ".config/doctl", ".config/gh", ".config/onebox"),
    *(".config/op", ".config/rclone", ".local/share/keyrings"),
)
_FILES = (
    *(".netrc", "_netrc", ".pgpass", ".my.cnf", ".git-credentials", ".pypirc"),
    *(".s3cfg", ".boto", ".databrickscfg", ".dockercfg", ".docker/config.json"),
    *(".vault-token", ".terraform.d/credentials.tfrc.json", "credentials.tfrc.json"),
    *(".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials"),
    *("application_default_credentials.json", "kaggle.json", "rclone.conf"),
    *(".cache/huggingface/token", ".huggingface/token", ".snowsql/config"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"),
)
_CREDENTIALS = re.compile(
    b"(?:^|/)(?:%s)(?=/|$)"
    % b"|".join(re.escape(os.fsencode(name)) for name in (*_FOLDERS, *_FILES)),
    re.IGNORECASE,
)


def credentials_in(path: bytes) -> bytes | None:
    """Return the credential folder or file that a path is or lies in, if any."""
    match = _CREDENTIALS.search(path)
    return path[: match.end()] if match else None


def own_folders(environ: Mapping[str, str]) -> dict[str, Path]:
    """Return where onebox keeps its key, its state and its local boxes."""
    return {
        "onebox's own key": config_dir(environ),
        "onebox's state": state_dir(environ),
        "the local boxes": local_root(environ),
    }


def own_folder_near(path: Path, environ: Mapping[str, str]) -> tuple[str, Path] | None:
    """Return the first of onebox's own folders that holds *path* or lies in it."""
    real = path.resolve()
    for name, folder in own_folders(environ).items():
        place = folder.resolve()
        if holds(real, place) or holds(place, real):
            return name, folder
    return None


def no_project(root: Path, environ: Mapping[str, str]) -> str | None:
    """Return why a folder must not be pushed as a project, None if it may be."""
    real = root.resolve()
    for home in _homes(real, environ):
        if real == home:
            return f"{root} is a home folder"
        if holds(real, home):
            return f"{root} holds a home folder, {home}"
    for name, folder in own_folders(environ).items():
        if holds(real, folder.resolve()):
            return f"{root} holds {name}, in {folder}"
    return None


def holds(outer: Path, inner: Path) -> bool:
    """Return whether *inner* is *outer* or lies in it."""
    return outer == inner or outer in inner.parents


def _homes(root: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the homes of the user, of the account, and of the folder's owner."""
    if Path(environ.get("HOME", "")).is_absolute():
        yield Path(environ["HOME"]).resolve()
    for uid in dict.fromkeys((os.getuid(), root.stat().st_uid)):
        # An account of a container need not have an entry.
        with suppress(KeyError):
            yield Path(pwd.getpwuid(uid).pw_dir).resolve()
